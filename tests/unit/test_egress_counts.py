# SPDX-License-Identifier: Apache-2.0
"""What pods with an egress policy have reached and tried, as it is counted."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hypercontainer.network import nftables
from hypercontainer.network.egress import messages
from hypercontainer.network.egress.counts import Counts
from hypercontainer.network.egress.dropped import Drop, Dropped, counts, kinds
from hypercontainer.network.egress.injection import Injection
from hypercontainer.network.egress.messages import Job
from hypercontainer.network.egress.worker import Worker

COUNTED = """table inet hyper {
    set refusing {
        type ipv4_addr
        timeout 10m
        elements = { 10.0.0.1 counter packets 18 bytes 519 expires 9m59s972ms, 10.0.0.2 counter packets 1 bytes 29 }
    }
}"""
KINDS = """table inet hyper {
    set refused {
        elements = { 10.0.0.1 . 1.2.3.4 . icmp . 0 counter packets 1 bytes 28 expires 9s976ms,
                 10.0.0.1 . 1.2.3.4 . 99 . 0 counter packets 2 bytes 28 expires 9s976ms,
                 10.0.0.1 . 1.2.3.4 . ipv6-icmp . 0 counter packets 3 bytes 28 expires 9s976ms,
                 10.0.0.2 . 5.6.7.8 . udp . 53 counter packets 4 bytes 29 expires 9s976ms }
    }
}"""
UDP = Drop("10.0.0.2", "5.6.7.8", "udp", 53)


def test_what_nft_lists() -> None:
    assert counts(COUNTED) == {"10.0.0.1": 18, "10.0.0.2": 1}
    assert list(kinds(KINDS).values()) == [1, 2, 3, 4]
    assert [(drop.protocol, drop.port) for drop in kinds(KINDS)] == [
        ("icmp", 0), ("99", 0), ("ipv6-icmp", 0), ("udp", 53)
    ]  # fmt: skip
    assert kinds(KINDS)[UDP] == 4
    assert counts("table inet hyper {\n\tset refusing {\n\t}\n}") == kinds("") == {}


def test_only_what_is_further_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the tables were made anew, with which counting begins at nothing."""
    packets: list[tuple[str, int]] = []
    told: list[Drop] = []
    answers = ["", ""]

    async def apply(text: str) -> str:
        return answers[text.endswith("refused")]

    async def read(counted: str, listed: str) -> tuple[list[tuple[str, int]], list[Drop]]:
        answers[:] = counted, listed
        packets.clear()
        told.clear()
        await watch.read()
        return list(packets), list(told)

    monkeypatch.setattr(nftables, "apply", apply)
    watch = Dropped(lambda source, number: packets.append((source, number)), told.append)
    first, kinds_ = asyncio.run(read(COUNTED, KINDS))
    assert (dict(first), len(kinds_)) == ({"10.0.0.1": 18, "10.0.0.2": 1}, 4)
    again = asyncio.run(read(COUNTED.replace("packets 18", "packets 20"), KINDS.replace("packets 4 ", "packets 5 ")))
    assert (dict(again[0]), again[1]) == ({"10.0.0.1": 2}, [UDP])
    assert asyncio.run(read(COUNTED.replace("packets 18", "packets 3"), "")) == ([("10.0.0.1", 3)], [])


def test_a_proxy_says_what_it_likes() -> None:
    found = Counts()
    found.moved(-5, 7)
    found.moved(1 << 99, 1)
    assert (found.stats().rx_bytes, found.stats().tx_bytes) == (1 << 53, 8)


def test_bytes_of_a_connection_are_told_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[messages.Message | None]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one, other = socket.socketpair()
        with ours, theirs, one:
            worker = Worker(theirs, Injection(Job(0)))
            one.sendall(b"SSH-2.0-x")
            await worker._serve(1, 443, other.detach())
            return [messages.receive(ours)[0] for _ in range(3)]

    refused, moved, done = asyncio.run(run())
    assert refused and refused.why == "it is neither TLS nor HTTP"
    assert moved and (moved.kind, moved.received, moved.sent) == ("moved", 0, 9)
    assert done and done.kind == "done"
