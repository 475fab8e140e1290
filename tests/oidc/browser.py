# SPDX-License-Identifier: Apache-2.0
"""Somebody at an identity provider's pages: what its forms ask is answered until there is nothing more to answer."""

from __future__ import annotations

import html.parser
from dataclasses import dataclass, field
from urllib.parse import urljoin

import aiohttp

_PAGES = 10  # that a log-in has at most


@dataclass
class _Form(html.parser.HTMLParser):
    """The first one of a page."""

    action: str = ""
    method: str = "get"
    given: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action, self.method = told["action"], told.get("method", "get")
        elif tag == "input" and told.get("name"):
            if told.get("type") == "hidden":
                self.given[told["name"]] = told.get("value", "")
            else:
                self.asked.add(told["name"])


async def answer(
    http: aiohttp.ClientSession, address: str, stop: str, *, login: str, abort: bool = False
) -> tuple[str, str]:
    """Where it ends, and what is written there: at an address that does not begin with `stop`, or without a form.

    `abort`: a code of a device is not confirmed.
    """
    response = await http.get(address)
    for _ in range(_PAGES):
        where, text = str(response.url), await response.text()
        form = _Form()
        form.feed(text)
        if not where.startswith(stop) or not form.action:
            return where, text
        data = {**form.given, **dict.fromkeys(form.asked, login)}
        refused = abort and "confirm" in data
        if refused:
            data["abort"] = "yes"  # of a button that is not in the form
        response = await http.request(form.method.upper(), urljoin(where, form.action), data=data)
        if refused:  # what follows is the beginning again
            return str(response.url), await response.text()
    raise AssertionError(f"no end after {_PAGES} pages: {response.url}")
