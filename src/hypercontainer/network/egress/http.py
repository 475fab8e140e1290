# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 between a pod and the hosts that it may reach: each request is read, checked and written anew (RFC 9112)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

from ...model.egress import canonical_name
from .channel import IDLE, Closed, Stream, answered, pipe
from .refused import Refused

HEAD_MAX = 64 << 10  # bytes of a request's or an answer's line and headers
HEAD_TIMEOUT = 30.0  # seconds from the first byte of a request's head to its end
BETWEEN = 120.0  # seconds from one request to the next
_SWITCHING = 101
Headers = list[tuple[bytes, bytes]]
Change = Callable[[Headers], Headers]
Open = Callable[[str, int], Awaitable[Stream]]  # it raises `Refused`
Part = h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage  # of an answer
Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


def is_http(data: bytes) -> bool:
    """Whether this may begin a request: methods are of capital letters."""
    return bool(data) and data[:16].split(b" ")[0].isalpha() and data[:16].split(b" ")[0].isupper()


class Tunnel(NamedTuple):
    """What a CONNECT asked for: a connection to a host, which its taker closes."""

    host: str
    port: int
    far: Stream


class Relay:
    """One connection of a pod, whose port of the far end is `port`."""

    def __init__(
        self, client: Stream, port: int, open_: Open, *, inside: str = "", change: Change = lambda headers: headers,
        back: Change = lambda headers: headers,
    ) -> None:  # fmt: skip
        """`inside` is the host whose TLS it came in: each request must be for that. `change` gives a request's headers
        as the host gets them, `back` an answer's as the pod gets them.
        """
        self._client = client
        self._port = port
        self._open = open_
        self._inside = inside
        self._change, self._back = change, back
        self._server = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._far: Stream | None = None
        self._peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX)
        self._host = ""

    async def run(self) -> Tunnel | None:
        """Serve all requests; what a CONNECT asked for and got, whose bytes the client sends next.

        :raise Refused: one is not allowed; it was told so. :raise Closed: either end broke.
        """
        timeout = HEAD_TIMEOUT
        try:
            while True:
                request = await self._next(self._server, self._client, timeout)
                if not isinstance(request, h11.Request):
                    return None
                if request.method == b"CONNECT":
                    return await self._connect(request)
                if not await self._exchange(request):
                    return None
                timeout = BETWEEN
        except h11.RemoteProtocolError as error:
            raise await self._refuse(Refused(f"its HTTP is malformed: {error}", self._host, self._port)) from None
        except Refused as refused:
            raise await self._refuse(refused) from None
        except TimeoutError:
            raise Closed from None
        finally:
            if self._far:
                self._far.close()

    async def _refuse(self, refused: Refused) -> Refused:
        """Tell who asks, if it can still be told."""
        with contextlib.suppress(h11.LocalProtocolError, Closed):
            text = f"hyperd: {refused.host or 'this'} is out of this pod's reach: {refused}\n".encode()
            headers = [("content-type", "text/plain"), ("content-length", str(len(text))), ("connection", "close")]
            head = self._server.send(h11.Response(status_code=403, headers=headers, reason=b"Forbidden"))
            await self._client.write((head or b"") + (self._server.send(h11.Data(data=text)) or b""), HEAD_TIMEOUT)
        return refused

    async def _next(self, connection: h11.Connection, channel: Stream, timeout: float) -> Event:
        """:raise TimeoutError: it is not there, as a whole, within `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await channel.read())
        return event

    async def _connect(self, request: h11.Request) -> Tunnel:
        name, _, number = request.target.decode("latin-1").rpartition(":")
        host = canonical_name(name)
        if self._inside or not host or not re.fullmatch("[1-9][0-9]{0,4}", number):
            raise Refused("its CONNECT names no host that it may have", name[:200])
        port = int(number)
        far = await self._open(host, port)
        try:
            await self._client.write(self._server.send(h11.Response(status_code=200, headers=[])) or b"")
        except BaseException:
            far.close()
            raise
        self._client.unread(self._server.trailing_data[0])
        return Tunnel(host, port, far)

    async def _exchange(self, request: h11.Request) -> bool:
        """A request and its answer; whether another may follow."""
        host, target = destination(request, self._port)
        if self._inside and host != self._inside:
            raise Refused(f"its request is for another host than its TLS, {self._inside}", host, self._port)
        if self._inside and request.method.upper() == b"TRACE":
            raise Refused("TRACE would give the pod what the host gets", host, self._port)
        if self._far is None or host != self._host or self._peer.our_state is not h11.IDLE:
            if self._far:
                self._far.close()
                self._far = None
            self._host = host
            self._far = await self._open(host, self._port)
            self._peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX)
        headers = self._change(list(request.headers))
        begin = h11.Request(method=request.method, target=target, headers=headers)
        await self._far.write(self._peer.send(begin) or b"")
        sending = asyncio.ensure_future(self._send_body(self._far))
        try:
            switched = await answered(self._receive(self._far), sending, self._client)
            if switched:
                await self._switch(self._far)
                return False
            if not sending.done():  # the answer came before the request had ended: neither goes on
                return False
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return self._once_more()

    def _once_more(self) -> bool:
        if self._peer.our_state is h11.DONE and self._peer.their_state is h11.DONE:
            self._peer.start_next_cycle()
        if self._server.our_state is h11.DONE and self._server.their_state is h11.DONE:
            self._server.start_next_cycle()
            return True
        return False

    async def _send_body(self, far: Stream) -> None:
        while True:
            event = await self._next(self._server, self._client, IDLE)
            if isinstance(event, (h11.Data, h11.EndOfMessage)):
                await far.write(self._peer.send(event) or b"")
            if not isinstance(event, h11.Data):
                return

    async def _receive(self, far: Stream) -> bool:
        """The answer; whether both sides speak something else from here on."""
        while True:
            try:
                event = await self._next(self._peer, far, IDLE)
            except h11.RemoteProtocolError as error:
                raise Closed from error
            if isinstance(event, Part):
                await self._client.write(self._server.send(self._answer(event)) or b"")
            if isinstance(event, h11.InformationalResponse) and event.status_code == _SWITCHING:
                return True
            if isinstance(event, h11.EndOfMessage):
                return False
            if not isinstance(event, (h11.InformationalResponse, h11.Response, h11.Data)):
                raise Closed

    def _answer(self, event: Part) -> Part:
        """A part of it, as the pod gets it."""
        if isinstance(event, h11.Data) or (headers := self._back(list(event.headers))) == list(event.headers):
            return event
        if isinstance(event, h11.EndOfMessage):
            return h11.EndOfMessage(headers=headers)
        return type(event)(status_code=event.status_code, headers=headers, reason=event.reason)

    async def _switch(self, far: Stream) -> None:
        """A websocket, say: bytes, to the host that took them."""
        self._client.unread(self._server.trailing_data[0])
        far.unread(self._peer.trailing_data[0])
        await pipe(self._client, far)


def destination(request: h11.Request, port: int) -> tuple[str, bytes]:
    """The canonical name of the host that a request is for, and its target as that host gets it.

    :raise Refused: it names none, or two, or another port than the one that was dialled.
    """
    given = [value for name, value in request.headers if name == b"host"]
    if len(given) != 1:
        raise Refused("its request names no host", port=port)
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        # Who reads the other one takes what is in its body for a request that nobody has looked at.
        raise Refused("its request has two lengths", given[0].decode("latin-1")[:200], port)
    host = _authority(given[0].decode("latin-1"), port)
    target = request.target
    if target.startswith(b"/") or target == b"*":
        return host, target
    try:
        url = urlsplit(target.decode("ascii"))
    except ValueError:
        raise Refused("its request's target is malformed", host, port) from None
    if url.scheme != "http" or _authority(url.netloc, port) != host:
        raise Refused("its request's target is at another host than it names", url.netloc[:200], port)
    query = f"?{url.query}" if url.query else ""
    return host, f"{url.path or '/'}{query}".encode()


def _authority(text: str, port: int) -> str:
    """A host's canonical name, of `HOST[:PORT]`.

    :raise Refused: it is no name, or the port another one.
    """
    name, colon, number = text.partition(":")
    host = canonical_name(name)
    if not host:
        raise Refused("its request names no host", text[:200], port)
    if colon and number != str(port):
        raise Refused("its request names another port than it dialled", text[:200], port)
    return host
