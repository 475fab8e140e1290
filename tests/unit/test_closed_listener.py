# SPDX-License-Identifier: Apache-2.0
"""What becomes of a listener whose socket somebody has closed."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hypercontainer.serving.listener import Listener, ListenLimits


@pytest.mark.timeout(20)
async def test_it_ends_and_holds_up_nobody() -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = Listener(sock, asyncio.Protocol, ListenLimits(16, 4))
    listener.start()
    sock.close()
    await asyncio.sleep(0)  # its first look
    await asyncio.sleep(0)
    assert listener._task is not None and listener._task.done()
    await listener.close()
