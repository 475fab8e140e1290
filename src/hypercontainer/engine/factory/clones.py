# SPDX-License-Identifier: Apache-2.0
"""Machines that go on from a template."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import GuestError, StartFailed, Unavailable
from ...guest.agent import Agent
from ...hypervisor.driver import (
    AnyNetwork,
    Disk,
    Driver,
    MachineConfig,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
)
from ...model.pods import SHM_DEFAULT
from ...model.signals import capability_mask
from ...network import tap, usermode
from ...protocol.constants import Seccomp
from ...protocol.messages import GuestContainer, GuestFile, GuestProcess, Interface
from .. import resolve
from ..booted import BootedMachine, start
from ..builtins import run_process
from .parts import PROGRAM
from .shapes import IMAGE, SCRATCH, Shape

CLONE_TIMEOUT = 10.0  # seconds until a clone must answer
NIC_MAC = "52:54:00:00:00:01"  # of a template's NIC; a clone's is set in the guest
# Not a pod's own: a guest that has just been loaded announces its addresses, and
# QEMU's network would believe that this NIC has them.
_ADDRESS = "10.0.2.250/24"
_EXERCISE = "exercise"
_REHEARSAL = 1.0  # seconds
PREPARED = "prepared"  # the container that waits in a machine
_LOOPBACK = Interface("lo", ("127.0.0.1/8", "::1/128"))


@dataclass
class Nic:
    """A network interface that waits for its network."""

    networks: tuple[AnyNetwork, ...] = ()
    tap: str = ""  # the interface on the host
    peer: socket.socket | None = None  # the far end of a stream
    descriptors: list[int] = field(default_factory=list)  # for the launch only

    @staticmethod
    def kind(kind: str) -> tuple[AnyNetwork, ...]:
        """What a command line of this kind has, without anything opened for it."""
        networks: dict[str, tuple[AnyNetwork, ...]] = {
            "none": (),
            "user": (UserNetwork(NIC_MAC),),
            "stream": (StreamNetwork(NIC_MAC, 0),),
            "tap": (TapNetwork(NIC_MAC, 0),),
        }
        return networks[kind]

    @classmethod
    def make(cls, kind: str) -> Nic:
        """:raise PermissionDenied: a tap without CAP_NET_ADMIN."""
        if kind in ("none", "user"):
            return cls(cls.kind(kind))
        if kind == "stream":
            ours, theirs = socket.socketpair()
            fd = theirs.detach()
            return cls((StreamNetwork(NIC_MAC, fd),), peer=ours, descriptors=[fd])
        name = f"hw{secrets.token_hex(6)}"
        fd = tap.create_tap(name)
        return cls((TapNetwork(NIC_MAC, fd, name),), tap=name, descriptors=[fd])

    def launched(self) -> None:
        """The hypervisor has its own descriptors by now."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def close(self) -> None:
        self.launched()
        if self.peer:
            self.peer.close()


@dataclass
class Clone(BootedMachine):
    """A warm machine without a container."""

    shape: Shape = field(kw_only=True)
    nic: Nic = field(kw_only=True)
    scratch: Path | None = None  # the disk of the container that it has ready, which goes with it

    def release(self) -> None:
        """It is a pod's from now on; what is left of its waiting goes."""
        self.nic.close()
        if self.scratch:
            self.scratch.unlink(missing_ok=True)

    async def end(self) -> None:
        await super().end()
        self.release()


def bare(id_: str, shape: Shape) -> GuestContainer:
    """A container that asks for nothing."""
    files = tuple(GuestFile(path, b"\n") for path in resolve.OWN_FILES)
    return resolve.bare_container(id_, shape.memory, IMAGE, SCRATCH, files)


async def launch(driver: Driver, shape: Shape, config: MachineConfig, nic: Nic, token: bytes, timeout: float) -> Clone:
    """Start a machine of this shape, from the configuration's snapshot if it has one.

    :raise Unavailable: when it does not come up; nothing is left behind.
    """
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(nic.close)
        booted = await start(driver, config, token, timeout)
        undo.push_async_callback(booted.end)
        nic.launched()
        for disk in config.disks:
            if isinstance(disk, Disk) and disk.path.parent == config.directory:  # it is open, and nobody else's
                disk.path.unlink(missing_ok=True)
        undo.pop_all()
    return Clone(booted.machine, booted.agent, booted.directory, booted.names, shape=shape, nic=nic)


async def introduce(agent: Agent, shape: Shape) -> None:
    """What a pod is told at its start, once without consequence."""
    links = [_LOOPBACK]
    if shape.nic != "none":
        links += [
            Interface("eth0", (_ADDRESS,), (usermode.GATEWAY,), mac=NIC_MAC),
            Interface("eth0", (_ADDRESS,), down=True),
        ]
    await agent.setup_pod("factory", links, {}, SHM_DEFAULT)


async def exercise(agent: Agent, shape: Shape) -> None:
    """Run once what the start of a container runs, and leave no trace of it.

    An emulated CPU has translated the code then; the kernel has its caches.
    """
    await introduce(agent, shape)
    await agent.create_container(bare(_EXERCISE, shape))
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
