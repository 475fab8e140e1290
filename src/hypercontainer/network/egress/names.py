# SPDX-License-Identifier: Apache-2.0
"""Names for a pod with an egress policy: those of its hosts, and of them IPv4 addresses only.

What a name server elsewhere gets is a name of the policy and nothing that the pod chose besides; so questions carry
nothing out, but below a wildcard, to those who serve that. There are no records (HTTPS, SVCB) that lead to QUIC or an
encrypted ClientHello, and no AAAA, as all IPv6 is dropped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...model.egress import EgressPolicy, canonical_name
from .. import dns

_TTL = 5  # seconds
Addresses = Callable[[str], Awaitable[list[str]]]  # of a name, IPv4; it raises TimeoutError
Refuse = Callable[[str], None]  # a name that the policy does not have


async def answer(question: bytes, policy: EgressPolicy, addresses: Addresses, refuse: Refuse) -> bytes:
    """The reply. :raise ValueError: it is no question."""
    from dnslib import QTYPE, RCODE, RR, A

    asked = dns.parse(question)
    if asked.header.qr or len(asked.questions) != 1:
        raise ValueError("no question")
    name = canonical_name(str(asked.q.qname))
    reply = asked.reply(ra=1, aa=0)
    if not name or not policy.names(name):
        refuse(str(asked.q.qname).rstrip(".")[:253])
        reply.header.rcode = RCODE.NXDOMAIN
    elif asked.q.qtype == QTYPE.A:
        try:
            for address in await addresses(name):
                reply.add_answer(RR(asked.q.qname, QTYPE.A, rdata=A(address), ttl=_TTL))
        except TimeoutError:
            reply.header.rcode = RCODE.SERVFAIL
    return bytes(reply.pack())
