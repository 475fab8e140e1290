# SPDX-License-Identifier: Apache-2.0
"""What exists: containers and pods, in memory, written through to the database."""

from __future__ import annotations

import asyncio
import re

from ..errors import Conflict, InvalidArgument, NotFound
from ..model.ids import new_name, short
from ..model.network import Network
from ..model.status import Container, Pod, Volume
from ..state.database import Database

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")


class Registry:
    """The only holder of Container and Pod records."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._containers = {c.id: c for c in database.containers()}
        self._pods = {p.id: p for p in database.pods()}
        self._volumes = {v.name: v for v in database.volumes()}
        self._networks = {n.id: n for n in database.networks()}
        self._reserved: set[str] = set()
        self.changed = asyncio.Event()  # pulsed when a container's or a pod's record changes

    # -- names ------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: taken."""
        if not _NAME.match(name):
            raise InvalidArgument(f"invalid container name {name!r}",
                                  hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit")  # fmt: skip
        owner = next((c for c in self._containers.values() if c.name == name), None)
        if owner:
            raise Conflict(f"the name {name!r} is taken by container {short(owner.id)}", hint="remove or rename that container")
        if name in self._reserved:
            raise Conflict(f"the name {name!r} is about to be taken by another container", hint="choose another")

    def reserve(self, name: str) -> str:
        """Hold a name (a generated one for "") until `release`."""
        if name:
            self.check_name(name)
        while not name:
            candidate = new_name()
            if candidate not in self._reserved and not any(c.name == candidate for c in self._containers.values()):
                name = candidate
        self._reserved.add(name)
        return name

    def release(self, name: str) -> None:
        self._reserved.discard(name)

    # -- containers -------------------------------------------------------------

    def containers(self) -> list[Container]:
        """Newest first."""
        return sorted(self._containers.values(), key=lambda c: c.created_at, reverse=True)

    def container(self, key: str) -> Container:
        """By name, id or unique prefix of an id.

        :raise NotFound: none. :raise InvalidArgument: ambiguous.
        """
        wanted = key.removeprefix("/")
        if wanted in self._containers:
            return self._containers[wanted]
        for container in self._containers.values():
            if container.name == wanted:
                return container
        found = [c for i, c in self._containers.items() if wanted and i.startswith(wanted)]
        if len(found) > 1:
            raise InvalidArgument(f"container id {key!r} is ambiguous", hint="give more digits")
        if not found:
            raise NotFound(f"no such container: {key}", hint="see `hyperctl ps -a`")
        return found[0]

    def exists(self, id_: str) -> bool:
        return id_ in self._containers

    def put(self, container: Container) -> None:
        self._db.put_container(container)
        self._containers[container.id] = container
        self._pulse()

    def _pulse(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def remove(self, id_: str) -> None:
        self._db.remove_container(id_)
        self._containers.pop(id_, None)

    def in_use(self) -> dict[str, list[str]]:
        """Image id -> names of the containers made from it."""
        users: dict[str, list[str]] = {}
        for container in self.containers():
            users.setdefault(container.image_id, []).append(container.name)
        return users

    # -- pods -------------------------------------------------------------------

    def pods(self) -> list[Pod]:
        return sorted(self._pods.values(), key=lambda p: p.created_at, reverse=True)

    def pod(self, key: str) -> Pod:
        """:raise NotFound: when there is none of that id or name."""
        for pod in self._pods.values():
            if key in (pod.id, pod.name):
                return pod
        found = [p for i, p in self._pods.items() if key and i.startswith(key)]
        if len(found) != 1:
            raise NotFound(f"no such pod: {key}", hint="see `hyperctl list pod`")
        return found[0]

    def members(self, pod_id: str) -> list[Container]:
        """In the order of their creation."""
        return sorted((c for c in self._containers.values() if c.pod == pod_id), key=lambda c: c.created_at)

    def check_pod_name(self, name: str) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: taken."""
        if not _NAME.match(name):
            raise InvalidArgument(f"invalid pod name {name!r}",
                                  hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit")  # fmt: skip
        if any(p.name == name for p in self._pods.values()):
            raise Conflict(f"the name {name!r} is taken by another pod", hint=f"remove it with `hyperctl pod rm {name}`")

    def has_pod(self, id_: str) -> bool:
        return id_ in self._pods

    def put_pod(self, pod: Pod) -> None:
        self._db.put_pod(pod)
        self._pods[pod.id] = pod
        self._pulse()

    def remove_pod(self, id_: str) -> None:
        self._db.remove_pod(id_)
        self._pods.pop(id_, None)

    # -- volumes ----------------------------------------------------------------

    def volumes(self) -> list[Volume]:
        return sorted(self._volumes.values(), key=lambda v: v.name)

    def find_volume(self, name: str) -> Volume | None:
        return self._volumes.get(name)

    def volume(self, name: str) -> Volume:
        """:raise NotFound: when there is none."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"no such volume: {name}", hint="see `hyperctl volume ls`") from None

    def put_volume(self, volume: Volume) -> None:
        self._db.put_volume(volume)
        self._volumes[volume.name] = volume

    def remove_volume(self, name: str) -> None:
        self._db.remove_volume(name)
        self._volumes.pop(name, None)

    # -- networks ---------------------------------------------------------------

    def networks(self) -> list[Network]:
        return sorted(self._networks.values(), key=lambda n: n.name)

    def network(self, key: str) -> Network:
        """By name or id.

        :raise NotFound: when there is none.
        """
        for network in self._networks.values():
            if key == network.name or (len(key) >= 4 and network.id.startswith(key)):
                return network
        raise NotFound(f"no such network: {key}", hint="see `hyperctl network ls`")

    def check_network_name(self, name: str) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: taken."""
        if not _NAME.match(name):
            raise InvalidArgument(f"invalid network name {name!r}",
                                  hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit")  # fmt: skip
        if any(n.name == name for n in self._networks.values()):
            raise Conflict(f"the name {name!r} is taken by another network", hint="choose another")

    def put_network(self, network: Network) -> None:
        self._db.put_network(network)
        self._networks[network.id] = network

    def remove_network(self, id_: str) -> None:
        self._db.remove_network(id_)
        self._networks.pop(id_, None)

    def attached(self, name: str) -> list[Pod]:
        """The pods of a network."""
        return [p for p in self._pods.values() if any(a.network == name for a in p.attachments)]

    def volume_users(self, name: str) -> list[Pod]:
        return [p for p in self._pods.values() if any(v.named == name for v in p.volumes)]
