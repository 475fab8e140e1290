# SPDX-License-Identifier: Apache-2.0
"""Decorators that make functions operations: the application serves them, the OpenAPI document describes them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
from aiohttp import web

from .. import errors
from ..engine.engine import Engine
from ..engine.principal import current
from ..model.base import Model
from ..model.moments import read_moment
from ..model.principal import NOWHERE, Scope
from ..model.sentences import explain
from ..serving import statuses
from ..serving.auditing import ticket
from ..serving.bodies import BODIES
from ..serving.identity import require
from ..serving.statuses import headers_of, status_of
from ..sys.documents import UNREADABLE

log = logging.getLogger(__name__)
T = TypeVar("T")

STATUS = statuses.STATUS | {errors.StartFailed: 422, errors.NoSpace: 507}
FRAMES = "application/vnd.hyper.frames"  # the stream of `upgrade`


class ErrorBody(Model, frozen=True, kw_only=True):
    """Every answer of 4xx and 5xx."""

    code: str
    message: str
    hint: str = ""
    exit_status: int = 0


def error_body(error: Exception) -> ErrorBody:
    if isinstance(error, errors.HyperError):
        status = error.exit_status if isinstance(error, errors.StartFailed) else 0
        return ErrorBody(code=error.code, message=error.message, hint=error.hint or "", exit_status=status)
    return ErrorBody(code="internal", message=f"internal error: {error!r}", hint="see hyperd's log")


def error_response(error: errors.HyperError, headers: dict[str, str] | None = None) -> web.Response:
    """The answer that tells of an error."""
    status = status_of(error, STATUS)
    if status == 401:
        headers = {**(headers or {}), "WWW-Authenticate": "Bearer"}  # RFC 9110, 11.6.1
    ticket().code = error.code
    headers = {**(headers or {}), **headers_of(error)}
    return web.Response(
        body=msgspec.json.encode(error_body(error)), status=status, headers=headers, content_type="application/json"
    )


@dataclass(frozen=True)
class Context:
    """What a handler works with."""

    engine: Engine
    request: web.Request

    @property
    def id(self) -> str:
        return self.request.match_info["id"]

    @property
    def upgrades(self) -> bool:
        """Whether the client asks for a framed stream."""
        return self.request.headers.get("Upgrade", "").lower() == "tcp"

    def require_upgrade(self) -> None:
        """:raise InvalidArgument: the client does not ask for one."""
        if not self.upgrades:
            raise errors.InvalidArgument(
                "this operation changes the connection into a stream of frames", hint="send `Upgrade: tcp`"
            )

    def flag(self, name: str) -> bool:
        return self.request.query.get(name, "").lower() in ("1", "true", "yes", "on")

    def text(self, name: str, default: str = "") -> str:
        return self.request.query.get(name, default)

    def number(self, name: str, default: int | None = None) -> int | None:
        """:raise InvalidArgument: when it is not a whole number of at least 0."""
        raw = self.request.query.get(name)
        if raw is None or raw == "":
            return default
        if not raw.isdecimal():
            raise errors.InvalidArgument(f"query parameter {name}={raw!r} is not a whole number", hint="give 0 or more")
        return int(raw)

    def moment(self, name: str) -> int | None:
        """Nanoseconds since the epoch; None when it is not given.

        :raise InvalidArgument: when it is no time.
        """
        return read_moment(raw) if (raw := self.text(name)) else None

    async def body(self, type_: type[T]) -> T:
        """:raise InvalidArgument: with the path of what is wrong."""
        sent = await self.request.app[BODIES].read(self.request)
        try:
            return msgspec.json.decode(sent, type=type_)
        except msgspec.ValidationError as error:
            raise errors.InvalidArgument(f"invalid request body: {_why(error, sent, type_)}") from error
        except UNREADABLE as error:
            raise errors.InvalidArgument(f"invalid request body: {explain(error)}") from error


def _why(error: msgspec.ValidationError, sent: bytes, type_: type[Any]) -> str:
    try:
        return explain(error, msgspec.json.decode(sent), type_)
    except UNREADABLE:  # it was refused before all of it was read
        return explain(error)


Handler = Callable[[Context], Awaitable[Any]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Route:
    """One operation. A handler's result is sent as JSON, unless it is a response already."""

    method: str
    path: str
    handler: Handler
    summary: str
    query: dict[str, str] = field(default_factory=dict)  # name -> meaning
    body: Any = None
    result: Any = None
    status: int = 200
    stream: str = ""  # media type, when the answer is no JSON document
    scope: Scope | None = None  # None: by the method
    also: tuple[Scope, ...] = ()  # scopes that do as well
    everybody: bool = False  # who asks need not be known
    anywhere: bool = False  # it is about projects: a user need not be in one

    @property
    def needs(self) -> Scope:
        """The scope that it takes: to look is `read`, to change something is `operate`, if nothing else is said."""
        return self.scope or ("read" if self.method == "GET" else "operate")


class Routes:
    """The operations of a module, in the order of its functions: `@routes.get("/path")` adds one.

    The summary is the first line of the function's docstring; what is sent is
    the type that it returns, or `result` when it may return a response instead.
    """

    def __init__(self) -> None:
        self.all: list[Route] = []
        self.get = partial(self._operation, "GET")
        self.post = partial(self._operation, "POST")
        self.put = partial(self._operation, "PUT")
        self.delete = partial(self._operation, "DELETE")

    def _operation(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Any = None,
        result: Any = None,
        status: int = 200,
        stream: str = "",
        scope: Scope | None = None,
        also: tuple[Scope, ...] = (),
        anywhere: bool = False,
        everybody: bool = False,
    ) -> Callable[[H], H]:
        """`query` gives parameters' meanings, `stream` the media type of an answer that is no JSON document."""

        def add(handler: H) -> H:
            summary = (handler.__doc__ or "").partition("\n")[0].removesuffix(".")
            sent = result or _sent(handler)
            self.all.append(
                Route(
                    method,
                    path,
                    handler,
                    summary,
                    query or {},
                    body,
                    sent,
                    status,
                    stream,
                    scope,
                    also,
                    everybody,
                    anywhere,
                )
            )
            return handler

        return add


def _sent(handler: Handler) -> Any:
    """The type of the JSON document that a handler returns; None for nothing and for responses."""
    returned = get_type_hints(handler)["return"]
    kinds = [k for k in get_args(returned) or [returned] if isinstance(k, type)]
    return None if any(issubclass(k, (web.StreamResponse, type(None))) for k in kinds) else returned


def bind(route: Route, engine: Engine) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        if not route.everybody and not (route.anywhere and current().tenant == NOWHERE):
            require(route.needs, *route.also)
        result = await route.handler(Context(engine, request))
        if isinstance(result, web.StreamResponse):
            return result
        if result is None:
            return web.Response(status=204 if route.result is None else route.status)
        return web.Response(body=msgspec.json.encode(result), status=route.status, content_type="application/json")

    return handle


@web.middleware
async def errors_to_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """Known errors by the table; anything else is a 500 and is logged with its traceback."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except errors.HyperError as error:
        return error_response(error)
    except web.HTTPException as error:
        body = ErrorBody(
            code="not_found" if error.status == 404 else "http",
            message=f"{request.method} {request.path}: {error.reason}",
        )
        ticket().code = body.code
        return web.Response(body=msgspec.json.encode(body), status=error.status, content_type="application/json")
    except Exception as error:
        log.exception("%s %s failed (request %s)", request.method, request.path, ticket().id)
        return web.Response(body=msgspec.json.encode(error_body(error)), status=500, content_type="application/json")
