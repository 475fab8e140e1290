# SPDX-License-Identifier: Apache-2.0
"""By what a pod will run: its driver and its networks, chosen when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from ..errors import InvalidArgument, Unavailable, Unsupported
from ..hypervisor.driver import Disk, PciDevice, RbdDisk, VirtioFs, disk_kinds, processor_kinds
from ..hypervisor.drivers import Drivers
from ..hypervisor.facets import Emulation, Suspends, require
from ..model.architectures import is_foreign
from ..model.network import Attachment
from ..model.pods import PodPlan, PodSpec
from ..model.sizes import DEFAULTS as SIZES
from ..model.sizes import Size
from ..model.specs import GUEST_OVERHEAD, ContainerSpec, Mount
from ..model.status import Pod
from . import policies
from .networks import Networks
from .paths import FindBootFiles
from .pod_network import PodNetwork
from .registry import Registry


class Placement:
    """Chooses what a specification leaves open; takes nothing."""

    def __init__(
        self, drivers: Drivers, networks: Networks, network: PodNetwork, registry: Registry, boot: FindBootFiles,
        sizes: Mapping[str, Size] = SIZES,
    ) -> None:  # fmt: skip
        self.network = network
        self._boot_files = boot
        self._registry = registry
        self._networks = networks
        self._drivers = drivers
        self.sizes = sizes

    def sized(self, spec: ContainerSpec) -> ContainerSpec:
        """With what its size stands for.

        :raise InvalidArgument: there is no such size, or it has numbers, too.
        """
        if not spec.size:
            return spec
        if spec.pod:
            raise InvalidArgument("a size is the pod's, not a container's in it", hint="give --cpus and --memory")
        size, r = self.size(spec.size), spec.resources
        if r.cpus or r.memory:
            raise InvalidArgument(f"size {size.name} says how many CPUs and how much memory it has",
                                  hint="leave out --size, or --cpus and --memory")  # fmt: skip
        return replace(spec, resources=replace(r, cpus=float(size.vcpus), memory=size.memory))

    def plan_sized(self, plan: PodPlan) -> PodPlan:
        """As `sized`, of a whole pod: its containers share what there is."""
        if not plan.size:
            return plan
        size = self.size(plan.size)
        if plan.vcpus or plan.memory:
            raise InvalidArgument(f"size {size.name} says how many CPUs and how much memory it has",
                                  hint="leave out the size, or the numbers")  # fmt: skip
        return replace(plan, vcpus=size.vcpus, memory=size.memory + GUEST_OVERHEAD)

    def size(self, name: str) -> Size:
        """:raise InvalidArgument: there is none of that name."""
        if name not in self.sizes:
            raise InvalidArgument(f"there is no size {name!r}", hint=f"choose of {', '.join(self.sizes)}")
        return self.sizes[name]

    def plan(
        self, id_: str, spec: PodSpec, aliases: list[str], names: Sequence[str], replica_of: str = ""
    ) -> tuple[PodSpec, list[Attachment]]:
        """The specification with its networks, and the pod's places in these; its driver is of those that there are.
        `names` are the pod's own, beside its aliases; `replica_of` is a deployment's id.

        :raise InvalidArgument: no such driver. :raise NotFound: no such network, or security group.
        :raise Conflict: an address, or a name, is taken.
        """
        self._drivers.get(spec.driver)
        self._registry.groups.check(spec.security_groups)
        return self._networks.plan(id_, spec, aliases, names, replica_of)

    async def choose_driver(self, pod: Pod, mounts: Iterable[Mount] = (), *, rootfs: bool = False) -> Pod:
        """The pod with its driver, and why it has that one; `mounts` are those of a container that it is to get, whose
        root is a directory where `rootfs` says so.

        :raise Unsupported: the driver lacks something that they need; with one that has it.
        :raise Unavailable: its processors are not this host's, and cannot be emulated.
        """
        wanted = kinds(pod, self.network) | self._kinds_of(mounts) | ({VirtioFs} if rootfs else set())
        driver, why = await self._drivers.choose(pod.spec.driver, sorted(wanted, key=lambda k: k.__name__))
        policies.check_driver(driver.name)
        reason = pod.driver_reason or why
        if pod.spec.idle_timeout:
            require(driver, Suspends)
        if is_foreign(pod.architecture):
            if pod.spec.devices:
                raise Unsupported(f"a virtual machine for {pod.architecture} has no bus for a PCI device of this host")
            probe = await require(driver, Emulation).emulation(pod.architecture)
            if probe.trouble:
                raise Unavailable(f"images for {pod.architecture} cannot be run: {probe.trouble}", hint=probe.hint)
            self._boot_files(pod.architecture)
        return replace(pod, spec=replace(pod.spec, driver=driver.name), driver_reason=reason)

    def _kinds_of(self, mounts: Iterable[Mount]) -> set[type]:
        """Of what is there; a volume that is made for a container is a disk."""
        found: set[type] = set()
        for mount in mounts:
            volume = self._registry.find_volume(mount.source) if mount.type == "volume" else None
            if mount.type == "bind" or (volume and volume.driver == "directory"):
                found.add(VirtioFs)
            elif volume:
                found.update(disk_kinds(volume.format or "raw", ""))
        return found


def kinds(pod: Pod, network: PodNetwork) -> set[type]:
    """Which kinds of disks, networks and shared directories its machine has (`Driver.takes`)."""
    found: set[type] = {Disk, *processor_kinds(pod.architecture)} | network.kinds(pod)
    if pod.spec.devices:
        found.add(PciDevice)
    for volume in pod.volumes:
        if volume.kind == "rbd":
            found.add(RbdDisk)
        elif volume.kind == "directory":
            found.add(VirtioFs)
        elif volume.kind == "disk":
            found.update(disk_kinds(volume.format, volume.cache))
    return found
