# SPDX-License-Identifier: Apache-2.0
"""What each virtual machine is allotted of this host for itself: a user number, and a control group.

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
from ..network.passt import RunsAs
from .user_numbers import UserNumbers

# Of processors, for what a hypervisor does beside running the guest's: devices, network, translation.
ALLOWANCE = 0.25  # where the containers say how many they want, which is then held
FREELY = 1.0  # where they do not, and until the first one runs: a boot loads and copies beside the guest


class Allotment:
    """Of one machine."""

    def __init__(self, name: str, user: int, group: Group, taken_back: Callable[[str], None]) -> None:
        self.name = name
        self.user = user
        self.group = group
        self._taken_back = taken_back
        self._cpus: float | None = None  # in force; None: it is not known

    def limit_cpus(self, vcpus: int, wanted: float) -> None:
        """What its containers may use of its processors; 0: all. Of a busy host it has as large a share."""
        cpus = wanted + ALLOWANCE if wanted else vcpus + FREELY
        if cpus != self._cpus:
            self._cpus = cpus
            self.group.limit(Budget(cpus=cpus, share=wanted or vcpus))

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

    def __init__(self, groups: ControlGroups, numbers: UserNumbers) -> None:
        self._groups = groups
        self._numbers = numbers
        self._live: set[str] = set()
        self._of_pods: dict[str, Allotment] = {}

    async def take(
        self, driver: Driver, name: str, vcpus: int, memory: int, *, fenced: bool = True, architecture: str = ""
    ) -> Allotment:
        """For a machine that is launched next, with `memory` bytes; `name` is that of its directory.

        One that is `fenced` is kept from the host's loopback. What was taken is given back by its `give_back`.

        :raise Unavailable: there is no user number, or there must be a control group, and there cannot be one.
        """
        budget = Budget(cpus=vcpus + FREELY, share=vcpus)
        if isinstance(driver, Footprint):
            footprint = await driver.footprint(vcpus, memory, architecture)
            budget = Budget(vcpus + FREELY, footprint.memory, footprint.tasks, share=vcpus)
        unique = f"{name}.{secrets.token_hex(2)}"  # an earlier one's group may still be going
        user = self._numbers.claim(unique, fenced=fenced)
        try:
            group = self._groups.make(unique, budget)
        except BaseException:
            self._numbers.release(unique)
            raise
        self._live.add(unique)
        return Allotment(unique, user, group, self._taken_back)

    def find(self, name: str, user: int) -> Allotment:
        """That of a machine which an earlier daemon launched; "" is one that was launched without."""
        self._live.add(name)
        self._numbers.keep(name, user)
        return Allotment(name, user, self._groups.find(name), self._taken_back)

    def give(self, pod_id: str, allotment: Allotment) -> None:
        """The machine becomes this pod's: what serves the pod's network next has its part of this."""
        self._of_pods[pod_id] = allotment

    def runs_as(self, pod_id: str, fenced: bool) -> RunsAs:
        """For a further helper of a pod's machine, with a user number of its own.

        :raise Unavailable: there is none.
        """
        allotment = self._of_pods[pod_id]
        return RunsAs(self._numbers.claim(allotment.name, fenced=fenced), allotment.group.directories)

    def _taken_back(self, name: str) -> None:
        self._live.discard(name)
        self._of_pods = {pod_id: a for pod_id, a in self._of_pods.items() if a.name != name}
        self._numbers.release(name)

    def sweep(self, *, spare_busy: bool) -> None:
        """Take back what no machine has; with `spare_busy` not what may be that of a machine no record can tell of."""
        self._groups.keep(self._live, spare_busy=spare_busy)
        if not spare_busy:
            self._numbers.sweep(self._live)
