# SPDX-License-Identifier: Apache-2.0
"""Reservations: nobody gets more than they may have, however many ask at once.

A reservation is made in one step, without waiting, before anything is taken, and counts until a record tells of what
it was for. What is there is counted from the records each time, so nothing has to be kept in step with them, and a
daemon that begins anew knows all that it needs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ...errors import QuotaExceeded
from ...model.deployments import Deployment
from ...model.network import Network
from ...model.principal import NOWHERE, Principal, Tenant
from ...model.quotas import MEASURED, NAMES, Amounts, Quota, QuotaStatus, write_amount
from ...model.specs import ContainerSpec
from ...model.status import Container, Pod, Volume
from ...sys import clock
from ..principal import current
from .holders import Holder, Owned, Snapshot
from .requests import Requests

_MINUTE = 60.0  # seconds, in which so many starts are allowed
UNBOUNDED = -1  # of disk: what has no limit of its own


class Belongings(NamedTuple):
    """All that is a tenant's."""

    pods: Collection[Pod]
    containers: Collection[Container]
    volumes: Collection[Volume]
    networks: Collection[Network]


class Records(Protocol):
    """What is counted."""

    def of_tenant(self, tenant: Tenant) -> Belongings:
        """All of one's."""


@dataclass(frozen=True)
class _Held:
    """A reservation for what will have this id."""

    owner: str
    tenant: Tenant
    amounts: Amounts


