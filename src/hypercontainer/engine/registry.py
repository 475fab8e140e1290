# SPDX-License-Identifier: Apache-2.0
"""What exists: containers and pods, in memory, written through to the database."""

from __future__ import annotations

import re

from ..errors import Conflict, InvalidArgument, NotFound
from ..model.ids import new_name, short
from ..model.status import Container, Pod
from ..state.database import Database

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")


class Registry:
    """The only holder of Container and Pod records."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._containers = {c.id: c for c in database.containers()}
        self._pods = {p.id: p for p in database.pods()}
        self._reserved: set[str] = set()

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
        return [c for c in self._containers.values() if c.pod == pod_id]

    def put_pod(self, pod: Pod) -> None:
        self._db.put_pod(pod)
        self._pods[pod.id] = pod

    def remove_pod(self, id_: str) -> None:
        self._db.remove_pod(id_)
        self._pods.pop(id_, None)
