# SPDX-License-Identifier: Apache-2.0
"""Addresses of names, from this host's name servers, by questions of our own: nothing of what a pod sent is in them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

from ...sys import tasks
from .. import dns

_TIMEOUT = 3.0  # seconds for a server
_KEPT = 4096  # answers
_TTL_MIN, _TTL_MAX = 5, 60  # seconds that an answer is kept
_LARGE = 4096  # bytes of an answer
_KINDS = {4: "A", 6: "AAAA"}


class Resolver:
    """With a small memory, so that a pod's question and the connection that follows it are one question of ours."""

    def __init__(self, servers: Callable[[], list[str]] = dns.host_servers) -> None:
        self._servers = servers
        self._known: OrderedDict[tuple[str, int], tuple[float, list[str]]] = OrderedDict()

    async def addresses(self, name: str, version: int) -> list[str]:
        """Of that version of IP, none where there is none; the name is canonical.

        :raise TimeoutError: no server answers.
        """
        now = asyncio.get_running_loop().time()
        until, found = self._known.get((name, version), (0.0, []))
        if now < until:
            return found
        ttl, found = await self._ask(name, version)
        self._known[name, version] = now + min(max(ttl, _TTL_MIN), _TTL_MAX), found
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found

    async def _ask(self, name: str, version: int) -> tuple[int, list[str]]:
        for server in self._servers():
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                return await _answer(server, name, version)
        raise TimeoutError


async def _answer(server: str, name: str, version: int) -> tuple[int, list[str]]:
    """As `_read`; one that was cut short before the first address is asked for as a larger one."""
    question = _question(name, version, 0)
    answer = await tasks.within(dns.ask(server, question), _TIMEOUT)
    found = _read(answer, question)
    if not found[1] and dns.parse(answer).header.tc:
        question = _question(name, version, _LARGE)
        found = _read(await tasks.within(dns.ask(server, question), _TIMEOUT), question)
    return found


def _question(name: str, version: int, size: int) -> bytes:
    """Of its own number; with a size, of that many bytes at most, not 512 (RFC 6891)."""
    from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord

    header = DNSHeader(id=secrets.randbits(16), rd=1)
    asked = DNSQuestion(name, getattr(QTYPE, _KINDS[version]))
    return bytes(DNSRecord(header, q=asked, ar=[EDNS0(udp_len=size)] if size else []).pack())


def _read(answer: bytes, question: bytes) -> tuple[int, list[str]]:
    """How long it holds, in seconds, and the addresses. :raise ValueError: it is no answer to that."""
    from dnslib import RCODE

    asked, told = dns.parse(question), dns.parse(answer)
    if not told.header.qr or len(told.questions) != 1 or told.q != asked.q:
        raise ValueError("an answer to another question")
    if told.header.rcode not in (RCODE.NOERROR, RCODE.NXDOMAIN):
        raise ValueError("the server has failed")
    found = [(rr.ttl, str(ip_address(str(rr.rdata)))) for rr in told.rr if rr.rtype == asked.q.qtype]
    return min((ttl for ttl, _ in found), default=_TTL_MIN), [address for _, address in found]
