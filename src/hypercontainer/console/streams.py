# SPDX-License-Identifier: Apache-2.0
"""What a page gets while it is open: output, figures, events, and a terminal.

Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) one way, a websocket both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from aiohttp import WSMsgType, web

from ..engine.attach.peer import End, Input, Resize, Said
from ..engine.attach.session import AttachOptions
from ..errors import HyperError, InvalidArgument
from ..model.specs import ExecSpec
from ..model.states import ALIVE
from ..sys import tasks
from .call import Call, Pages

pages = Pages()
_TAIL = 1000  # lines of output that are there at the begin
_EVERY = 1.0  # seconds between figures
_QUIET = 15.0  # seconds after which a comment keeps the connection
_MESSAGE_MAX = 64 << 10  # bytes of input in one message
_CELLS_MAX = 1000  # rows and columns
_SHELL = ["/bin/sh", "-c", "exec $(command -v bash || echo sh)"]


async def send_events(c: Call, events: AsyncGenerator[object, None]) -> web.StreamResponse:
    """Each as JSON; until the page is closed, or there are no more."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(c.request)
    async with contextlib.aclosing(_with_pauses(events)) as found:
        with contextlib.suppress(ConnectionError):
            async for event in found:
                data = b": still here\n\n" if event is None else b"data: " + msgspec.json.encode(event) + b"\n\n"
                await response.write(data)
            await response.write(b"event: end\ndata: {}\n\n")
    return response


async def _with_pauses(events: AsyncGenerator[object, None]) -> AsyncGenerator[object, None]:
    """None where nothing came for a while, by which one hears that a page was closed."""
    async with contextlib.aclosing(events):
        waiting = asyncio.ensure_future(anext(events, _OVER))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=_QUIET)
                if not done:
                    yield None
                    continue
                if (event := waiting.result()) is _OVER:
                    return
                yield event
                waiting = asyncio.ensure_future(anext(events, _OVER))
        finally:
            await tasks.end([waiting])


_OVER = object()


@pages.get("/containers/{name}/logs")
async def logs(c: Call) -> web.StreamResponse:
    """Its output so far, and as it comes."""
    container = c.engine.registry.container(c.name)

    async def lines() -> AsyncGenerator[object, None]:
        found = c.engine.logs(container.id, tail=_TAIL, since="", until="", follow=True)
        async with contextlib.aclosing(found):
            async for batch in found:
                yield [[r.stream, r.log] for r in batch]

    return await send_events(c, lines())


@pages.get("/containers/{name}/stats")
async def stats(c: Call) -> web.StreamResponse:
    """Figures, once a second while it runs."""
    container = c.engine.registry.container(c.name)

    async def figures() -> AsyncGenerator[object, None]:
        while c.engine.registry.exists(container.id):
            if c.engine.registry.container(container.id).state.status not in ALIVE:
                return
            try:
                yield await c.engine.monitor.stats(container.id)
            except HyperError:
                return
            await asyncio.sleep(_EVERY)

    return await send_events(c, figures())


@pages.get("/events/live")
async def events(c: Call) -> web.StreamResponse:
    """What happens, as it happens."""

    async def found() -> AsyncGenerator[object, None]:
        async with contextlib.aclosing(c.engine.events.follow()) as happening:
            async for event in happening:
                yield event

    return await send_events(c, found())


class _Browser:
    """The terminal of a page: bytes are input, text is `{"rows": 24, "columns": 80}`."""

    def __init__(self, request: web.Request) -> None:
        self.response = web.WebSocketResponse(max_msg_size=_MESSAGE_MAX, heartbeat=30.0)
        self._request = request
        self._closed = False

    @property
    def gone(self) -> bool:
        """The page was closed, or its connection was lost: its shell ends, too."""
        return self._closed or self._request.transport is None

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def receive(self) -> Said | None:
        while True:
            message = await self.response.receive()
            if message.type is WSMsgType.BINARY:
                return Input(message.data)
            if message.type is not WSMsgType.TEXT:
                self._closed = True
                return None
            try:
                size = msgspec.json.decode(message.data, type=dict[str, int])
                rows, columns = size["rows"], size["columns"]
            except (msgspec.DecodeError, KeyError):
                raise InvalidArgument("the page sent what is no size of a terminal") from None
            return Resize(min(max(rows, 1), _CELLS_MAX), min(max(columns, 1), _CELLS_MAX))

    async def send(self, stream: int, data: bytes) -> None:
        await self.response.send_bytes(data)

    async def finish(self, end: End) -> None:
        with contextlib.suppress(ConnectionError):
            why = str(end.error) if end.error else end.message
            await self.response.send_str(why or f"The shell has ended ({end.exit_code}).")
            await self.response.close()


@pages.get("/containers/{name}/terminal/socket", scope="operate")
async def socket(c: Call) -> web.StreamResponse:
    """A shell in it, which ends with the page."""
    container = c.engine.registry.container(c.name)
    browser = _Browser(c.request)
    if not browser.response.can_prepare(c.request):
        raise InvalidArgument("this takes a websocket")
    await c.engine.containers.rouse(container.id)
    env = ["TERM=xterm-256color"]
    made = c.engine.execs.create(container.id, ExecSpec(command=_SHELL, tty=True, stdin=True, env=env))
    await c.engine.attachments.exec(made, AttachOptions(bound=True, detach_keys=b"")).run(browser)
    return browser.response
