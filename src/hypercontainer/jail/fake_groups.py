# SPDX-License-Identifier: Apache-2.0
"""Control groups of a host that is an object: they outlive daemons, as the kernel's do."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import Unavailable
from ..model.host import Check
from .control_groups import Budget, Group


@dataclass
class FakeKernelGroups:
    """What the host has: names and limits. `trouble` is why none can be made."""

    groups: dict[str, Budget] = field(default_factory=dict)
    starved: set[str] = field(default_factory=set)  # those that ran out of memory
    busy: set[str] = field(default_factory=set)  # those with processes that nobody ends
    trouble: str = ""


class FakeGroup:
    """One of them, which may be gone."""

    def __init__(self, host: FakeKernelGroups, name: str) -> None:
        self._host = host
        self.name = name

    @property
    def directories(self) -> tuple[Path, ...]:
        return (Path("/fake", self.name),) if self.name in self._host.groups else ()

    def limit(self, budget: Budget) -> None:
        if self.name in self._host.groups:
            before = self._host.groups[self.name]
            given = {name: value for name, value in asdict(budget).items() if value is not None}
            self._host.groups[self.name] = replace(before, **given)

    def ran_out_of_memory(self) -> bool:
        return self.name in self._host.starved

    def remove(self) -> None:
        self._host.groups.pop(self.name, None)


class FakeGroups:
    """One daemon's."""

    def __init__(self, host: FakeKernelGroups) -> None:
        self._host = host

    def make(self, name: str, budget: Budget) -> Group:
        if self._host.trouble:
            raise Unavailable(self._host.trouble)
        self._host.groups[name] = budget
        return FakeGroup(self._host, name)

    def find(self, name: str) -> Group:
        return FakeGroup(self._host, name)

    def keep(self, names: Container[str], *, spare_busy: bool) -> None:
        for name in list(self._host.groups):
            if name not in names and not (spare_busy and name in self._host.busy):
                del self._host.groups[name]

    def checks(self) -> list[Check]:
        return [Check(name="control groups", status="ok", found="a fake's")]

    async def close(self) -> None: ...
