# SPDX-License-Identifier: Apache-2.0
"""What a container, and a pod, has in memory besides its record."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..guest.process import GuestProcessHandle
from .runtime import Runtime
from .streams import Hub

LOST_EXIT_CODE = 255  # of a container whose VM died under it


class Life:
    """A container's output, its lock, its VM while it runs, and what others wait for."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.lock = asyncio.Lock()
        self.runtime: Runtime | None = None
        self.stopped = asyncio.Event()  # not running; its exit code is in the record
        self.stopped.set()
        self.removed = asyncio.Event()
        self.starting: asyncio.Task[Any] | None = None  # until it runs, or its start has failed
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


@dataclass
class Run:
    """The present run of a container."""

    runtime: Runtime
    handle: GuestProcessHandle
    began: float
    delay: float = 0.0  # before the next one, in seconds


@dataclass
class Following:
    """What a container's task knows when it ends, however it does."""

    run: Run
    state: dict[str, Any] = field(default_factory=lambda: lost("its end is not known"))


def lost(message: str) -> dict[str, Any]:
    return {"exit_code": LOST_EXIT_CODE, "oom_killed": False, "error": message}
