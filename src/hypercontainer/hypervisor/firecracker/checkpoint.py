# SPDX-License-Identifier: Apache-2.0
"""A machine that runs is saved, and goes on or is put away.

https://github.com/firecracker-microvm/firecracker/blob/main/docs/snapshotting/snapshot-support.md
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial

from ...sys import tasks
from ..driver import Snapshot
from ..facets import Instant
from . import stream
from .holes import runs
from .machine import FirecrackerMachine


async def checkpoint(machine: FirecrackerMachine, snapshot: Snapshot, instant: Instant) -> Snapshot:
    """What `facets.Checkpoints` says: its memory is fetched when it runs again."""
    try:
        async with instant.quiet():
            try:
                await machine.write_down(snapshot.state)
                await instant.at_rest()
            finally:
                await tasks.to_the_end(machine.resume())
        await tasks.in_thread(partial(_fetch, machine, snapshot.memory))
    finally:
        machine.drop_memory()
    return replace(snapshot, live=True)


def _fetch(machine: FirecrackerMachine, target: int) -> None:
    memory = machine.open_memory()
    try:
        for at, data in runs(memory, machine.memory_size):
            os.pwrite(target, data, at)
    finally:
        os.close(memory)


async def put_away(machine: FirecrackerMachine, target: int) -> None:
    """What `facets.Suspends` says."""
    given_up = threading.Event()
    state = os.memfd_create("hyper-state", os.MFD_CLOEXEC)
    try:
        await machine.write_down(state)
        await tasks.in_thread(partial(_send, machine, target, state, given_up), given_up.set)
    except BaseException:
        await tasks.to_the_end(machine.resume())
        raise
    finally:
        os.close(state)
        machine.drop_memory()


def _send(machine: FirecrackerMachine, target: int, state: int, given_up: threading.Event) -> None:
    memory = machine.open_memory()
    try:
        stream.write(target, memory, machine.memory_size, state, given_up)
    finally:
        os.close(memory)
