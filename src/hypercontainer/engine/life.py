# SPDX-License-Identifier: Apache-2.0
"""What a container, and a pod, has in memory besides its record."""

from __future__ import annotations

import asyncio

from .runtime import Runtime
from .streams import Hub


class Life:
    """A container's output, its lock, its VM while it runs, and what others wait for."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.lock = asyncio.Lock()
        self.runtime: Runtime | None = None
        self.stopped = asyncio.Event()  # not running; its exit code is in the record
        self.stopped.set()
        self.removed = asyncio.Event()
        self.watch: asyncio.Task[None] | None = None
        self.checks: list[asyncio.Task[None]] = []  # of its health
        self.error = ""  # why it ended, when that was not the program
        self.exit_code = 0  # kept here too: with auto_remove the record goes first
        self.stop_requested = asyncio.Event()  # no restart, whatever the policy
        self.restart_requested = False  # a restart, whatever the policy


class PodLife:
    """A pod's lock, which orders what changes its VM, and the VM."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.runtime: Runtime | None = None
        self.watch: asyncio.Task[None] | None = None
        self.starting: asyncio.Task[None] | None = None
