# SPDX-License-Identifier: Apache-2.0
"""All services behind one address. Who has the token makes sandboxes; each sandbox has a token of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import hmac
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from ...errors import HyperError, InvalidArgument, Unauthorized
from ...sdk.api import Api
from . import files, filesystem, process
from .book import Book, Entry
from .building import FILES
from .connect import Call, answer, answer_last, answer_stream
from .control import Control
from .terms import access_token

_BODY_MAX = 64 << 20  # bytes of a request but a file's
_SHUTDOWN = 2.0  # seconds for requests that are under way
_STATUS = {
    "invalid_argument": 400, "unauthorized": 401, "permission_denied": 403, "not_found": 404, "conflict": 409,
    "invalid_state": 409, "unsupported": 400, "unavailable": 503, "deadline_exceeded": 504, "no_space": 507,
    "gone": 502, "start_failed": 400,
}  # fmt: skip
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _calls(name: str, service: Any) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Of a service, by their paths: what each does, and how it is answered."""
    answer_many = functools.partial(answer_stream, alive=service.ALIVE)
    kinds = (("UNARY", answer), ("SERVER_STREAMS", answer_many), ("CLIENT_STREAMS", answer_last))
    return {
        f"/{name}/{method}": (work, how) for kind, how in kinds for method, work in getattr(service, kind, {}).items()
    }


_CALLS = {**_calls("process.Process", process), **_calls("filesystem.Filesystem", filesystem)}
_OF_SANDBOXES = {"/health", "/files", *_CALLS}


class Server:
    """The application, and what of it outlives a request."""

    def __init__(self, token: str, *, host: str | None, image: str) -> None:
        self._token = token
        self.book = Book(host, image)
        self._control = Control(self.book, token, Api(host))

    def application(self) -> web.Application:
        """For aiohttp."""
        app = web.Application(client_max_size=_BODY_MAX, middlewares=[_errors, self._authorize])
        app.add_routes(self._control.routes())
        app.add_routes([
            web.get("/health", self._health), web.get("/files", self._file(files.read)),
            web.post("/files", self._file(files.write)),
        ])  # fmt: skip
        app.add_routes([web.post(path, self._call(*call)) for path, call in _CALLS.items()])
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, app: web.Application) -> AsyncIterator[None]:
        yield
        await self._control.close()
        await self.book.close()

    # -- who asks ------------------------------------------------------------------------

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A sandbox's own token is good for what is in that sandbox, and for nothing else.

        :raise Unauthorized: it is not who it should be.
        """
        resource = request.match_info.route.resource
        route = resource.canonical if resource else ""
        sandbox = request.headers.get("E2b-Sandbox-Id", "") if route in _OF_SANDBOXES else ""
        if sandbox:
            wanted, given = access_token(self._token, sandbox), request.headers.get("X-Access-Token", "")
        elif route == "/files":
            return await handler(request)  # by a signed address; `_entry` looks whose it is
        elif route == FILES and request.method == "PUT":
            return await handler(request)  # by a signed address, too
        elif route.startswith("/volumecontent/"):
            return await handler(request)  # with a token of the volume's, for what there is not here
        else:
            wanted, given = self._token, request.headers.get("X-API-Key", "")
        if not hmac.compare_digest(wanted.encode(), given.encode()):
            raise Unauthorized(
                "the token is not right", hint="E2B_API_KEY is the one that this server was started with"
            )
        return await handler(request)

    async def _signed(self, request: web.Request) -> str:
        """Whose file it is that a signed address names: the address has the signature alone.

        :raise Unauthorized: nobody's.
        """
        query = request.query
        operation = "read" if request.method == "GET" else "write"
        until = query.get("signature_expiration", "")
        if not until or (until.isascii() and until.isdigit() and float(until) >= time.time()):
            for entry, _ in await self.book.all():
                own = access_token(self._token, entry.sandbox.id)
                parts = [query.get("path", ""), operation, query.get("username", ""), own, *filter(None, [until])]
                digest = base64.b64encode(hashlib.sha256(":".join(parts).encode()).digest()).rstrip(b"=").decode()
                if hmac.compare_digest(f"v1_{digest}".encode(), query.get("signature", "").encode()):
                    return entry.sandbox.id
        raise Unauthorized("the address is not signed, or its time is over")

    # -- services of a sandbox -----------------------------------------------------------

    async def _entry(self, request: web.Request) -> Entry:
        sandbox = request.headers.get("E2b-Sandbox-Id", "")
        if not sandbox and request.path != "/files":
            raise InvalidArgument("no sandbox is named")
        return await self.book.ready(sandbox or await self._signed(request))

    async def _health(self, request: web.Request) -> web.StreamResponse:
        await self._entry(request)
        return web.Response(status=204)

    def _file(self, work: Callable[[Entry, web.Request], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            found: web.StreamResponse = await work(await self._entry(request), request)
            return found

        return handle

    def _call(self, work: Callable[[Entry, Call], Any], answered: Callable[..., Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            entry = await self._entry(request)
            found: web.StreamResponse = await answered(Call(request), lambda call: work(entry, call))
            return found

        return handle


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What goes wrong, as E2B's services say it."""
    try:
        return await handler(request)
    except HyperError as error:
        status = _STATUS.get(error.code, 500)
        response = web.json_response({"code": status, "message": str(error)}, status=status)
        if request.can_read_body:
            response.force_close()  # what the client has not sent yet is not to be taken for its next request
        return response
    except web.HTTPException as error:
        return web.json_response({"code": error.status, "message": error.text}, status=error.status)


async def serve(server: Server, address: str, port: int, listening: Callable[[str, int], None]) -> None:
    """Until it is asked to end. `listening` is told where."""
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        listening(*runner.addresses[0][:2])
        await end.wait()
