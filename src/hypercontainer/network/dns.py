# SPDX-License-Identifier: Apache-2.0
"""Names of pods for pods: a small name server on each network's gateway (RFC 1035).

It answers for the pods of the network that asks, in turn where a name has
several addresses, and hands everything else to the host's own servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..sys import tasks

if TYPE_CHECKING:
    from dnslib import DNSRecord

log = logging.getLogger(__name__)
Lookup = Callable[
    [str, str], list[str]
]  # a name without its last dot, who asks -> addresses; [] for a name that is not here
Restricted = Callable[[bytes], Awaitable[bytes]]  # a question -> the answer; it raises ValueError where it is none
Reverse = Callable[[str], str]  # an address -> name, "" for one that is nobody's
_TTL = 5  # seconds
_TIMEOUT = 3.0  # seconds for a server of the host
_PENDING_MAX = 200  # questions of one network that may wait for the host's servers
_PENDING_OF_ONE = 50  # of one address
_UDP_MAX = 4096
_STREAM_TIMEOUT = 5.0  # seconds from a connection to its end
_STREAMS_MAX, _STREAMS_OF_ONE = 128, 8  # connections of a network, and of one address


def host_servers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The name servers that this host asks (resolv.conf(5))."""
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").splitlines()
        return [line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1]
    return []


