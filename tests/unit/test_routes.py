# SPDX-License-Identifier: Apache-2.0
"""Functions become operations by a decorator, which reads what it can from the function itself."""

from __future__ import annotations

import re
from collections import Counter

from aiohttp import web

from hypercontainer.api.app import ROUTES
from hypercontainer.api.router import Context, Route, Routes
from hypercontainer.docker.app import ROUTES as DOCKER
from hypercontainer.model.host import Version


def test_an_operation_is_what_its_function_says() -> None:
    routes = Routes()

    @routes.get("/things/{id}", query={"all": "the others too"})
    async def inspect(c: Context) -> list[Version]:
        """Inspect a thing.

        This is for people who read the code.
        """
        raise NotImplementedError

    @routes.post("/things", body=Version, result=Version, status=201)
    async def create(c: Context) -> Version | web.StreamResponse:
        """Is it there?"""
        raise NotImplementedError

    @routes.delete("/things/{id}")
    async def remove(c: Context) -> None:
        """Remove a thing."""

    @routes.put("/things/{id}", stream="text/plain")
    async def write(c: Context) -> web.StreamResponse | None:
        """Write it."""
        raise NotImplementedError

    assert routes.all == [
        Route("GET", "/things/{id}", inspect, "Inspect a thing", {"all": "the others too"}, result=list[Version]),
        Route("POST", "/things", create, "Is it there?", body=Version, result=Version, status=201),
        Route("DELETE", "/things/{id}", remove, "Remove a thing"),
        Route("PUT", "/things/{id}", write, "Write it", stream="text/plain"),
    ]


def test_every_operation_is_described_and_there_once() -> None:
    assert len({(r.method, r.path) for r in ROUTES}) == len(ROUTES) > 50
    assert [r.path for r in ROUTES if not r.summary] == []


def test_no_docker_request_has_two_answers() -> None:
    """Of two the second would never be given."""
    found = Counter((route.method, re.sub(r"{\w+", "{", route.path)) for route in DOCKER)
    allowed = [("GET", "/plugins")]  # there are none; whatever else is asked of them is refused
    assert [each for each, times in found.items() if times > 1] == allowed
