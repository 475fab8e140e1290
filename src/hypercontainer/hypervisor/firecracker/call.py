# SPDX-License-Identifier: Apache-2.0
"""The guest's call: it says that its agent listens (hyperstart/src/port.c), once it is up.

A machine that will be saved keeps its call open. All connections of a clone are broken from its first instant on
(docs/vsock.md of Firecracker's source), so that its guest sees this one break, and calls again.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from ...errors import Unavailable
from ...sys import tasks
from ..driver import Machine


def listening(path: Path) -> socket.socket:
    """Where Firecracker brings the call; it is the caller's to close."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.bind(str(path))
    sock.listen(1)
    return sock


async def heard(machine: Machine, at: socket.socket, timeout: float) -> socket.socket:
    """The call, when it comes within `timeout` seconds; it is the caller's to close.

    :raise Unavailable: with the machine's last words, when it does not.
    """
    calling = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(at))
    ending = asyncio.ensure_future(machine.wait())
    try:
        await asyncio.wait({calling, ending}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if calling.done() and not ending.done():
            return calling.result()[0]
        said = machine.last_words() or "it said nothing"
        if ending.done():
            raise Unavailable(f"the virtual machine ended at once: {said}")
        raise Unavailable(f"the guest did not come up within {timeout:g} s: {said}")
    except BaseException:
        if calling.done() and not calling.cancelled() and not calling.exception():
            calling.result()[0].close()
        raise
    finally:
        await tasks.end([calling, ending])
