# SPDX-License-Identifier: Apache-2.0
"""Who takes rules away, by what the kernel tells of nftables."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest

from hypercontainer.network.rule_watch import INET, RuleWatch

NEW_TABLE, GONE_TABLE, NEW_RULE, GONE_RULE = 0, 2, 6, 8
OURS = "hyper"


def told(verb: int, table: str = OURS, family: int = INET) -> bytes:
    """A message of netlink's."""
    name = table.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), 1) + name + bytes(-len(name) % 4)
    return struct.pack("=IHHII", 20 + len(attribute), 10 << 8 | verb, 0, 0, 0) + bytes([family, 0, 0, 0]) + attribute


class Watched:
    """Rules, and the kernel that tells of them."""

    def __init__(self) -> None:
        self.watch = RuleWatch({(INET, OURS)}, self._put_back)
        self.kernel, heard = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        heard.setblocking(False)
        self.watch._socket = heard
        self.times = 0

    async def _put_back(self) -> None:
        self.times += 1
        with self.watch.changing():
            self.kernel.send(told(GONE_TABLE) + told(NEW_TABLE) + told(NEW_RULE))

    async def over(self) -> int:
        """How often they were put back, when nothing of that is to be done any more."""
        self.watch._hear()
        for _ in range(10):
            await asyncio.sleep(0)
        return self.times


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.kernel.close()
    if made.watch._socket:
        made.watch._socket.close()


async def test_what_its_owner_changes_is_nobody_elses(watched: Watched) -> None:
    with watched.watch.changing():
        watched.kernel.send(told(GONE_TABLE) + told(NEW_TABLE))
        watched.kernel.send(told(GONE_RULE))
    with watched.watch.changing(keeps=False):
        watched.kernel.send(told(GONE_RULE) + told(GONE_TABLE))
    watched.kernel.send(told(GONE_TABLE, "other") + told(GONE_TABLE, family=2) + told(NEW_RULE))
    assert await watched.over() == 0
    watched.kernel.send(told(GONE_RULE))
    assert await watched.over() == 1
    await watched.watch.close()


async def test_a_table_that_others_remove_while_its_owner_changes_it(watched: Watched) -> None:
    """What the owner was told to be done is not there."""
    with watched.watch.changing():
        watched.kernel.send(told(GONE_TABLE) + told(NEW_TABLE))
        watched.kernel.send(told(GONE_RULE) + told(GONE_TABLE))
    assert await watched.over() == 1
    await watched.watch.close()
