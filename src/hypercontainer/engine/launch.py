# SPDX-License-Identifier: Apache-2.0
"""From a pod to a running machine: what it is to have, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from ..hypervisor.driver import AnyDisk, Disk
from ..hypervisor.drivers import Drivers
from ..images.store import ImageStore
from ..model.status import Container, Pod
from ..sys.spans import span
from . import resolve
from .factory.factory import Factory
from .factory.shapes import Image, Kind, is_plain
from .machine_config import shared_names
from .machine_disks import MachineDisks
from .placement import kinds
from .pod_network import PodNetwork
from .quotas.turns import Turns
from .runtime import Runtime
from .shares import Shares
from .sources import MachineSource, Order, first


class Orders:
    """What machine a pod is to have."""

    def __init__(
        self, drivers: Drivers, images: ImageStore, disks: MachineDisks, network: PodNetwork, shares: Shares,
        factory: Factory,
    ) -> None:  # fmt: skip
        self._drivers = drivers
        self._images = images
        self._disks = disks
        self._network = network
        self._shares = shares
        self._factory = factory

    def check(self, pod: Pod) -> None:
        """Whether the pod's driver can run it, before anything is taken.

        :raise Unsupported: with what it cannot. :raise InvalidArgument: there is no such driver.
        """
        self._drivers.check(self._drivers.get(pod.spec.driver), kinds(pod, self._network))

    async def order(self, pod: Pod, members: list[Container]) -> Order:
        """With its members' disks, which are made again where they are missing."""
        with span("disks found"):
            disks = await self._disks.of_pod(pod, members)
        driver = self._drivers.get(pod.spec.driver)
        shape = self._factory.shape_of(pod, members, disks, self._network.links(pod))
        kind = Kind(shape) if shape else None
        if shape and not shape.pod and is_plain(members[0]):
            kind = Kind(shape, self._image_of(members[0], disks[0]))
        return Order(pod, disks, driver, kind, self._shares.virtiofs)

    def _image_of(self, container: Container, disk: AnyDisk) -> Image:
        assert isinstance(disk, Disk)
        return Image(disk.path, resolve.rehearsal_of(self._images.find(container.image_id).config.config))


class Launcher:
    """Gives machines, warm ones where it can."""

    def __init__(self, orders: Orders, sources: Sequence[MachineSource], factory: Factory) -> None:
        """`sources` are tried in their order."""
        self._orders = orders
        self._sources = sources
        self._factory = factory
        self._turns = Turns()

    def check(self, pod: Pod) -> None:
        """Raises what `Orders.check` does."""
        self._orders.check(pod)

    async def boot(self, pod: Pod, members: list[Container]) -> Runtime:
        """The VM of a pod with its members' disks; the guest has no container yet.

        :raise Unavailable: when the guest does not come up; the message has its last words.
        """
        order = await self._orders.order(pod, members)
        async with self._turns.of(pod.tenant):
            with self._factory.foreground(order.kind):
                booted = await first(self._sources, order)
        if booted.source in self._factory.started:
            self._factory.started[booted.source] += 1
        directories = shared_names(order.pod) if booted.server else []
        return Runtime.of(booted, {d.serial for d in order.disks}, directories)
