# SPDX-License-Identifier: Apache-2.0
"""What machines have in common that can come from one template.

A template has its devices already: one for each disk that a container may
have, all of one virtual size, and at most one network interface. Only what lies
behind them differs between clones, so the guest has nothing to scan.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ...hypervisor.driver import AnyDisk, Disk
from ...model.architectures import is_foreign
from ...model.status import Container, Pod
from ...network.backend import Link
from ...protocol.messages import GuestProcess

IMAGE, SCRATCH = "image", "scratch"
VOLUMES = ("volume0", "volume1", "volume2")
SLOTS = (IMAGE, SCRATCH, *VOLUMES)
FRESH = "fresh"  # of isolation: nothing shared with another machine
_MIB = 1 << 20


@dataclass(frozen=True)
class Shape:
    """A kind of machine; `nic` is none, user, stream or tap; `driver` "" is the daemon's default.

    `architecture` is that of its processors where it is not this host's.
    """

    vcpus: int
    memory: int  # bytes
    nic: str
    driver: str = ""
    architecture: str = ""
    pod: bool = False  # without disks, which it gets as containers come to it; else for one container, with slots

    @property
    def name(self) -> str:
        """For messages and names of files: CPUs, MiB of memory, the kind of NIC, and a foreign architecture."""
        plain = f"{self.vcpus}cpu-{self.memory // _MIB}m-{self.nic}"
        return "-".join(filter(None, (plain, self.architecture, "pod" if self.pod else "")))


@dataclass(frozen=True)
class Image:
    """What a container is built of ahead, and the program that is rehearsed in it."""

    path: Path
    program: GuestProcess | None = field(default=None, compare=False)


class Kind(NamedTuple):
    """What templates and clones there are: of a shape, with a container of an image ready, or without one."""

    shape: Shape
    image: Image | None = None

    @property
    def generic(self) -> Kind:
        """The same without an image: a machine in which any container can be built."""
        return Kind(self.shape)

    @property
    def name(self) -> str:
        """For messages and names of files."""
        return "-".join(filter(None, (self.shape.driver, self.shape.name))) + (
            f"-{self.image.path.stem[:16]}" if self.image else ""
        )


def shape_of(
    pod: Pod,
    members: Sequence[Container],
    disks: Sequence[AnyDisk],
    links: Sequence[Link],
    slot_size: int,
) -> Shape | None:
    """The shape of a pod's machine; None when it must be booted."""
    fits = _fits_a_container if pod.implicit else _fits_a_pod
    if pod.memory % _MIB or not fits(pod, members, disks, slot_size):
        return None
    if pod.spec.devices or len(links) > 1 or not all(link.plugs for link in links):
        return None
    nic = str(links[0].kind) if links else "none"
    architecture = pod.architecture if is_foreign(pod.architecture) else ""
    return Shape(pod.vcpus, pod.memory, nic, pod.spec.driver, architecture, pod=not pod.implicit)


def _fits_a_container(pod: Pod, members: Sequence[Container], disks: Sequence[AnyDisk], slot_size: int) -> bool:
    if len(members) != 1 or members[0].spec.isolation == FRESH or any(v.kind == "directory" for v in pod.volumes):
        return False
    return len(disks) <= len(SLOTS) and all(_fits(d, i, slot_size) for i, d in enumerate(disks))


def _fits_a_pod(pod: Pod, members: Sequence[Container], disks: Sequence[AnyDisk], slot_size: int) -> bool:
    """A machine that begins without containers; what these have comes to it while it runs."""
    return not members and not disks and pod.spec.isolation != FRESH


def _fits(disk: AnyDisk, index: int, slot_size: int) -> bool:
    """Whether a disk can lie behind a slot; the first is the image's, which may be made longer."""
    if not isinstance(disk, Disk) or disk.format != "raw" or disk.cache:
        return False
    size = os.stat(disk.path).st_size
    return size <= slot_size if index == 0 else size == slot_size and not disk.read_only


def in_slots(disks: Sequence[AnyDisk], slot_size: int) -> tuple[list[Disk], dict[str, str]]:
    """The disks with the slots' serial numbers, and what each is called then."""
    if not disks:
        return [], {}
    placed: list[Disk] = []
    for slot, disk in zip(SLOTS, disks, strict=False):
        assert isinstance(disk, Disk)
        placed.append(replace(disk, serial=slot))
    image = placed[0].path
    if os.stat(image).st_size < slot_size:
        os.truncate(image, slot_size)  # a hole, which takes no space
    return placed, {disk.serial: new.serial for disk, new in zip(disks, placed, strict=True)}


def is_plain(container: Container) -> bool:
    """Whether one built ahead fits: this container asks for its image and limits only, and its disk is empty."""
    spec = container.spec
    return not (
        container.used
        or container.mounts
        or spec.privileged
        or spec.read_only
        or spec.sysctls
        or spec.domainname
        or spec.secrets
        or spec.files
        or (spec.egress and spec.egress.secrets)
        or spec.base
    )
