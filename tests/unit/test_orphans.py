# SPDX-License-Identifier: Apache-2.0
"""Processes of an earlier connection: what a guest says of them harms no other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from hypercontainer.engine.streams import FanOut
from hypercontainer.errors import Unavailable
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.guest.process import Nothing
from hypercontainer.guest.session import GuestSession, State
from hypercontainer.protocol.constants import FIRST_TOKEN
from hypercontainer.protocol.messages import GuestContainer, GuestProcess


class Wire:
    """A guest, and sessions with it one after the other."""

    def __init__(self) -> None:
        self.guest = FakeGuest()

    async def session(self, token: bytes = FIRST_TOKEN) -> GuestSession:
        ours, theirs = socket.socketpair()
        self.guest.connect(theirs, self.guest.disconnect)
        return await GuestSession.open(ours, token, timeout=10)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    yield made
    made.guest.power_off()


async def begin(wire: Wire) -> tuple[GuestSession, int, int]:
    """A session with a main process, and an exec that has read some of its input."""
    session = await wire.session()
    await session.create_container(GuestContainer("c", "image", "squashfs"))
    main = await session.start(GuestProcess(("sleep", "1000"), container="c", main=True), Nothing())
    exec_ = await session.start(GuestProcess(("drain",), container="c", stdin=True), Nothing())
    await exec_.write_stdin(b"x" * 5000)
    await session.stats()  # requests are taken in their order: by now it has come
    return session, main.id, exec_.id


async def test_an_orphan_with_input_breaks_no_connection(wire: Wire) -> None:
    first, main, exec_ = await begin(wire)
    first.close()
    second = await wire.session(first.next_token)
    second.kill_orphans(keep={main})
    handle = second.reattach(main, Nothing(), (0, 0))
    await second.stats()
    await second.stats()
    assert handle and second.state is State.RUNNING
    assert exec_ not in wire.guest.processes and main in wire.guest.processes
    second.close()


async def test_who_reattaches_to_what_broke_meanwhile_hears_of_it(wire: Wire) -> None:
    first, main, _ = await begin(wire)
    first.close()
    second = await wire.session(first.next_token)
    second.close()
    handle = second.reattach(main, FanOut(), (0, 0))
    assert handle
    with pytest.raises(Unavailable):
        await asyncio.wait_for(handle.exited, 10)
