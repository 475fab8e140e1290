# SPDX-License-Identifier: Apache-2.0
"""Floating addresses: a project's, by which a pod is reached that may be another one tomorrow."""

from __future__ import annotations

import asyncio
import secrets
from ipaddress import ip_address

from msgspec.structs import replace

from ..errors import Conflict, HyperError, InvalidArgument, Unavailable, Unsupported
from ..model.fips import Fip, FipInfo, FipRequest
from ..model.quotas import Amounts
from ..model.status import Pod
from ..network import links
from ..network.floating import FipSettings, Floating
from ..state import changes as rows
from ..sys import clock, tasks
from . import naming
from .events import Events
from .pod_network import PodNetwork
from .principal import owned
from .registry import Registry


class Fips:
    """The only holder of these records. A pod that is gone has none, whatever they say."""

    def __init__(self, registry: Registry, events: Events, pods: PodNetwork, settings: FipSettings) -> None:
        self._registry = registry
        self._events = events
        self._pods = pods
        self._settings = settings
        self._records = {f.id: f for f in registry.journal.database.fips()}
        self._lock = asyncio.Lock()  # one changes at a time whose address leads where
        registry.floating = self.floating
        registry.fips = registry.quotas.counted["addresses"] = self.records

    def records(self) -> list[Fip]:
        """Everybody's."""
        return list(self._records.values())

    def floating(self) -> Floating:
        """What the host's rules are made from."""
        found: dict[str, list[str]] = {}
        for record in self._records.values():
            if record.pod:
                found.setdefault(record.pod, []).append(record.address)
        return Floating(self._settings, found)

    # -- a project's ------------------------------------------------------------------

    def allocate(self, request: FipRequest) -> FipInfo:
        """:raise Unavailable: none is free. :raise QuotaExceeded: no more may be had. :raise Conflict: the name, or the
        address that was asked for, is taken. :raise NoSpace: the disk is full.
        """
        if request.name:
            self._check_name(request.name)
        id_ = secrets.token_hex(32)
        with self._registry.quotas.admitted({id_: Amounts(addresses=1)}):
            address = self._free(request)
            record = Fip(
                id=id_, name=request.name or address, address=address, created_at=clock.stamp(), **owned()
            )  # fmt: skip
            self._put(record)
        self._tell("allocate", record)
        return self.told(record)

    def _check_name(self, name: str) -> None:
        naming.check("floating address", name)
        if naming.find(self._records.values(), name):
            raise Conflict(f"there is a floating address {name} already", hint="choose another name")

    def _free(self, request: FipRequest) -> str:
        taken = {f.address for f in self._records.values()}
        if request.address:
            return self._asked_for(request.address, taken)
        found = next((a for a in self._settings.addresses(request.version) if a not in taken), "")
        if not found:
            raise Unavailable(f"no floating address of IPv{request.version} is free",
                              hint="the administrator configures pools: fips.pools")  # fmt: skip
        return found

    def _asked_for(self, text: str, taken: set[str]) -> str:
        try:
            address = str(ip_address(text))
        except ValueError as error:
            raise InvalidArgument(f"invalid address {text!r}", hint="write it as 192.0.2.1") from error
        if address in taken or not self._settings.has(address):  # nobody learns which
            raise Conflict(f"the floating address {address} is not to be had", hint="allocate any")
        return address

    def find(self, key: str) -> Fip:
        """By address, name, id, or the beginning of one. :raise NotFound: there is none that one sees."""
        by_address = next((f for f in naming.mine(self._records.values()) if f.address == key), None)
        return by_address or naming.pick(self._records, key, "floating address", "see `hyperctl fip ls`")

    def all(self) -> list[FipInfo]:
        """Those that one sees, by address."""
        seen = naming.seen(self._records.values())
        return [self.told(f) for f in sorted(seen, key=lambda f: (":" in f.address, ip_address(f.address).packed))]

    def told(self, record: Fip) -> FipInfo:
        """With the name of the pod that has it."""
        pod = self._pod_of(record)
        return FipInfo(
            id=record.id, name=record.name, address=record.address, created_at=record.created_at, owner=record.owner,
            pod=pod.name if pod else "",
        )  # fmt: skip

    def _pod_of(self, record: Fip) -> Pod | None:
        return self._registry.pod_by_id(record.pod) if record.pod else None

    def rename(self, key: str, name: str) -> FipInfo:
        """Raises what `find` and `allocate` do."""
        record = self.find(key)
        if name != record.name:
            self._check_name(name)
            record = replace(record, name=name)
            self._put(record)
            self._tell("rename", record)
        return self.told(record)

    def release(self, key: str) -> None:
        """Raises what `find` does. :raise Conflict: a pod has it. :raise NoSpace: the disk is full, and it is there."""
        record = self.find(key)
        if pod := self._pod_of(record):
            raise Conflict(f"{pod.name} has the floating address {record.address}", hint="detach it first")
        self._registry.meter.write(self._registry.journal.write_now, [rows.remove(record)], gone=[record])
        self._records.pop(record.id, None)
        self._tell("release", record)

    # -- pods ---------------------------------------------------------------------------

    async def attach(self, key: str, target: str) -> FipInfo:
        """All that comes to it leads to this pod, and what the pod sends comes from it: at once, and whenever it runs.

        :raise Conflict: another pod has it, or the pod has one. :raise Unsupported: the pod's network cannot do it.
        :raise Unavailable: the kernel refuses; all is as it was.
        """
        async with self._lock:
            record, pod = self.find(key), self._registry.pod(target)
            self._check(record, pod)
            await self._change(record, replace(record, pod=pod.id))
        self._tell("attach", record, pod=pod.name)
        return self.told(self.find(record.id))

    def _check(self, record: Fip, pod: Pod) -> None:
        if other := self._pod_of(record):
            raise Conflict(f"{other.name} has the floating address {record.address}", hint="detach it first")
        six = ":" in record.address
        for f in self._records.values():
            if f.pod == pod.id and (":" in f.address) == six:
                raise Conflict(f"{pod.name} has the floating address {f.address} already", hint="detach it first")
        if self._settings.interface and not links.exists(self._settings.interface):
            raise Unavailable(f"this host has no interface {self._settings.interface} to answer for floating addresses",
                              hint="the administrator configures it: fips.interface")  # fmt: skip
        if any(p.host_ip == record.address for p in pod.ports):
            raise Conflict(f"{pod.name} publishes ports on {record.address}", hint="publish them on another address")
        first = next(iter(pod.attachments), None)
        if first is None:
            raise Unsupported(f"{pod.name} is in no network of this host, and nothing leads to it by an address",
                              hint="run it with --network bridge")  # fmt: skip
        network = self._registry.network_of(first)
        if network.internal:
            raise Conflict(f"the network {network.name} of {pod.name} is internal", hint="use another as its first")
        if six and not first.ip6:
            raise Unsupported(f"{pod.name} has no IPv6 address", hint="use a network that was created with --ipv6")

    async def detach(self, key: str) -> FipInfo:
        """Connections by it are cut. Raises what `find` does. :raise Conflict: no pod has it.
        :raise Unavailable: the kernel refuses; all is as it was.
        """
        async with self._lock:
            record = self.find(key)
            pod = self._pod_of(record)
            if pod is None:
                raise Conflict(f"no pod has the floating address {record.address}", hint="see `hyperctl fip ls`")
            await self._change(record, replace(record, pod=""))
        self._tell("detach", record, pod=pod.name)
        return self.told(self.find(record.id))

    async def _change(self, before: Fip, after: Fip) -> None:
        self._put(after)
        try:
            await self._refresh(before, after)
        except BaseException:
            self._put(replace(self._records[before.id], pod=before.pod))
            await tasks.to_the_end(self._refresh_quietly(before, after))
            raise

    async def _refresh(self, *records: Fip) -> None:
        for pod in [p for record in records if (p := self._pod_of(record))]:
            if shared := self._pods.shared(pod):
                await shared.refresh()

    async def _refresh_quietly(self, *records: Fip) -> None:
        try:
            await self._refresh(*records)
        except HyperError:
            return  # the next change of the rules makes them anew

    def _put(self, record: Fip) -> None:
        self._registry.meter.write(self._registry.journal.write_now, [rows.put(record)], put=[record])
        self._records[record.id] = record

    def _tell(self, action: str, record: Fip, **attributes: str) -> None:
        self._events.publish(
            "fip", action, record.id, of=None, tenant=record.tenant, name=record.name, address=record.address,
            **attributes,
        )  # fmt: skip
