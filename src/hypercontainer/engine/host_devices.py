# SPDX-License-Identifier: Apache-2.0
"""PCI devices of this host that pods have, each of them one at a time.

They are a pod's from the moment in which its start asks for them, as ports are; from when its machine runs, its record
tells that it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import Conflict, Unavailable
from ..hypervisor.driver import PciDevice
from ..model.status import Pod
from ..sys import tasks
from ..sys.pci import PciBus
from .registry import Registry
from .runtime import Runtime

_GONE = 30.0  # seconds for the end of a machine that others still give back


class HostDevices:
    """Given to pods, one after the other."""

    def __init__(self, registry: Registry, bus: PciBus, booted: Callable[[str], Runtime | None]) -> None:
        """`booted` gives a pod's machine until it has ended."""
        self._registry = registry
        self._bus = bus
        self._booted = booted
        self._claims: dict[str, set[int]] = {}  # groups of pods that start

    def of(self, pod: Pod) -> tuple[PciDevice, ...]:
        """What its machine is handed; one that is named twice, by address and group, once.

        :raise HyperError: one is not there, or cannot be handed over.
        """
        found = {d.address: d for name in pod.spec.devices for d in self._bus.find(name)}
        return tuple(PciDevice(d.address, d.directory, d.group, self._bus.nodes_of(d)) for d in found.values())

    async def claim(self, pod: Pod) -> None:
        """Its own until they are released: what an IOMMU cannot tell apart goes together.

        A machine that has one and is about to end is waited for.

        :raise Conflict: another pod has one. :raise Unavailable: one does not end. :raise HyperError: as `of`.
        """
        wanted = {d.group: d.address for name in pod.spec.devices for d in self._bus.find(name)}
        while found := self._holder(pod, wanted):
            other, address = found
            runtime = self._booted(other.id)
            if other.id in self._claims or runtime is None or runtime.users:
                raise Conflict(f"the PCI device {address} is in use by the running pod {other.name}",
                               hint="stop that pod first: a device is one pod's at a time")  # fmt: skip
            try:
                await tasks.within(runtime.gone.wait(), _GONE)
            except TimeoutError:
                raise Unavailable(f"the virtual machine of pod {other.name}, which has the PCI device {address}, does "
                                  "not end", hint="try again, or restart hyperd") from None  # fmt: skip
        if wanted:
            self._claims[pod.id] = set(wanted)

    def release(self, pod_id: str) -> None:
        """From here on its record tells, or nobody has them. Idempotent."""
        self._claims.pop(pod_id, None)

    def _holder(self, pod: Pod, wanted: Mapping[int, str]) -> tuple[Pod, str] | None:
        """Another pod that has one of these groups, or begins to have it, and the address of what is wanted of it."""
        for other in self._registry.pods() if wanted else ():
            runtime = self._booted(other.id)
            gone = runtime is not None and runtime.gone.is_set()
            of_machine = set(other.vm.devices.values()) if other.vm and not gone else set()
            if other.id != pod.id and (taken := wanted.keys() & (of_machine | self._claims.get(other.id, set()))):
                return other, wanted[min(taken)]
        return None