@contextlib.contextmanager
def _dns() -> Iterator[None]:
    """:raise ValueError: what is read is no message of DNS, or what it asks for cannot be written again."""
    from dnslib import DNSError
    from dnslib.bimap import BimapError
    from dnslib.buffer import BufferError as CutShort
    from dnslib.label import DNSLabelError

    try:
        yield
    except (DNSError, DNSLabelError, BimapError, CutShort, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def parse(message: bytes) -> DNSRecord:
    """:raise ValueError: when it is no message of DNS."""
    from dnslib import DNSRecord

    with _dns():
        return DNSRecord.parse(message)


class NameServer:
    """Serves one network."""

    def __init__(
        self, lookup: Lookup, reverse: Reverse, *, forward: bool, servers: Callable[[], list[str]] = host_servers,
        restricted: Callable[[str], Restricted | None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`restricted` answers all that a client asks of whom it gives something."""
        self._lookup = lookup
        self._reverse = reverse
        self._forward = forward
        self._servers = servers
        self._restricted = restricted
        self._turn = 0
        self._pending: dict[asyncio.Task[None], str] = {}  # with who asks
        self._streams: dict[asyncio.StreamWriter, str] = {}  # the oldest first
        self._closing: list[Callable[[], None]] = []

    async def open(self, addresses: list[str]) -> None:
        """Listen on port 53 of each, UDP and TCP; one that fails in the midst is to be closed."""
        loop = asyncio.get_running_loop()
        for address in addresses:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, 53))
            self._closing.append(transport.close)
            server = await asyncio.start_server(self._stream, address, 53, limit=1 << 17, start_serving=False)
            self._closing.append(server.close)
            await server.start_serving()

    def close(self) -> None:
        for close in self._closing:
            close()
        for task in self._pending:
            task.cancel()
        for writer in self._streams:
            writer.transport.abort()

    def answer(self, question: bytes, client: str = "") -> bytes | None:
        """The answer, where we have it; None when another server must be asked.

        :raise ValueError: when it is no question.
        """
        with _dns():
            return self._answer(parse(question), client)

    def _answer(self, asked: DNSRecord, client: str) -> bytes | None:
        from dnslib import QTYPE, RCODE

        if asked.header.qr or len(asked.questions) != 1:
            raise ValueError("no question")
        name, kind = str(asked.q.qname).rstrip(".").lower(), QTYPE.get(asked.q.qtype)
        reply: DNSRecord = asked.reply(ra=1, aa=1)
        if kind == "PTR" and name.endswith((".in-addr.arpa", ".ip6.arpa")):
            found = self._reverse(_address_of(name))
            if found:
                _add(reply, asked, "PTR", found)
                return bytes(reply.pack())
            return None
        addresses = self._lookup(name, client)
        if addresses:
            self._turn += 1
            wanted = [a for a in addresses if kind in (("AAAA" if ":" in a else "A"), "ANY")]
            at = self._turn % len(wanted) if wanted else 0
            for address in wanted[at:] + wanted[:at]:
                _add(reply, asked, "AAAA" if ":" in address else "A", address)
            return bytes(reply.pack())
        if "." in name and self._forward:
            return None
        reply.header.rcode = RCODE.NXDOMAIN
        return bytes(reply.pack())

    async def resolve(self, question: bytes, client: str = "") -> bytes | None:
        """Ours, or the host's servers' answer; SERVFAIL when there is none."""
        try:
            if restricted := self._restricted(client):
                with _dns():
                    return await restricted(question)
            own = self.answer(question, client)
        except ValueError:
            return None
        if own is not None:
            return own
        for server in self._servers() if self._forward else []:
            with contextlib.suppress(OSError, TimeoutError):
                return await tasks.within(ask(server, question), _TIMEOUT)
        return question[:2] + struct.pack(">H", 0x8182) + question[4:6] + bytes(6) + question[12:]

    def datagram(self, question: bytes, client: str, reply: Callable[[bytes], None]) -> None:
        """A question by UDP; `reply` is called with the answer, when it is known. One too many is dropped."""
        asking = list(self._pending.values())
        if len(asking) >= _PENDING_MAX or asking.count(client) >= _PENDING_OF_ONE:
            return  # it will ask again

        async def run() -> None:
            if answer := await self.resolve(question, client):
                reply(answer)

        task = asyncio.get_running_loop().create_task(run())
        self._pending[task] = client
        task.add_done_callback(self._pending.pop)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question. Of too many connections the oldest goes, so that who holds them keeps nobody out."""
        client = str((writer.get_extra_info("peername") or ("",))[0])
        mine = [w for w, who in self._streams.items() if who == client]
        if len(mine) >= _STREAMS_OF_ONE or len(self._streams) >= _STREAMS_MAX:
            oldest = mine[0] if len(mine) >= _STREAMS_OF_ONE else next(iter(self._streams))
            del self._streams[oldest]
            oldest.transport.abort()
        self._streams[writer] = client
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(_STREAM_TIMEOUT):
                    size = struct.unpack(">H", await reader.readexactly(2))[0]
                    if answer := await self.resolve(await reader.readexactly(size), client):
                        writer.write(struct.pack(">H", len(answer)) + answer)
                        await writer.drain()
            writer.close()
        finally:
            self._streams.pop(writer, None)
            asyncio.get_running_loop().call_later(_STREAM_TIMEOUT, writer.transport.abort)  # its answer is not read


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        transport = self._transport
        if len(data) <= _UDP_MAX:
            self._server.datagram(data, addr[0], lambda answer: transport.sendto(answer, addr))


def _add(reply: DNSRecord, asked: DNSRecord, kind: str, value: str) -> None:
    from dnslib import AAAA, PTR, QTYPE, RR, A

    data = {"A": A, "AAAA": AAAA, "PTR": PTR}[kind](value)
    reply.add_answer(RR(asked.q.qname, getattr(QTYPE, kind), rdata=data, ttl=_TTL))


def _address_of(name: str) -> str:
    """`4.3.2.1.in-addr.arpa` as 1.2.3.4; "" when it is malformed."""
    parts = name.split(".")
    with contextlib.suppress(ValueError):
        if name.endswith(".in-addr.arpa"):
            return str(ip_address(".".join(reversed(parts[:4]))))
        nibbles = "".join(reversed(parts[:32]))
        return str(ip_address(":".join(nibbles[i : i + 4] for i in range(0, 32, 4))))
    return ""


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, got: asyncio.Future[bytes]) -> None:
        self._got = got

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self._got.done():
            self._got.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._got.done():
            self._got.set_exception(exc)


async def ask(server: str, question: bytes) -> bytes:
    """What it answers. :raise OSError: it cannot be asked, or answers something else."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answer(got), remote_addr=(server, 53))
    try:
        transport.sendto(question)
        answer = await got
        if answer[:2] != question[:2]:
            raise OSError("an answer to another question")
        return answer
    finally:
        transport.close()
