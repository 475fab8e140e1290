# SPDX-License-Identifier: Apache-2.0
"""Decorators that make functions operations of the Engine API, and what an operation works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..engine.engine import Engine
from ..errors import InvalidArgument, NotFound
from ..model.principal import Scope
from ..model.sentences import explain
from ..model.status import Container
from ..serving.bodies import BODIES
from ..serving.identity import require
from ..sys.documents import UNREADABLE
from . import missing
from .versions import ApiVersion, negotiated

T = TypeVar("T")
_FALSE = ("", "0", "no", "false", "none")  # as Docker reads a flag: all else is true


@dataclass(frozen=True)
class Call:
    """A request, and the engine that answers it."""

    engine: Engine
    request: web.Request
    version: ApiVersion

    @property
    def name(self) -> str:
        """What the route names: a container, an image with its slashes, a volume."""
        return self.request.match_info["name"]

    @property
    def container(self) -> Container:
        """The one that the route names.

        :raise NotFound: in Docker's words, which clients show. :raise InvalidArgument: ambiguous.
        """
        try:
            return self.engine.registry.container(self.name)
        except NotFound as error:
            raise NotFound(f"No such container: {self.name}") from error

    def text(self, key: str, default: str = "") -> str:
        return self.request.query.get(key, default)

    def flag(self, key: str, default: bool = False) -> bool:
        raw = self.request.query.get(key)
        return default if raw is None else raw.strip().lower() not in _FALSE

    def number(self, key: str, default: int | None = None) -> int | None:
        """:raise InvalidArgument: when it is no whole number."""
        raw = self.request.query.get(key)
        if raw is None or raw == "":
            return default
        try:
            return int(raw)
        except ValueError:
            raise InvalidArgument(f"invalid value {raw!r} of the query parameter {key}: not a whole number") from None

    def filters(self, allowed: Collection[str]) -> dict[str, list[str]]:
        """The query parameter `filters`: `{"name": ["a"]}`, or as of old `{"name": {"a": true}}`.

        :raise InvalidArgument: it is no such document, or has a filter that is not allowed.
        """
        raw = self.text("filters")
        try:
            found = msgspec.json.decode(raw, type=dict[str, list[str] | dict[str, bool]]) if raw else {}
        except UNREADABLE as error:
            raise InvalidArgument(f"invalid filters: {explain(error)}") from error
        for key in found:
            if key not in allowed:
                raise InvalidArgument(f"invalid filter '{key}'")
        return {k: v if isinstance(v, list) else [x for x, on in v.items() if on] for k, v in found.items()}

    async def body(self, type_: type[T], *, empty: T | None = None) -> T:
        """The body as a document; `empty` stands for one that was not sent. Unknown fields are passed over.

        :raise InvalidArgument: with the path of what is wrong.
        """
        sent = await self.request.app[BODIES].read(self.request)
        if not sent.strip():
            if empty is not None:
                return empty
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        try:
            return msgspec.json.decode(sent, type=type_)
        except UNREADABLE as error:
            raise InvalidArgument(f"invalid JSON: {explain(error)}") from error


Handler = Callable[[Call], Awaitable[Any]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Route:
    """One operation. What its handler returns is sent as JSON, nothing as 204, unless it is a response already."""

    method: str
    path: str
    handler: Handler
    status: int
    scope: Scope


class Routes:
    """The operations of a module: `@routes.get("/containers/json")` adds one. A name with slashes is `{name:.+}`."""

    def __init__(self) -> None:
        self.all: list[Route] = []
        self.get = partial(self._operation, "GET")
        self.head = partial(self._operation, "HEAD")
        self.post = partial(self._operation, "POST")
        self.put = partial(self._operation, "PUT")
        self.delete = partial(self._operation, "DELETE")

    def _operation(self, method: str, path: str, *, status: int = 200, scope: Scope | None = None) -> Callable[[H], H]:
        """`scope` is what it takes: to look is `read`, to change something is `operate`, if nothing else is said."""

        def add(handler: H) -> H:
            needs = scope or ("read" if method in ("GET", "HEAD") else "operate")
            self.all.append(Route(method, path, handler, status, needs))
            return handler

        return add


def bind(route: Route, engine: Engine) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        version = negotiated(request.match_info.get("version", ""))
        require(route.scope)
        try:
            result = await route.handler(Call(engine, request, version))
        except NotFound as error:
            raise missing.reworded(engine, route.path, request.match_info.get("name", ""), error) from error
        if isinstance(result, web.StreamResponse):
            return result
        if result is None:
            return web.Response(status=204)
        return json_response(result, route.status)

    return handle


def json_response(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document) + b"\n", status=status, content_type="application/json")
