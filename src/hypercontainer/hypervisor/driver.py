# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a hypervisor.

A driver launches machines and finds them again after the daemon was
restarted. What a driver cannot do it declares in `Capabilities`, and raises
`Unsupported` when asked all the same.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..model.specs import PortMapping

GUEST_CHANNEL = "sh.hyper.guest.0"


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do beyond launching."""

    pause: bool
    user_network: bool


@dataclass(frozen=True)
class Disk:
    """A raw disk image; the guest finds it by its serial number (<= 20 bytes)."""

    serial: str
    path: Path
    read_only: bool


@dataclass(frozen=True)
class UserNetwork:
    """The hypervisor's own user-mode network with published ports."""

    mac: str
    ports: tuple[PortMapping, ...] = ()


@dataclass(frozen=True)
class MachineConfig:
    """A machine to launch; `directory` is its own and holds its sockets and logs."""

    name: str
    directory: Path
    vcpus: int
    memory: int  # bytes
    kernel: Path
    initramfs: Path
    disks: tuple[Disk, ...] = ()
    network: UserNetwork | None = None


class Machine(Protocol):
    """A running machine."""

    pid: int
    pid_started: int
    accelerator: str

    def connect(self) -> socket.socket:
        """A new connection to the guest channel.

        :raise Unavailable: when the machine is gone.
        """

    async def wait(self) -> None:
        """Return when the machine has ended, for whatever reason."""

    async def kill(self) -> None:
        """End the machine at once and free what it held; idempotent."""

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    def last_words(self) -> str:
        """The end of what hypervisor and guest kernel wrote, for error messages."""


class Driver(Protocol):
    """A hypervisor."""

    name: str
    capabilities: Capabilities

    async def launch(self, config: MachineConfig) -> Machine:
        """Start a machine; returns as soon as its channel can be connected.

        :raise Unavailable: when the hypervisor is not installed.
        :raise Conflict: when a published port is taken.
        """

    def attach(self, directory: Path, pid: int, pid_started: int, accelerator: str) -> Machine | None:
        """The machine that an earlier daemon launched; None when it has ended."""

    def sweep(self, parent: Path, keep: set[Path]) -> None:
        """End the machines whose directories are below `parent` and not in `keep`."""

    async def accelerator(self) -> tuple[str, str]:
        """The accelerator in use and why."""

    def version(self) -> str:
        """The hypervisor's version, "" when it is not installed."""
