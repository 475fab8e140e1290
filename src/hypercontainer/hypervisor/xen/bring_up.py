# SPDX-License-Identifier: Apache-2.0
"""A domain that was made and stands still, until its guest has called: whoever made it, xl or libvirt."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from ...errors import Unavailable
from ...sys import deadlines, tasks
from ..driver import MachineConfig, TapNetwork
from . import tools, vifs
from .document import CONSOLE

_CALL = 1  # bytes of the guest's call (hyperstart/src/port.c)


class Domain(Protocol):
    """What is asked of one."""

    def connect(self) -> socket.socket: ...

    async def listen(self, domid: int) -> None:
        """Keep what its kernel writes, for `last_words`."""

    async def wait(self) -> None: ...

    def last_words(self) -> str: ...


async def bring_up(
    machine: Domain, domid: int, config: MachineConfig, resume: Callable[[], Awaitable[object]], timeout: float
) -> None:
    """Give it its network interfaces, let it go on by `resume`, and return when its guest has called.

    :raise Unavailable: it does not come up within `timeout` seconds; with its last words.
    """
    await machine.listen(domid)
    await vifs.take_over(domid, dict(enumerate(n for n in config.networks if isinstance(n, TapNetwork))))
    # QEMU drops what is more while its reader is slow; the agent's protocol has limits of its own.
    await tools.write({f"{console(domid)}/limit": 0})
    with machine.connect() as call:
        await resume()
        await _called(machine, call, timeout)


def console(domid: int) -> str:
    """The agent's, in xenstore."""
    return f"/local/domain/{domid}/device/console/{CONSOLE}"


async def _called(machine: Domain, call: socket.socket, timeout: float) -> None:
    calling = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(call, _CALL))
    ending = asyncio.ensure_future(machine.wait())
    try:
        await asyncio.wait({calling, ending}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if calling.done() and not calling.exception() and calling.result():
            return
        if calling.done() or ending.done():  # its QEMU goes a moment before the domain
            with contextlib.suppress(TimeoutError):
                await tasks.within(machine.wait(), deadlines.DEATH)
            raise Unavailable(f"the virtual machine ended at once: {machine.last_words() or 'it said nothing'}")
        said = machine.last_words() or "it said nothing"
        raise Unavailable(f"the guest did not come up within {timeout:g} s: {said}")
    finally:
        await tasks.end([calling, ending])
