# SPDX-License-Identifier: Apache-2.0
"""Connect's protocol (connectrpc.com/docs/protocol), JSON only: calls with one answer, or many, or many requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ...errors import DeadlineExceeded, HyperError, InvalidArgument

Message = Mapping[str, Any]
_ENVELOPE = struct.Struct(">BI")  # flags, bytes of the message
_LAST = 2  # flag of the one that ends a stream
_MESSAGE_MAX = 16 << 20  # bytes
# Our code -> Connect's, and the HTTP status of a call with one answer.
_CODES = {
    "invalid_argument": ("invalid_argument", 400),
    "not_found": ("not_found", 404),
    "conflict": ("already_exists", 409),
    "invalid_state": ("failed_precondition", 400),
    "permission_denied": ("permission_denied", 403),
    "unauthorized": ("unauthenticated", 401),
    "unsupported": ("unimplemented", 501),
    "unavailable": ("unavailable", 503),
    "deadline_exceeded": ("deadline_exceeded", 504),
    "start_failed": ("invalid_argument", 400),
}


class Gone(HyperError):
    """The sandbox is not there any more, or stands still."""

    code = "gone"


class Call:
    """One request of a client."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.timeout = _number(request, "Connect-Timeout-Ms") / 1000 or None  # seconds
        self.keepalive = _number(request, "Keepalive-Ping-Interval")  # seconds; 0: none
        self.user = _user(request)

    async def message(self) -> dict[str, Any]:
        """What it says, of a call with one request."""
        body = await self.request.read()
        if self.request.content_type == "application/connect+json":
            body = body[_ENVELOPE.size :]
        return _decoded(body)

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What it says bit by bit."""
        content = self.request.content
        while True:
            try:
                flags, length = _ENVELOPE.unpack(await content.readexactly(_ENVELOPE.size))
                if length > _MESSAGE_MAX:
                    raise InvalidArgument(f"a message has more than {_MESSAGE_MAX >> 20} MiB")
                body = await content.readexactly(length)
            except asyncio.IncompleteReadError:
                return
            if flags & _LAST:
                return
            yield _decoded(body)


def _number(request: web.Request, header: str) -> float:
    try:
        return max(0.0, float(request.headers.get(header, "0")))
    except ValueError:
        raise InvalidArgument(f"{header} is no number") from None


def _user(request: web.Request) -> str:
    """As whom: the user name of HTTP's basic authentication, which has no password here."""
    import base64

    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind != "Basic":
        return ""
    try:
        return base64.b64decode(value).decode().partition(":")[0]
    except ValueError:
        raise InvalidArgument("the header Authorization is not understood") from None


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise InvalidArgument("a message is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidArgument("a message is no object")
    return found


def _error(error: HyperError) -> tuple[dict[str, str], int]:
    code, status = _CODES.get(error.code, ("internal", 500))
    return {"code": code, "message": str(error)}, status


async def answer(call: Call, work: Callable[[Call], Awaitable[Message]]) -> web.StreamResponse:
    """Of a call with one answer."""
    try:
        return web.json_response(await work(call))
    except Gone:
        raise
    except HyperError as error:
        body, status = _error(error)
        return web.json_response(body, status=status)


async def answer_stream(
    call: Call, work: Callable[[Call], AsyncIterator[Message]], alive: Message
) -> web.StreamResponse:
    """Of a call with many; `alive` is sent in the intervals that its client wants, as long as it goes on."""
    await call.request.read()  # by HTTP/1.1 some clients send no more once the answer has begun
    response = web.StreamResponse(headers={"Content-Type": "application/connect+json"})
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    pings = asyncio.create_task(_ping(response, alive, call.keepalive)) if call.keepalive else None
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(call.timeout), contextlib.aclosing(work(call)) as events:  # type: ignore[type-var]
            async for message in events:
                await _send(response, 0, message)
    except TimeoutError:
        last["error"], _ = _error(DeadlineExceeded(f"it took longer than {call.timeout:g} s"))
    except HyperError as error:
        last["error"], _ = _error(error)
    finally:
        if pings:
            pings.cancel()
            await asyncio.gather(pings, return_exceptions=True)
    await _send(response, _LAST, last)
    return response


async def answer_last(call: Call, work: Callable[[Call], Awaitable[Message]]) -> web.StreamResponse:
    """Of a call with many requests and one answer, which begins when they have ended: HTTP/1.1 is one way at a time."""
    first = b""
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(call.timeout):
            first = _envelope(0, await work(call))
    except TimeoutError:
        last["error"], _ = _error(DeadlineExceeded(f"it took longer than {call.timeout:g} s"))
    except HyperError as error:
        last["error"], _ = _error(error)
    response = web.Response(body=first + _envelope(_LAST, last), content_type="application/connect+json")
    if last:
        response.force_close()  # what the client has not sent yet is not to be taken for its next request
    return response


def _envelope(flags: int, message: Message) -> bytes:
    body = json.dumps(message).encode()
    return _ENVELOPE.pack(flags, len(body)) + body


async def _send(response: web.StreamResponse, flags: int, message: Message) -> None:
    await response.write(_envelope(flags, message))


async def _ping(response: web.StreamResponse, alive: Message, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        await _send(response, 0, alive)
