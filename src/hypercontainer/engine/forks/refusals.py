# SPDX-License-Identifier: Apache-2.0
"""Which pods can be saved while they run: asked before anything is taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...errors import InvalidState, Unsupported
from ...guest.agent import Fork
from ...guest.agent import require as require_of_guest
from ...hypervisor.driver import Driver
from ...hypervisor.facets import Checkpoints, require
from ...model.status import Container, ContainerStatus, Pod, PodStatus, PodVolume
from ...network.backend import NicKind
from ..runtime import Runtime
from ..volume_sources import volumes_of

_BUSY = (ContainerStatus.RESTARTING,)


def check(
    pod: Pod, members: Sequence[Container], runtime: Runtime, driver: Driver, links: int, *, facet: type = Checkpoints
) -> None:
    """`links` is how many network interfaces lead somewhere; `facet` is what the driver must have. A pod that is
    suspended (`Suspends`) is not copied.

    :raise Unsupported: with what it has that no copy of it could have. :raise InvalidState: it does something else now.
    """
    require(driver, facet)
    require_of_guest(runtime.agent, Fork)
    if pod.status is not PodStatus.RUNNING:
        raise InvalidState(f"pod {pod.name} is {pod.status}, not running", hint="save it when it runs")
    _check_not_busy(members)
    layout = runtime.layout
    if layout is None:
        raise Unsupported(f"{pod.name} was started by an earlier hyperd, which did not write down what it would take",
                          hint="stop it and start it again")  # fmt: skip
    if layout.directories or runtime.server or any(c.spec.rootfs for c in members):
        raise Unsupported(
            f"{pod.name} has directories of this host, which are as they are now for whoever has them",
            hint="use volumes (`hyperctl volume create`), which are copied",
        )
    if runtime.devices:
        raise Unsupported(f"{pod.name} has a PCI device of this host, which there is once", hint="run it without")
    if facet is Checkpoints:
        _check_copied(pod, members)
    _check_volumes(pod, members)
    if pod.cni or pod.spec.interfaces:
        raise Unsupported(f"{pod.name} is in a network that others gave it, where a copy would need a place of its own",
                          hint="use a network of `hyperctl network create`, or user")  # fmt: skip
    placed = sum(kind != NicKind.SPARE for kind in layout.nics)
    if placed != links or any(a.tap in runtime.spares for a in pod.attachments):
        raise Unsupported(f"{pod.name} has joined or left networks since it was started",
                          hint="stop it and start it again")  # fmt: skip
    if late := [s for s in runtime.disks if runtime.name_of(s) not in layout.disks]:
        raise Unsupported(f"{pod.name} got {len(late)} of its disks while it ran", hint="stop it and start it again")


def check_unchanged(members: Sequence[Container], known: Collection[str], frozen: Collection[str]) -> None:
    """What runs when the machine stands still was `frozen` before, and its containers are those that are `known`.

    :raise InvalidState: one came or went, or was started, meanwhile.
    """
    _check_not_busy(members)
    if {c.id for c in members} != set(known):
        raise InvalidState("a container came or went while the pod was saved", hint="try again")
    if late := next((c for c in members if c.state.status is ContainerStatus.RUNNING and c.id not in frozen), None):
        raise InvalidState(f"container {late.name} was started while the pod was saved", hint="try again")


def _check_not_busy(members: Sequence[Container]) -> None:
    if busy := next((c for c in members if c.state.starting or c.state.status in _BUSY), None):
        raise InvalidState(f"container {busy.name} is being started", hint="try again")


def _used(pod: Pod, members: Sequence[Container]) -> list[PodVolume]:
    names = {name for c in members for name in volumes_of(c)} | {v.name for v in pod.volumes if v.declared}
    return [v for v in pod.volumes if v.name in names]


def _check_volumes(pod: Pod, members: Sequence[Container]) -> None:
    for volume in _used(pod, members):
        if volume.kind == "image":
            raise Unsupported(f"pod {pod.name} has an image as a volume ({volume.source[:19]}), which is not saved",
                              hint="leave that volume out")  # fmt: skip
        if volume.kind not in ("disk", "tmpfs"):
            raise Unsupported(f"volume {volume.name} of {pod.name} is of another host ({volume.kind}), and not copied",
                              hint="unmount it first")  # fmt: skip


def _check_copied(pod: Pod, members: Sequence[Container]) -> None:
    for volume in _used(pod, members):
        if volume.kind == "disk" and volume.format != "raw" and not volume.read_only:
            raise Unsupported(f"volume {volume.name} of {pod.name} is a {volume.format} image",
                              hint="only raw images are copied while they are written")  # fmt: skip
