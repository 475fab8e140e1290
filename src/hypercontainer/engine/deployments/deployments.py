# SPDX-License-Identifier: Apache-2.0
"""The deployments that there are, and which containers their addresses lead to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec.structs import replace

from ...errors import Conflict, InvalidArgument, InvalidState
from ...model.deployments import (
    LABEL,
    VERSION_LABEL,
    BalancedPort,
    Deployment,
    DeploymentInfo,
    DeploymentRequest,
    DeploymentUpdate,
    Replica,
)  # fmt: skip
from ...model.network import DEFAULT_NETWORK, Network
from ...model.quotas import Amounts
from ...model.specs import ContainerSpec, PortMapping, RestartPolicy
from ...model.states import ALIVE
from ...model.status import Container, ContainerStatus
from ...network.balanced import Balanced
from ...network.usermode import bindable
from ...state import changes as rows
from ...sys import clock
from .. import host_access, naming
from ..events import Events
from ..networks import Networks
from ..principal import own_scopes, owned
from ..registry import Registry

_NAME_MAX = 56  # characters: its containers' names have six digits more, and are host names
Progress = Literal["complete", "progressing", "paused"]
State = Literal["starting", "ready", "unhealthy", "draining", "ended"]


class Deployments:
    """The only holder of these records."""

    def __init__(self, registry: Registry, networks: Networks, events: Events) -> None:
        self._registry = registry
        self._networks = networks
        self._events = events
        self._records = {d.id: d for d in registry.journal.database.deployments()}
        self.draining: set[str] = set()  # containers that get no new connections, and end
        # Containers whose ports have answered; of those that run already, whatever hyperd began them, it was known.
        self.answered = {c.id for c in registry.containers() if c.state.status is ContainerStatus.RUNNING}
        self._silent: dict[str, str] = {}  # containers that run and have not answered -> what does not
        self.changed = asyncio.Event()  # pulsed when one is to be another
        self._known: tuple[object, tuple[Balanced, ...]] | None = None
        registry.balanced, registry.keeps = self.balanced, self._in_network
        registry.quotas.publishing = registry.quotas.counted["deployments"] = self.records

    # -- what people ask ------------------------------------------------------------

    def create(self, request: DeploymentRequest) -> DeploymentInfo:
        """:raise InvalidArgument: what is wrong with it. :raise Conflict: its name, or a port, is taken.
        :raise NotFound: no such network. :raise NoSpace: the disk is full. :raise PermissionDenied: its containers
        take more of this host than who asks may have. :raise QuotaExceeded: no more may be had.
        """
        self._check_name(request.name)
        _check_container(request.container)
        self._check_ports(request.ports)
        id_ = secrets.token_hex(32)
        ports = sum(bool(p.host_port) for p in request.ports)
        with self._registry.quotas.admitted({id_: Amounts(deployments=1, ports=ports)}):
            return self._create(request, id_)

    def _create(self, request: DeploymentRequest, id_: str) -> DeploymentInfo:
        network = self._networks.find(request.network or DEFAULT_NETWORK)
        self._check_found(network, request.name)
        record = Deployment(
            id=id_, name=request.name, created_at=clock.stamp(), container=request.container,
            replicas=request.replicas, network=network.id, ports=request.ports, sticky=request.sticky,
            address=self._networks.free_address(network) if request.ports else "", update=request.update,
            scopes=own_scopes(), **owned(),
        )  # fmt: skip
        self.put(record)
        self._tell("create", record)
        return self.told(record)

    def _check_name(self, name: str) -> None:
        naming.check("deployment", name)
        if len(name) > _NAME_MAX:
            raise InvalidArgument(
                f"a deployment's name has {_NAME_MAX} characters at most", hint="choose a shorter one"
            )
        if naming.find(self._records.values(), name):
            raise Conflict(f"there is a deployment {name} already", hint="update it, or choose another name")

    def _check_found(self, network: Network, name: str) -> None:
        """:raise Conflict: another is found by this name there."""
        others = (d for d in self._records.values() if d.network == network.id)
        found = next((f"deployment {d.name}" for d in others if d.name.lower() == name.lower()), "")
        if not found and (pod := self._networks.named(network, name)):
            found = f"pod {pod}"
        if found:
            raise Conflict(f"the {found} is found as {name} in network {network.name}", hint="choose another name")

    def _check_ports(self, ports: list[BalancedPort]) -> None:
        for n, port in enumerate(ports):
            if (port.port, port.protocol) in {(p.port, p.protocol) for p in ports[:n]}:
                raise InvalidArgument(f"port {port.port}/{port.protocol} is named twice", hint="name it once")
            if port.host_port:
                self._check_host_port(port)

    def _check_host_port(self, port: BalancedPort) -> None:
        where = f"{port.host_port}/{port.protocol}"
        mapping = PortMapping(container_port=port.target, host_port=port.host_port, protocol=port.protocol)
        taken = bool(self._networks.port_user(mapping))
        try:
            bindable(mapping)
        except OSError:
            taken = True
        if taken:
            raise Conflict(f"cannot publish port {where}: it is in use", hint="choose another with -p")

    def all(self) -> list[DeploymentInfo]:
        """Those that one sees, by name."""
        return [self.told(d) for d in sorted(naming.seen(self._records.values()), key=lambda d: d.name)]

    def find(self, key: str) -> Deployment:
        """By id, name, or the beginning of an id. :raise NotFound: there is none that one sees."""
        return naming.pick(self._records, key, "deployment", "see `hyperctl deployment ls`")

    def _in_network(self, network: str) -> list[str]:
        return sorted(f"deployment {d.name}" for d in self._records.values() if d.network == network)

    def info(self, key: str) -> DeploymentInfo:
        """Raises what `find` does."""
        return self.told(self.find(key))

    def update(self, key: str, wanted: DeploymentUpdate) -> DeploymentInfo:
        """Raises what `find` and `create` do. What has failed is tried again."""
        record = replace(self._staying(key), paused=False, message="", scopes=own_scopes())
        if wanted.container is not msgspec.UNSET:
            _check_container(wanted.container)
            record = replaced(record, wanted.container)
        for name in ("replicas", "sticky", "update"):
            if (value := getattr(wanted, name)) is not msgspec.UNSET:
                record = replace(record, **{name: value})
        self.put(record)
        self._tell("update", record)
        return self.told(record)

    def _staying(self, key: str) -> Deployment:
        """:raise InvalidState: it is being removed."""
        record = self.find(key)
        if record.removing:
            raise InvalidState(f"the deployment {record.name} is being removed", hint="make another when it is gone")
        return record

    def roll_back(self, key: str) -> DeploymentInfo:
        """To what it was before. Raises what `find` does. :raise InvalidState: it was never another."""
        record = self._staying(key)
        if record.previous is None:
            raise InvalidState(f"the deployment {record.name} was never updated", hint="there is nothing to go back to")
        record = replace(returned(record), paused=False, message="")
        self.put(record)
        self._tell("rollback", record)
        return self.told(record)

    # -- for the keeper -------------------------------------------------------------

    def records(self) -> list[Deployment]:
        """Everybody's."""
        return list(self._records.values())

    def get(self, id_: str) -> Deployment | None:
        """Whosever it is; None: it was removed."""
        return self._records.get(id_)

    def put(self, record: Deployment) -> None:
        """:raise NoSpace: when the disk is full."""
        self._registry.journal.write_now(rows.put(record))
        self._records[record.id] = record
        self._pulse()

    def note(self, id_: str, message: str, *, paused: bool = False) -> None:
        """What went wrong with it, when that can be written."""
        record = self._records.get(id_)
        if record and (record.message, record.paused) != (message, paused or record.paused):
            record = replace(record, message=message, paused=paused or record.paused)
            self._records[id_] = record
            self._registry.journal.write(rows.put(record))
            if message:
                self._tell("fail", record, error=message)

    def forget(self, record: Deployment) -> None:
        """:raise NoSpace: the disk is full, and it is there still."""
        self._registry.journal.write_now(rows.remove(record))
        self._records.pop(record.id, None)
        self._pulse()
        self._tell("destroy", record)

    def _tell(self, action: str, record: Deployment, **attributes: str) -> None:
        self._events.publish(
            "deployment", action, record.id, of=None, tenant=record.tenant, name=record.name, **attributes
        )

    def _pulse(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def members(self, record: Deployment) -> list[Container]:
        """Its containers, oldest first, also those that have ended."""
        found = [
            c for c in self._registry.of_tenant(record.tenant).containers if c.spec.labels.get(LABEL) == record.id
        ]  # fmt: skip
        return sorted(found, key=lambda c: c.created_at)

    def state_of(self, container: Container) -> State:
        """Whether connections are to go to it."""
        state = container.state
        if state.status not in ALIVE:
            return "ended" if state.status is not ContainerStatus.CREATED else "starting"
        if container.id in self.draining:
            return "draining"
        if state.status is not ContainerStatus.RUNNING or state.starting:
            return "starting"
        if state.health and state.health.status != "healthy":
            return "unhealthy" if state.health.status == "unhealthy" else "starting"
        return "ready" if container.id in self.answered else "starting"

    def unasked(self, record: Deployment) -> list[tuple[Container, str]]:
        """Containers that are ready as far as their programs go, and their addresses; no port was asked yet."""
        members = self.members(record)
        ended = {c.id for c in members if c.state.status is not ContainerStatus.RUNNING or c.state.starting}
        if self.answered & ended:  # one that is started again is asked again
            self.answered -= ended
        return [
            (c, self._ip(record, c)) for c in members
            if c.id not in self.answered | self.draining and c.state.status is ContainerStatus.RUNNING
            and not c.state.starting and not (c.state.health and c.state.health.status != "healthy")
        ]  # fmt: skip

    def answers(self, container: Container) -> None:
        """From now on connections may go to it."""
        self.answered = {*filter(self._registry.exists, self.answered), container.id}
        self._silent.pop(container.id, None)
        self._known = None

    def is_silent(self, container: Container, what: str) -> None:
        """For people; `what` of it does not answer."""
        there = {id_: said for id_, said in self._silent.items() if self._registry.exists(id_)}
        self._silent = there | {container.id: what}

    def balanced(self) -> tuple[Balanced, ...]:
        """What the host's rules are to spread now; asked for often, and by each question of a name."""
        if not self._records:
            return ()
        state = (self._registry.changed, self.changed, frozenset(self.draining))
        if self._known is None or self._known[0] != state:
            self._known = (state, tuple(self._spread()))
        return self._known[1]

    def _spread(self) -> Iterator[Balanced]:
        ready: dict[str, list[Container]] = {}
        for container in self._registry.containers():
            if (id_ := container.spec.labels.get(LABEL, "")) and self.state_of(container) == "ready":
                ready.setdefault(id_, []).append(container)
        for d in [d for d in self._records.values() if d.ports]:
            mine = (c for c in ready.get(d.id, ()) if c.tenant == d.tenant)
            targets = tuple(sorted(ip for c in mine if (ip := self._ip(d, c))))
            for p in d.ports:
                yield Balanced(
                    d.id, d.name, d.network, d.address, p.port, p.protocol, p.target, targets, d.sticky, p.host_port
                )

    def _ip(self, record: Deployment, container: Container) -> str:
        pod = self._registry.known_pod(container.pod) if self._registry.has_pod(container.pod) else None
        return next((a.ip for a in (pod.attachments if pod else ()) if a.network_id == record.network), "")

    def _replica(self, record: Deployment, c: Container) -> Replica:
        state = self.state_of(c)
        silent = self._silent.get(c.id, "") if state == "starting" else ""
        return Replica(
            container=c.id, name=c.name, version=version_of(c), state=state, ip=self._ip(record, c), message=silent
        )

    def told(self, record: Deployment) -> DeploymentInfo:
        """With its replicas."""
        members = [self._replica(record, c) for c in self.members(record)]
        alive = [m for m in members if m.state != "ended"]
        ready = sum(m.state == "ready" for m in alive)
        done = ready == len(alive) == record.replicas and all(m.version == record.version for m in alive)
        state: Progress = "complete" if done else "progressing"
        names = {n.id: n.name for n in self._registry.networks()}
        return DeploymentInfo(
            id=record.id, name=record.name, created_at=record.created_at, container=record.container,
            replicas=record.replicas, ready=ready, network=names.get(record.network, record.network),
            address=record.address, ports=record.ports, sticky=record.sticky, update=record.update,
            version=record.version, state="paused" if record.paused and not done else state,
            message=record.message, members=members, owner=record.owner,
        )  # fmt: skip


def version_of(container: Container) -> int:
    """Of the specification that it was made by."""
    text = container.spec.labels.get(VERSION_LABEL, "")
    return int(text) if text.isdecimal() else 0


def replaced(record: Deployment, container: ContainerSpec) -> Deployment:
    """With another container, unless it is the same."""
    if container == record.container:
        return record
    return replace(
        record, container=container, version=record.latest + 1, latest=record.latest + 1,
        previous=record.container, previous_version=record.version,
    )  # fmt: skip


def returned(record: Deployment) -> Deployment:
    """As it was before its last update, of which replicas may be there still."""
    assert record.previous is not None
    return replace(
        record, container=record.previous, version=record.previous_version, previous=record.container,
        previous_version=record.version,
    )  # fmt: skip


def _check_container(spec: ContainerSpec) -> None:
    """:raise InvalidArgument: it asks for what a deployment sees to, or has no image. :raise PermissionDenied: it
    takes more of this host than who asks may have.
    """
    if not spec.image:
        raise InvalidArgument("a deployment's containers need an image", hint="name one")
    for given, flag, why in (
        (spec.name, "--name", "each replica has a name of its own"),
        (spec.pod, "--pod", "each replica has a machine of its own"),
        (spec.auto_remove, "--rm", "replicas that have ended are removed anyhow"),
        (spec.restart != RestartPolicy(), "--restart", "one that has ended is replaced"),
        (spec.ports, "--publish", "the ports are the deployment's"),
        (spec.network or spec.networks, "--network", "the network is the deployment's"),
        (spec.bound, "bound", "nobody waits for it"),
    ):
        if given:
            raise InvalidArgument(f"{flag} is nothing for a replica: {why}", hint="leave it out")
    host_access.check_container(spec)
