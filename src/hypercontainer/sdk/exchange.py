# SPDX-License-Identifier: Apache-2.0
"""One request of the REST API on a connection of its own: HTTP/1.1 over asyncio's streams.

As `client.transport`, for programs with an event loop. A connection serves one request, so that nothing is left to
close when a program forgets a sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from ..client import tls
from ..errors import PermissionDenied, Unauthorized, Unavailable

HEAD_MAX = 64 << 10  # bytes of an answer's head
_PIECE = 256 << 10
SWITCHING = 101
Body = bytes | AsyncIterator[bytes]


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To hyperd's socket, or to tcp://ADDRESS:PORT by TLS 1.3.

    :raise Unavailable: nobody listens. :raise PermissionDenied: the socket is not ours to use.
    :raise Unauthorized: it is not who it should be. :raise InvalidArgument: no such address.
    """
    if path.startswith("tcp://"):
        return await _connect_tls(path)
    try:
        return await asyncio.open_unix_connection(path, limit=_PIECE)
    except PermissionError:
        raise PermissionDenied(f"{path} may not be opened", hint="run as root, or join the group hyper") from None
    except OSError as error:
        raise Unavailable(f"cannot connect to hyperd at {path}: {error.strerror}",
                          hint="start it with `hyperd`, or name its socket by HYPER_HOST") from None  # fmt: skip


async def _connect_tls(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = tls.address(url)
    trusted = tls.context()
    try:
        return await asyncio.open_connection(host, port, ssl=trusted, limit=_PIECE)
    except ssl.SSLCertVerificationError as error:
        raise Unauthorized(f"{url} is not trusted: {error.verify_message}",
                           hint="name its CA by HYPER_TLSCACERT") from None  # fmt: skip
    except OSError as error:
        raise Unavailable(f"cannot connect to hyperd at {url}: {error.strerror or error}",
                          hint="check the address, and that hyperd has it among `listen`") from None  # fmt: skip


class Exchange:
    """The request, its answer, and the connection; leaving it closes that."""

    status: int
    headers: dict[str, str]

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._process = os.getpid()
        self._token = tls.token()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """At once; what is on its way is lost. In a forked process it is nothing: the connection is its parent's."""
        if self._process != os.getpid():
            return
        if (sock := self.writer.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # a forked process may hold it open
        self.writer.transport.abort()

    async def request(self, method: str, target: str, headers: dict[str, str], body: Body = b"") -> None:
        """Send it, and read the answer's head. A body of several pieces goes chunked.

        :raise Unavailable: when there is none.
        """
        fields = {"Host": "hyperd", **headers}
        if self._token:
            fields["Authorization"] = f"Bearer {self._token}"
        if project := os.environ.get("HYPER_PROJECT"):
            fields["Hyper-Project"] = project
        fields |= {"Content-Length": str(len(body))} if isinstance(body, bytes) else {"Transfer-Encoding": "chunked"}
        head = "".join([f"{method} {target} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in fields.items()), "\r\n"])
        try:
            self.writer.write(head.encode("ascii") + (body if isinstance(body, bytes) else b""))
            await self.writer.drain()
            if not isinstance(body, bytes):
                await self._send_pieces(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer may have come before the body was through
        await self._read_head()
        while 100 <= self.status < 200 and self.status != SWITCHING:
            await self._read_head()

    async def _send_pieces(self, body: AsyncIterator[bytes]) -> None:
        async for piece in body:
            if piece:
                self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self.writer.drain()
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def _read_head(self) -> None:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise Unavailable("hyperd closed the connection without an answer", hint="see its log") from None
        except asyncio.LimitOverrunError:
            head = b""
        except OSError as error:
            raise Unavailable(f"the connection to hyperd broke: {error}", hint="see its log") from None
        first, *rest = head[:-4].decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if len(head) > HEAD_MAX or not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise Unavailable("hyperd's answer is not understood", hint="is it hyperd that listens there?")
        pairs = (line.partition(":") for line in rest)
        self.status = int(status[:3])
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answer's body, as it arrives.

        :raise Unavailable: when the daemon goes away.
        """
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                    async for piece in self._exactly(size):
                        yield piece
                    await self.reader.readexactly(2)
            elif self.status != 204:
                async for piece in self._exactly(int(self.headers.get("content-length", "0"))):
                    yield piece
        except (asyncio.IncompleteReadError, OSError):
            raise Unavailable("hyperd went away before it had answered", hint="see its log, and try again") from None
        except (ValueError, asyncio.LimitOverrunError):
            raise Unavailable("hyperd's answer is not understood", hint="is it hyperd that listens there?") from None

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self.reader.read(min(size, _PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(piece)
            yield piece

    async def read(self) -> bytes:
        """All of the body."""
        return b"".join([piece async for piece in self.chunks()])

    async def lines(self) -> AsyncIterator[bytes]:
        """Lines of the body, as they arrive."""
        rest = b""
        async for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
        if rest:
            yield rest
