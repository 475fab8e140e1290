# SPDX-License-Identifier: Apache-2.0
"""Machines that are to go on from what was saved: launched when that is there, or while it is being saved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import HyperError
from ...hypervisor.driver import Disk, Driver, Machine, Snapshot
from ...model.layout import MachineLayout
from ...model.status import Pod
from ...network.idle import IdleNic
from ...sys import tasks
from ...sys.trees import remove_tree
from ..allotments import Allotment

log = logging.getLogger(__name__)


@dataclass
class Launched:
    """Not yet a pod's; whoever has it ends it, or makes it one's."""

    machine: Machine
    directory: Path
    allotment: Allotment
    nics: list[IdleNic]

    async def end(self) -> None:
        """Nothing of it is left. Idempotent."""
        try:
            await self.machine.kill()
        finally:
            for nic in self.nics:
                nic.close()
            remove_tree(self.directory)
            self.allotment.give_back()


# For a pod that runs: its disks by what the guest finds them by, and empty files for its memory and its state.
LaunchEarly = Callable[[Pod, Driver, MachineLayout, Mapping[str, Disk], Snapshot], Coroutine[Any, Any, Launched | None]]


class Launching:
    """A machine that is being launched while something else is done."""

    def __init__(self, work: Coroutine[Any, Any, Launched | None] | None) -> None:
        self._task = asyncio.create_task(work) if work else None

    async def result(self) -> Launched | None:
        """None where that failed: the machine can be launched later."""
        if self._task is None:
            return None
        await asyncio.wait([self._task])
        try:
            return self._task.result()
        except HyperError as error:
            log.warning("a machine could not be launched early: %s", error)
            return None

    async def end(self) -> None:
        """Nothing of it is left."""
        if self._task is None:
            return
        await tasks.end([self._task])
        if not self._task.cancelled() and not self._task.exception() and (launched := self._task.result()):
            await launched.end()
