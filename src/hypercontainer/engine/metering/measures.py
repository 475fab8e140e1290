# SPDX-License-Identifier: Apache-2.0
"""What no record tells the size of: images, snapshots and volumes that are directories, as they are on the disk now;
and what taps have taken from their pods.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from ...images.store import ImageStore
from ...model.metering import Subject, mib
from ...model.principal import Principal, Tenant
from ...model.status import Pod, Volume
from ...sys.trees import disk_usage
from ..principal import asked_by
from ..registry import Registry
from .sources import Sources

_WHO = "metering"  # to whom names of images are a tenant's, and not everybody's
_SENT = Path("/proc/net/dev")  # proc_pid_net(5): of each interface, bytes received first


class Saved(Protocol):
    """A snapshot."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def tenant(self) -> Tenant: ...


class Measures:
    """Looks at the disk, off the loop."""

    def __init__(
        self, registry: Registry, images: ImageStore, snapshots: Callable[[], Iterable[Saved]],
        size_of: Callable[[str], int], sources: Sources,
    ) -> None:  # fmt: skip
        """`size_of` is for ids of `snapshots`, which are of pods and of volumes: bytes on the disk."""
        self._size_of = size_of
        self._registry = registry
        self._images = images
        self._snapshots = snapshots
        self._sources = sources

    async def look(self) -> list[Subject]:
        """All that there is of these kinds, of the tenants that are wanted."""
        wanted = self._sources.wanted
        snapshots = [s for s in self._snapshots() if wanted(s.tenant)]
        volumes = [v for v in self._registry.volumes() if v.driver == "directory" and wanted(v.tenant)]
        measured = await asyncio.to_thread(self._measure, snapshots, volumes)
        there = {("snapshot", s.tenant or "", s.id) for s in self._snapshots()}
        there |= {("volume", v.tenant or "", v.name) for v in self._registry.volumes() if v.driver == "directory"}
        measured = [s for s in measured if (s.kind, s.tenant, s.id) in there]  # others went meanwhile
        return measured + [s for tenant in self._sources.tenants() for s in self._of_images(tenant)]

    def _measure(self, snapshots: list[Saved], volumes: list[Volume]) -> list[Subject]:
        found = []
        for s in snapshots:
            amount = mib(self._size_of(s.id))
            found.append(self._sources.subject("snapshot", s.id, s.name, s.tenant, amount=amount))
        for v in volumes:
            amount = mib(disk_usage(Path(v.path)))
            found.append(self._sources.subject("volume", v.name, v.name, v.tenant, size="directory", amount=amount))
        return found

    def _of_images(self, tenant: Tenant) -> Iterable[Subject]:
        with asked_by(Principal(_WHO, tenant)):
            images = self._images.describe_all()
        for image in images:
            name = image.repo_tags[0] if image.repo_tags else ""
            yield self._sources.subject("image", image.id, name, tenant, amount=mib(image.size))


class Counter(NamedTuple):
    """Of an interface: `number` is another one's if it was made anew under its name."""

    number: int
    received: int  # bytes


def read_sent() -> dict[str, Counter]:
    """What each tap of this network namespace has taken from its machine since it was there."""
    indexes = {name: index for index, name in socket.if_nameindex()}
    found = {}
    for line in _SENT.read_text().splitlines()[2:]:
        name, _, counters = line.partition(":")
        if index := indexes.get(name.strip()):
            found[name.strip()] = Counter(index, int(counters.split()[0]))
    return found


def sent_by(pod: Pod, counters: dict[str, Counter]) -> dict[str, int]:
    """Bytes of each of a pod's taps."""
    found = {tap: counters.get(tap[:15]) for tap in (pod.vm.nics if pod.vm else {})}
    return {f"{tap}/{counter.number}": counter.received for tap, counter in found.items() if counter}
