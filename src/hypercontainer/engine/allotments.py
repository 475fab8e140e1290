# SPDX-License-Identifier: Apache-2.0
"""What each virtual machine is allotted of this host for itself: a control group.

A machine has it from before its hypervisor starts until it has ended, whoever's it is meanwhile: one that waited in
the pool keeps it when it becomes a pod's. The pod's record names it; what no record names is taken back by the next
daemon.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ..hypervisor.driver import Driver
from ..hypervisor.facets import Footprint
from ..jail.control_groups import Budget, ControlGroups, Group

# Of processors, for what a hypervisor does beside running the guest's: devices, network, translation.
ALLOWANCE = 0.25  # where the containers say how many they want, which is then held
FREELY = 1.0  # where they do not, and until the first one runs: a boot loads and copies beside the guest


class Allotment:
    """Of one machine."""

    def __init__(self, name: str, group: Group, taken_back: Callable[[str], None]) -> None:
        self.name = name
        self.group = group
        self._taken_back = taken_back
        self._cpus: float | None = None  # in force; None: it is not known

    def limit_cpus(self, vcpus: int, wanted: float) -> None:
        """What its containers may use of its processors; 0: all."""
        cpus = wanted + ALLOWANCE if wanted else vcpus + FREELY
        if cpus != self._cpus:
            self._cpus = cpus
            self.group.limit(Budget(cpus=cpus))

    def last_words(self) -> str:
        """What this host did to it; "" for nothing."""
        if self.group.ran_out_of_memory():
            return "it reached this host's limit of memory for its virtual machine, and was ended"
        return ""

    def give_back(self) -> None:
        """Its machine has ended, or never was. Idempotent."""
        self.group.remove()
        self._taken_back(self.name)


class Allotments:
    """Of all machines of one daemon."""

    def __init__(self, groups: ControlGroups) -> None:
        self._groups = groups
        self._live: set[str] = set()

    async def take(self, driver: Driver, name: str, vcpus: int, memory: int) -> Allotment:
        """For a machine that is launched next, with `memory` bytes; `name` is that of its directory.

        :raise Unavailable: there must be a control group, and there cannot be one.
        """
        budget = Budget(cpus=vcpus + FREELY)
        if isinstance(driver, Footprint):
            footprint = await driver.footprint(vcpus, memory)
            budget = Budget(vcpus + FREELY, footprint.memory, footprint.tasks)
        unique = f"{name}.{secrets.token_hex(2)}"  # an earlier one's group may still be going
        allotment = Allotment(unique, self._groups.make(unique, budget), self._live.discard)
        self._live.add(unique)
        return allotment

    def find(self, name: str) -> Allotment:
        """That of a machine which an earlier daemon launched; "" is one that was launched without."""
        self._live.add(name)
        return Allotment(name, self._groups.find(name), self._live.discard)

    def sweep(self, *, spare_busy: bool) -> None:
        """Take back what no machine has; with `spare_busy` not from processes that no record can tell of."""
        self._groups.keep(self._live, spare_busy=spare_busy)
