# SPDX-License-Identifier: Apache-2.0
"""Machines that go on from a template."""

from __future__ import annotations

import contextlib
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import GuestError, StartFailed, Unavailable
from ...guest.agent import Agent
from ...hypervisor.driver import AnyNetwork, Disk, Driver, MachineConfig, SpareNetwork
from ...model.pods import SHM_DEFAULT
from ...model.signals import capability_mask
from ...network import usermode
from ...network.backend import Nic, NicKind
from ...network.idle import IdleNic
from ...protocol.constants import Seccomp
from ...protocol.messages import GuestContainer, GuestFile, GuestProcess, Interface
from .. import resolve
from ..allotments import Allotment
from ..booted import BootedMachine, start
from ..builtins import run_process
from ..pod_network import for_machine
from .parts import PROGRAM
from .shapes import IMAGE, SCRATCH, Shape

CLONE_TIMEOUT = 10.0  # seconds until a clone must answer
NIC_MAC = "52:54:00:00:00:01"  # of a template's NIC; a clone's is set in the guest
_SPARE_MAC = "52:54:00:00:00:02"
# Not a pod's own: a guest that has just been loaded announces its addresses, and
# QEMU's network would believe that this NIC has them.
_ADDRESS = "10.0.2.250/24"
_EXERCISE = "exercise"
_REHEARSAL = 1.0  # seconds
PREPARED = "prepared"  # the container that waits in a machine
_LOOPBACK = Interface("lo", ("127.0.0.1/8", "::1/128"))


def networks_like(kind: str, takes: Container[type], fd: int = 0, tap: str = "") -> tuple[AnyNetwork, ...]:
    """What a machine with a NIC of this kind has; with nothing opened for it, it is for its command line only.

    `takes` is the driver's.
    """
    if kind == "none":
        return ()
    spare = kind == NicKind.TAP and SpareNetwork in takes  # as `Shared.spares` gives one
    return (for_machine(Nic(NicKind(kind), NIC_MAC, fd, tap)), *((SpareNetwork(_SPARE_MAC),) if spare else ()))


@dataclass
class Clone(BootedMachine):
    """A warm machine without a container."""

    shape: Shape = field(kw_only=True)
    nic: IdleNic = field(kw_only=True)
    scratch: Path | None = None  # the disk of the container that it has ready, which goes with it

    def release(self) -> None:
        """It is a pod's from now on; what is left of its waiting goes."""
        self.nic.close()
        if self.scratch:
            self.scratch.unlink(missing_ok=True)

    async def end(self) -> None:
        await super().end()
        self.release()


def bare(id_: str, clone: Clone) -> GuestContainer:
    """A container that asks for nothing."""
    files = tuple(GuestFile(path, b"\n") for path in resolve.OWN_FILES)
    image, scratch = (clone.names.get(slot, slot) for slot in (IMAGE, SCRATCH))
    return resolve.bare_container(id_, clone.shape.memory, image, scratch, files)


async def launch(
    driver: Driver, shape: Shape, config: MachineConfig, nic: IdleNic, allotment: Allotment, token: bytes,
    timeout: float,
) -> Clone:  # fmt: skip
    """Start a machine of this shape, from the configuration's snapshot if it has one.

    :raise Unavailable: when it does not come up; nothing is left behind.
    """
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(nic.close)
        undo.callback(allotment.give_back)
        booted = await start(driver, config, allotment, token, timeout)
        undo.push_async_callback(booted.end)
        nic.launched()
        for disk in config.disks:
            if isinstance(disk, Disk) and disk.path.parent == config.directory:  # it is open, and nobody else's
                disk.path.unlink(missing_ok=True)
        undo.pop_all()
    return Clone(
        booted.machine, booted.agent, booted.directory, allotment, booted.names, shape=shape, nic=nic,
        layout=booted.layout,
    )  # fmt: skip


async def introduce(agent: Agent, shape: Shape) -> None:
    """What a pod is told at its start, once without consequence."""
    links = [_LOOPBACK]
    if shape.nic != "none":
        links += [
            Interface("eth0", (_ADDRESS,), (usermode.GATEWAY,), mac=NIC_MAC),
            Interface("eth0", (_ADDRESS,), down=True),
        ]
    await agent.setup_pod("factory", links, {}, SHM_DEFAULT)


async def exercise(clone: Clone) -> None:
    """Run once what the start of a container runs, and leave no trace of it.

    An emulated CPU has translated the code then; the kernel has its caches.
    """
    agent = clone.agent
    await introduce(agent, clone.shape)
    await agent.create_container(bare(_EXERCISE, clone))
    process = GuestProcess(
        args=(PROGRAM, "--version"),
        container=_EXERCISE,
        capabilities=capability_mask([], []),
        seccomp=Seccomp.DEFAULT,
        main=True,
        own_pids=True,
    )
    done = await run_process(agent, process)
    if done.status:
        raise Unavailable(f"the factory's program ended with status {done.status}: {done.errors}")
    await agent.delete_container(_EXERCISE)


async def rehearse(agent: Agent, program: GuestProcess | None) -> None:
    """Begin the image's program in the container that is ready, to kill it at the first system call with an effect."""
    if program:  # however it ends; it may not be there
        with contextlib.suppress(StartFailed, GuestError, TimeoutError):
            await run_process(agent, replace(program, container=PREPARED), timeout=_REHEARSAL)