class Quotas:
    """Of one daemon."""

    def __init__(self, records: Records, scratch_size: int = 0) -> None:
        """`scratch_size` is how many bytes a container's own disk may grow to."""
        self._records = records
        self.scratch_size = scratch_size
        self.log_limits = 0, 0  # bytes of a file, and files, of a log of which nothing is said
        # Set by who knows: who is limited of those whose a thing with this tenant and owner is, and how.
        self.limits: Callable[[Tenant, str], Iterable[tuple[Holder, Quota]]] = lambda tenant, owner: ()
        self.snapshots: Callable[[], Iterable[Snapshot]] = lambda: ()
        self.publishing: Callable[[], Iterable[Deployment]] = list  # what publishes ports beside pods
        self.counted: dict[str, Callable[[], Iterable[Owned]]] = {}  # names of quotas -> records, one of which is one
        self.image_bytes: Callable[[], int] = lambda: 0  # of who asks
        self.snapshot_bytes: Callable[[str], int] = lambda id_: 0
        self._requests = Requests()
        self._held: dict[str, _Held] = {}  # by the id of what is made
        self._starting: dict[str, _Held] = {}  # by the id of the pod that starts
        self._starts: dict[Holder, deque[float]] = defaultdict(deque)  # when they were, in the last minute

    # -- what is made ---------------------------------------------------------------------

    @contextlib.contextmanager
    def admitted(self, things: Mapping[str, Amounts]) -> Iterator[None]:
        """For who asks, while things with these ids are made: all of them, or none.

        :raise QuotaExceeded: it is more than they may have.
        """
        who = current()
        self.check(sum(things.values(), Amounts()))
        self._held.update({id_: _Held(who.owner, who.tenant, amounts) for id_, amounts in things.items()})
        try:
            yield
        finally:
            for id_ in things:
                self._held.pop(id_, None)

    def check(self, more: Amounts) -> None:
        """Whether who asks may have more, by now: nothing is held.

        :raise QuotaExceeded: they may not.
        """
        who = current()
        self._check(who, who.owner, more)

    def admit(self, who: Principal) -> None:
        """One request more, of who asks; the host's administrators ask as often as they like.

        :raise TooManyRequests: they ask too often.
        """
        if "admin" not in who.scopes and who.tenant != NOWHERE:
            self._requests.count(self.limits(who.tenant, who.owner))

    def holds(self, id_: str) -> bool:
        """Whether what will have this id is being made."""
        return id_ in self._held

    def is_making(self, tenant: Tenant) -> bool:
        """Whether something of a tenant's is being made, or starts, of which no record tells yet."""
        return any(h.tenant == tenant for h in (*self._held.values(), *self._starting.values()))

    def container(self, spec: ContainerSpec) -> Amounts:
        """What one more is."""
        return Amounts(containers=1, disk=self._disk_of(spec))

    def _disk_of(self, spec: ContainerSpec) -> int:
        """What it may write: on its own disk, where its root is none of the host's, and of a log beyond the usual."""
        size, files = self.log_limits
        log = (spec.log.max_size or size) * (spec.log.max_files or files) - size * files
        return (0 if spec.rootfs else self.scratch_size) + max(0, log)

    # -- what runs ------------------------------------------------------------------------

    def claim(self, pod: Pod) -> None:
        """It starts: what its machine has counts from now on, until `release`, or its record tells of the machine.

        :raise QuotaExceeded: it is more than its owners may have.
        """
        self._check(pod, pod.owner, _machine(pod))
        counting = [self._starts_of(holder, quota) for holder, quota in self.limits(pod.tenant, pod.owner)]
        for starts in counting:  # what one of them refuses, none has counted
            starts.append(clock.seconds())
        self._starting[pod.id] = _Held(pod.owner, pod.tenant, _machine(pod))

    def release(self, pod_id: str) -> None:
        """From here on its record tells, or it has none. Idempotent."""
        self._starting.pop(pod_id, None)

    def _starts_of(self, holder: Holder, quota: Quota) -> deque[float]:
        """Of the last minute, with room for another. :raise QuotaExceeded: there is none."""
        if quota.starts is None:
            return deque()
        starts, now = self._starts[holder], clock.seconds()
        while starts and starts[0] <= now - _MINUTE:
            starts.popleft()
        if len(starts) >= quota.starts:
            wait = int(_MINUTE - (now - starts[0])) + 1 if starts else int(_MINUTE)
            raise QuotaExceeded(f"{holder.name} may start {quota.starts} pods in a minute, and has",
                                hint=f"try again in {wait} s")  # fmt: skip
        return starts

    # -- counting -------------------------------------------------------------------------

    def status(self, who: Principal) -> QuotaStatus:
        """Of who asks: what limits them closest, the project before the principal."""
        holder, quota = next(iter(self.limits(who.tenant, who.owner)), (Holder("", who.tenant), Quota()))
        return QuotaStatus(of=holder.name, limits=quota, used=self.used(holder) + self._measured(holder))

    def _measured(self, holder: Holder) -> Amounts:
        """What only a look at the disk tells."""
        saved = sum(self.snapshot_bytes(s.id) for s in self.snapshots() if holder.has(s))
        return Amounts(image_disk=self.image_bytes(), snapshot_disk=saved)

    def used(self, holder: Holder) -> Amounts:
        """What there is of it, and is being made."""
        own = self._records.of_tenant(holder.tenant)
        pods = {p.id: p for p in own.pods if holder.has(p)}
        containers = [c for c in own.containers if holder.has(c)]
        volumes = [v for v in own.volumes if holder.has(v)]
        disks = sum(self._disk_of(c.spec) for c in containers)
        there = Amounts(
            pods=len(pods), containers=len(containers), volumes=len(volumes),
            disk=disks + sum(v.size for v in volumes) + sum(map(disks_of, pods.values())),
            ports=sum(len(p.spec.ports) for p in pods.values()) + self._published(holder),
            networks=sum(map(holder.has, own.networks)),
            snapshots=sum(holder.has(s) for s in self.snapshots()),
            **{name: sum(map(holder.has, records())) for name, records in self.counted.items()},
        )  # fmt: skip
        recorded = {*pods, *(c.id for c in containers), *(volume_key(v.name, v.tenant) for v in volumes)}
        making = [h.amounts for id_, h in self._held.items() if id_ not in recorded and holder.has(h)]
        running = [_machine(p) for p in pods.values() if p.vm]
        starting = [h.amounts for id_, h in self._starting.items()
                    if holder.has(h) and not (id_ in pods and pods[id_].vm)]  # fmt: skip
        return sum((*making, *running, *starting), there)

    def _published(self, holder: Holder) -> int:
        return sum(bool(p.host_port) for d in self.publishing() if holder.has(d) for p in d.ports)

    def _check(self, who: Principal | Pod, owner: str, more: Amounts) -> None:
        for holder, quota in self.limits(who.tenant, owner):
            used = self.used(holder)
            if any(getattr(more, name) and getattr(quota, name) is not None for name in MEASURED):
                used += self._measured(holder)
            for name in NAMES:
                limit, wanted, has = getattr(quota, name), getattr(more, name), getattr(used, name)
                if limit is None or not wanted:
                    continue
                if wanted < 0:
                    raise QuotaExceeded(f"{holder.name} has a quota of {name}, and this would have no limit",
                                        hint="make the volume a disk: --driver block")  # fmt: skip
                if name in MEASURED and has >= limit:
                    raise QuotaExceeded(f"{holder.name} may have {_written(name, limit)}, and has "
                                        f"{write_amount(name, has)}", hint="remove some")  # fmt: skip
                if name not in MEASURED and has + wanted > limit:
                    raise QuotaExceeded(
                        f"{holder.name} may have {_written(name, limit)}, has {write_amount(name, has)}, and this "
                        f"takes {write_amount(name, wanted)} more",
                        hint="remove or stop what is not needed, or have the quota raised",
                    )


def volume_key(name: str, tenant: Tenant) -> str:
    """In place of an id, of a volume that is made."""
    return f"volume:{tenant or ''}:{name}"


def disks_of(pod: Pod) -> int:
    """Bytes that the disks may grow to which go with it."""
    return sum(v.size for v in pod.volumes if v.anonymous and v.kind == "disk" and not v.named)


def _machine(pod: Pod) -> Amounts:
    return Amounts(vcpus=pod.vcpus, memory=pod.promised)


def _written(name: str, number: int) -> str:
    words = {"vcpus": "virtual CPUs", "memory": "of memory in pods that run", "disk": "of disk",
             "ports": "ports of the host", "image_disk": "of images", "snapshot_disk": "of snapshots",
             "addresses": "floating addresses", "security_groups": "security groups", "crons": "cron jobs"}  # fmt: skip
    return f"{write_amount(name, number)} {words.get(name, name)}"
