# SPDX-License-Identifier: Apache-2.0
"""The port: control groups of this host, one for each virtual machine with the helpers that serve it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..model.host import Check


@dataclass(frozen=True)
class Budget:
    """What all processes of a group may use together; 0 is no limit, None what is in force.

    A share is no limit, and never 0.
    """

    cpus: float | None = None
    memory: int | None = None  # bytes
    tasks: int | None = None  # processes and threads
    share: float | None = None  # of processors, where the host has not as many as are wanted: beside others' shares


class Group(Protocol):
    """A group that is there."""

    name: str

    @property
    def directories(self) -> tuple[Path, ...]:
        """Its directories, one of each hierarchy: for `Order.control_groups`."""

    def limit(self, budget: Budget) -> None:
        """From now on. What the host cannot limit is logged once."""

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has ended a process of it for want of memory; True after `remove` too."""

    def remove(self) -> None:
        """Its processes have ended or are about to; what has not in a moment is killed. Idempotent."""


class ControlGroups(Protocol):
    """Makes groups, and finds them again."""

    def make(self, name: str, budget: Budget) -> Group:
        """:raise Unavailable: there must be groups, and there cannot be one."""

    def find(self, name: str) -> Group:
        """The group that an earlier daemon made by this name; one that it did not make has no directories."""

    def keep(self, names: Container[str], *, spare_busy: bool) -> None:
        """Remove all but these, at the daemon's start; with `spare_busy` also what has processes stays."""

    def checks(self) -> list[Check]:
        """For `doctor`."""

    async def close(self) -> None:
        """When what is being removed is gone; of groups that have processes nothing changes."""


class NoGroup:
    """Nothing is limited."""

    directories: tuple[Path, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def limit(self, budget: Budget) -> None: ...

    def ran_out_of_memory(self) -> bool:
        return False

    def remove(self) -> None: ...


class NoGroups:
    """Where control groups are switched off."""

    def make(self, name: str, budget: Budget) -> Group:
        return NoGroup(name)

    def find(self, name: str) -> Group:
        return NoGroup(name)

    def keep(self, names: Container[str], *, spare_busy: bool) -> None: ...

    def checks(self) -> list[Check]:
        return [Check(name="control groups", status="ok", found="off: `control_groups` in hyperd's configuration")]

    async def close(self) -> None: ...
