# SPDX-License-Identifier: Apache-2.0
"""Templates become answers."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from ..model.billing import write_money
from ..model.ids import short
from ..model.units import format_age, format_binary

_HERE = Path(__file__).parent
STATIC = _HERE / "static"


@functools.cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(binary=format_binary, age=format_age, short=short, money=_money, moment=_moment)
    return found


def text(template: str, **values: Any) -> str:
    """What a template makes of these values."""
    return _templates().get_template(template).render(**values)


def page(template: str, *, status: int = 200, **values: Any) -> web.Response:
    """An answer for a browser."""
    return web.Response(text=text(template, **values), status=status, content_type="text/html")


def _moment(seconds: int) -> str:
    """Since the epoch, in UTC; what no calendar has is left out."""
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""


def _money(amount: int) -> str:
    """Of 10^-6 of a currency, for people."""
    return write_money(amount, 2)
