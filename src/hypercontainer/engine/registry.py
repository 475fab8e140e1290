# SPDX-License-Identifier: Apache-2.0
"""What exists: containers and pods, in memory first, and in the database as soon as it can be written.

What creates a record is written first: on a full disk it is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from ..errors import Conflict, HyperError, InvalidArgument, NotFound
from ..model.fips import Fip
from ..model.ids import new_name, short
from ..model.network import Attachment, Network
from ..model.policy import Policy
from ..model.principal import DAEMON, Tenant
from ..model.status import Container, Pod, Volume
from ..network.balanced import Balanced
from ..network.floating import Floating
from ..state import changes as rows
from ..state.journal import Journal
from ..state.store import SetAside, Store
from . import naming
from .group_records import GroupRecords
from .indexed import Indexed, R
from .metered import Metering, Unmetered
from .principal import current
from .quotas.quotas import Belongings, Quotas

log = logging.getLogger(__name__)
_GONE = 1000  # records that were removed, of which it is known whose they were


class Registry:
    """The only holder of Container and Pod records."""

    def __init__(self, database: Store) -> None:
        self.journal = Journal(database)
        self._containers = Indexed(((c.id, c) for c in database.containers()), lambda c: [c.pod])
        self._pods = Indexed(((p.id, p) for p in database.pods()), _places)
        self._volumes = Indexed((rows.key(v), v) for v in database.volumes())
        self._networks = Indexed((n.id, n) for n in database.networks())
        self.unfinished = database.unfinished()  # ids of what an earlier daemon had begun to make or to remove
        self.set_aside = database.set_aside()  # records that cannot be read
        self.undriven: dict[str, int] = {}  # pods set aside for want of a driver, and their machines' processes
        self._gone: dict[str, Tenant] = {}  # ids of what was removed lately, of those that have a tenant
        self._reserved: set[tuple[Tenant, str]] = set()
        self.groups = GroupRecords(self.journal)
        self.quotas = Quotas(self)
        self.quotas.counted["security_groups"] = self.groups.all
        self.meter: Metering = Unmetered()
        self.fips: Callable[[], list[Fip]] = list  # everybody's; set by who knows, as what follows
        self.floating: Callable[[], Floating] = Floating  # addresses of pods
        self.keeps: Callable[[str], list[str]] = lambda network: []  # what needs a network beside its pods
        self.balanced: Callable[[], tuple[Balanced, ...]] = lambda: ()
        self.policy_of: Callable[[Tenant], Policy | None] = lambda tenant: None  # of a project
        self.on_change: Callable[[str], None] = lambda pod_id: None  # called when a pod's or a member's record changes
        self.changed = asyncio.Event()  # pulsed when a container's or a pod's record changes

    # -- names ------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: taken."""
        naming.check("container", name)
        if holder := naming.find(self._containers.of(current().tenant), name):
            raise Conflict(
                f"the name {name!r} is taken by container {short(holder.id)}", hint="remove or rename that container"
            )
        if (current().tenant, name) in self._reserved:
            raise Conflict(f"the name {name!r} is about to be taken by another container", hint="choose another")

    def reserve(self, name: str) -> str:
        """Hold a name (a generated one for "") until `release`."""
        if name:
            self.check_name(name)
        while not name:
            candidate = new_name()
            taken = naming.find(self._containers.of(current().tenant), candidate)
            if not taken and (current().tenant, candidate) not in self._reserved:
                name = candidate
        self._reserved.add((current().tenant, name))
        return name

    def release(self, name: str) -> None:
        self._reserved.discard((current().tenant, name))

    def containers(self, *, seen: bool = False) -> list[Container]:
        """Everybody's, newest first; `seen`: those that are there for who asks."""
        return sorted(_those(self._containers, seen), key=lambda c: c.created_at, reverse=True)

    def shown(self) -> list[Container]:
        """Those that people of the tenant that asks made: without the daemon's own, which are found by their names all
        the same.
        """
        return [c for c in self.containers(seen=True) if not naming.is_system(c)]

    def container(self, key: str) -> Container:
        """By id, name, or a unique prefix of an id, of the tenant that asks; by its id the daemon itself finds any.

        :raise NotFound: none. :raise InvalidArgument: ambiguous.
        """
        wanted = key.removeprefix("/")
        if (whole := self._containers.get(wanted)) and naming.is_seen(whole):
            return whole
        if container := naming.find(self._containers.of(current().tenant), wanted):
            return container
        found = [c for c in self._containers.of(current().tenant) if wanted and c.id.startswith(wanted)]
        if len(found) > 1:
            raise InvalidArgument(f"container id {key!r} is ambiguous", hint="give more digits")
        if not found:
            raise NotFound(
                f"no such container: {key}", hint=self._why_not("containers", wanted) or "see `hyperctl ps -a`"
            )
        return found[0]

    def _why_not(self, kind: str, key: str) -> str:
        """Whose such a record was is not known: the host's people are told of it."""
        if current().tenant:
            return ""
        unread = next(
            (s for s in self.set_aside if s.kind == kind and key and (key == s.name or s.id.startswith(key))), None
        )
        return f"its record was set aside: {unread.why}" if unread else ""

    def put_aside(self, pod: Pod, why: str) -> None:
        """A pod of which this daemon can make nothing, with its containers: it goes on, and the next one finds it."""
        records: list[Container | Pod] = [*self.members(pod.id), pod]
        for record in records:
            kind = rows.table(type(record))
            try:
                self.journal.database.move_aside(kind, record.id, why)
            except HyperError as error:  # it stays in its place, and is passed over again by the next daemon
                log.error("the record of %s is not set aside in the database: %s", record.name, error)
            self.set_aside.append(SetAside(kind, record.id, record.name, why, pod.id))
            self._containers.pop(record.id)
        self._pods.pop(pod.id)
        if pod.vm:
            self.undriven[pod.id] = pod.vm.pid

    def forget_aside(self, aside: SetAside) -> None:
        """:raise NoSpace: when the disk is full."""
        self.journal.database.forget_aside(aside.kind, aside.id)
        self.set_aside.remove(aside)

    def exists(self, id_: str) -> bool:
        """Whether there is a container of this id."""
        return id_ in self._containers

    def put(self, container: Container) -> None:
        """:raise InvalidArgument: a value that could not be read back."""
        change = rows.put(container)
        self._containers[container.id] = container
        self.journal.write(change)
        self._pulse(container)

    def put_together(self, pod: Pod, *containers: Container) -> None:
        """What is there by one change, so that no daemon finds half of it."""
        changes = [rows.put(pod), *map(rows.put, containers)]
        self._pods[pod.id] = pod
        for container in containers:
            self._containers[container.id] = container
        self.meter.write(self.journal.write, changes, put=[pod])
        self._pulse(pod, *containers)

    # -- making and removing ----------------------------------------------------

    def begin(self, id_: str) -> None:
        """Files of this id are made from now on: a crash before `create` with `done` removes them again.

        :raise NoSpace: when the disk is full.
        """
        self.journal.write_now(rows.begun(id_))

    def begin_to_remove(self, id_: str) -> None:
        """All of this id goes from now on: a crash before its end lets the next daemon go on with it."""
        self.journal.write(rows.begun(id_))

    def create(self, *records: Container | Pod, done: str = "") -> None:
        """All of them, or none; `done` is the id that was begun, and has all its files now.

        :raise NoSpace: when the disk is full. :raise InvalidArgument: a value that could not be read back.
        """
        changes = [*map(rows.put, records), *([rows.finished(done)] if done else [])]
        self.meter.write(self.journal.write_now, changes, put=records)
        for record in records:
            if isinstance(record, Pod):
                self._pods[record.id] = record
            else:
                self._containers[record.id] = record
        self._pulse(*records)

    def erase(self, *records: Container | Pod, files: str = "") -> None:
        """Together. The files of the id `files` are removed next, by the next daemon if this one cannot."""
        for record in records:
            (self._pods if isinstance(record, Pod) else self._containers).pop(record.id)
            self._forget(record)
        changes = [*([rows.begun(files)] if files else []), *map(rows.remove, records)]
        self.meter.write(self.journal.write, changes, gone=records)
        self._pulse(*records)

    def finish(self, id_: str) -> None:
        """Nothing is left of what was begun, or was removed."""
        self.journal.later(rows.finished(id_))

    def _pulse(self, *records: Container | Pod) -> None:
        for record in records:
            self.on_change(record.id if isinstance(record, Pod) else record.pod)
        self.changed.set()
        self.changed = asyncio.Event()

    def in_use(self) -> dict[str, list[str]]:
        """Of the tenant that asks: image id -> names of the containers made from it, and of the pods that have it as a
        volume.
        """
        users: dict[str, list[str]] = {}
        for container in self.containers(seen=True):
            users.setdefault(container.image_id, []).append(container.name)
        for pod in self.pods(seen=True):
            for names in (users.setdefault(v.source, []) for v in pod.volumes if v.kind == "image"):
                names += [pod.name] if pod.name not in names else []
        return users

    # -- pods -------------------------------------------------------------------

    def pods(self, *, seen: bool = False) -> list[Pod]:
        """As `containers`."""
        return sorted(_those(self._pods, seen), key=lambda p: p.created_at, reverse=True)

    def pod(self, key: str) -> Pod:
        """As `container`. :raise NotFound: when there is none of that id or name."""
        if (whole := self._pods.get(key)) and naming.is_seen(whole):
            return whole
        if pod := naming.find(self._pods.of(current().tenant), key):
            return pod
        found = [p for p in self._pods.of(current().tenant) if key and p.id.startswith(key)]
        if len(found) != 1:
            raise NotFound(f"no such pod: {key}", hint=self._why_not("pods", key) or "see `hyperctl list pod`")
        return found[0]

    def known_pod(self, id_: str) -> Pod:
        """Whosever it is: for what one task does for all, whoever's request began it."""
        return self._pods[id_]

    def tenant_of(self, id_: str) -> Tenant:
        """Of a container, pod or network that is there, or has just gone; else that which asks."""
        found = self._containers.get(id_) or self._pods.get(id_) or self._networks.get(id_)
        return found.tenant if found else self._gone.get(id_, current().tenant)

    def _forget(self, record: Container | Pod | Network) -> None:
        """What is told of it yet is its tenant's."""
        if record.tenant:
            self._gone[record.id] = record.tenant
            while len(self._gone) > _GONE:
                del self._gone[next(iter(self._gone))]

    def members(self, pod_id: str) -> list[Container]:
        """In the order of their creation."""
        return sorted(self._containers.group(pod_id), key=lambda c: c.created_at)

    def check_pod_name(self, name: str) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: taken."""
        naming.check("pod", name)
        if naming.find(self._pods.of(current().tenant), name):
            raise Conflict(
                f"the name {name!r} is taken by another pod", hint=f"remove it with `hyperctl pod rm {name}`"
            )

    def has_pod(self, id_: str) -> bool:
        """Whether there is a pod of this id."""
        return id_ in self._pods

    def put_pod(self, pod: Pod) -> None:
        """Record a pod, new or changed."""
        change = rows.put(pod)
        self._pods[pod.id] = pod
        self.meter.write(self.journal.write, [change], put=[pod])
        self._pulse(pod)

    # -- volumes ----------------------------------------------------------------

    def volumes(self, *, seen: bool = False) -> list[Volume]:
        """As `containers`, by their names."""
        return sorted(_those(self._volumes, seen), key=lambda v: v.name)

    def find_volume(self, name: str) -> Volume | None:
        """That of the tenant that asks."""
        return self._volumes.get(rows.volume_key(name, current().tenant))

    def volume(self, name: str) -> Volume:
        """:raise NotFound: when there is none."""
        if volume := self.find_volume(name):
            return volume
        raise NotFound(f"no such volume: {name}", hint="see `hyperctl volume ls`")

    def put_volume(self, volume: Volume) -> None:
        """:raise NoSpace: when the disk is full."""
        self.meter.write(self.journal.write_now, [rows.put(volume)], put=[volume])
        self._volumes[rows.key(volume)] = volume

    def remove_volume(self, volume: Volume) -> None:
        """Idempotent."""
        if self._volumes.pop(rows.key(volume)):
            self.meter.write(self.journal.write, [rows.remove(volume)], gone=[volume])

    # -- networks ---------------------------------------------------------------

    def networks(self, *, seen: bool = False) -> list[Network]:
        """As `containers`, by their names."""
        return sorted(_those(self._networks, seen), key=lambda n: n.name)

    def network(self, key: str) -> Network:
        """By name or id, of the tenant that asks; by its id the daemon itself finds any.

        :raise NotFound: when there is none.
        """
        if (whole := self._networks.get(key)) and naming.is_seen(whole):
            return whole
        for network in self._networks.of(current().tenant):
            if key == network.name or (len(key) >= 4 and network.id.startswith(key)):
                return network
        raise NotFound(f"no such network: {key}", hint="see `hyperctl network ls`")

    def check_network_name(self, name: str) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: taken."""
        naming.check("network", name)
        if naming.find(self._networks.of(current().tenant), name):
            raise Conflict(f"the name {name!r} is taken by another network", hint="choose another")

    def put_network(self, network: Network) -> None:
        """:raise NoSpace: when the disk is full."""
        self.journal.write_now(rows.put(network))
        self._networks[network.id] = network

    def remove_network(self, id_: str) -> None:
        """Forget a network's record. Idempotent."""
        if network := self._networks.pop(id_):
            self._forget(network)
            self.journal.write(rows.remove(network))

    def network_of(self, attachment: Attachment) -> Network:
        """Whosever it is. :raise NotFound: it is gone."""
        if found := self._networks.get(attachment.network_id):
            return found
        for network in self._networks.values():
            if attachment.is_of(network):
                return network
        raise NotFound(f"no such network: {attachment.network}", hint="see `hyperctl network ls`")

    def attached(self, network: Network) -> list[Pod]:
        """The pods of a network."""
        found = {p.id: p for key in (network.id, network.name) for p in self._pods.group(key)}
        return [p for p in found.values() if any(a.is_of(network) for a in p.attachments)]

    def pods_at(self, address: str) -> Collection[Pod]:
        """Those that have it in a network."""
        return self._pods.group(address)

    def pod_by_id(self, id_: str) -> Pod | None:
        """Whosever it is; None: it is gone."""
        return self._pods.get(id_)

    def of_tenant(self, tenant: Tenant) -> Belongings:
        """All that is one tenant's."""
        return Belongings(
            self._pods.of(tenant), self._containers.of(tenant), self._volumes.of(tenant), self._networks.of(tenant)
        )

    def volume_users(self, name: str) -> list[Pod]:
        """The pods of the tenant that asks which have its volume of this name."""
        return [p for p in self._pods.of(current().tenant) if any(v.named == name for v in p.volumes)]


def _those(records: Indexed[R], seen: bool) -> Collection[R]:
    """Everybody's, or those that are there for who asks; for the daemon itself all are."""
    who = current()
    return records.of(who.tenant) if seen and who.name != DAEMON.name else records.values()


def _places(pod: Pod) -> list[str]:
    """By what a pod is found in networks: their ids, or names in records that are older than these, and addresses."""
    return [x for a in pod.attachments for x in (a.network_id or a.network, a.ip, a.ip6)]
