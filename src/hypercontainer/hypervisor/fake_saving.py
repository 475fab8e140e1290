# SPDX-License-Identifier: Apache-2.0
"""The fake driver with snapshots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ..errors import Unavailable
from .driver import Disk, Machine, MachineConfig, Snapshot
from .facets import Instant, facets_of
from .fake import STATE_MAX, TAKES, BareMachine, FakeDriver, FakeHost, FakeMachine


def _restore(machine: BareMachine, state: bytes) -> None:
    """:raise Unavailable: no machine was saved as this."""
    if state not in machine.hardware.host.saved:
        raise Unavailable("the snapshot is of no use")
    machine.hardware.guest.restore(machine.hardware.host.saved[state])


class SavingMachine(FakeMachine):
    """One that can be saved, too."""

    async def begin(self, directory: Path, disks: Sequence[Disk]) -> None:
        assert self.hardware.config.snapshot
        _restore(self, os.pread(self.hardware.config.snapshot.state, STATE_MAX, 0))
        await self.reconfigure(directory, disks, ())

    async def save(self, state: int) -> None:
        await self._order()
        os.pwrite(state, self.put_away(), 0)

    def put_away(self) -> bytes:
        """What a snapshot's state, or a stream, has of it."""
        key = b"snapshot %d" % len(self.hardware.host.saved)
        self.hardware.host.saved[key] = self.hardware.guest.saved()
        return key


class SavingDriver(FakeDriver):
    """One with snapshots."""

    def __init__(self, host: FakeHost, name: str = "fake") -> None:
        super().__init__(host, name, takes=TAKES | {Snapshot})
        self._machine = SavingMachine
        self.facets = facets_of(SavingMachine)

    def _set_up(self, machine: BareMachine) -> None:
        config = machine.hardware.config
        if config.snapshot and not config.early:
            _restore(machine, os.pread(config.snapshot.state, STATE_MAX, 0))

    async def checkpoint(self, machine: Machine, snapshot: Snapshot, instant: Instant) -> Snapshot:
        machine = cast(SavingMachine, machine)
        async with instant.quiet():
            await machine.pause()
            try:
                await machine.save(snapshot.state)
                await instant.at_rest()
            finally:
                await machine.resume()
        return replace(snapshot, live=True)

    async def put_away(self, machine: Machine, stream: int) -> None:
        machine = cast(SavingMachine, machine)
        await machine.pause()
        os.write(stream, machine.put_away())

    async def launch_from(self, config: MachineConfig, stream: int) -> BareMachine:
        machine = await self.launch(config)
        try:
            _restore(machine, os.read(stream, STATE_MAX))
        except BaseException:
            await machine.kill()
            raise
        return machine

    async def fingerprint(self, config: MachineConfig) -> str:
        return f"{self.name} {self.version}, {config.vcpus} processors"


class SeveringMachine(SavingMachine):
    """One whose connections break when it is saved."""

    _broken = False

    def put_away(self) -> bytes:
        self._broken = True
        return super().put_away()

    async def severed(self) -> bool:
        await self._order()
        broken, self._broken = self._broken, False
        return broken


class SeveringDriver(SavingDriver):
    """One with such machines."""

    machine = SeveringMachine

    def __init__(self, host: FakeHost, name: str = "fake") -> None:
        super().__init__(host, name)
        self._machine = SeveringMachine
        self.facets = facets_of(SeveringMachine)
