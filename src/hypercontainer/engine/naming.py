# SPDX-License-Identifier: Apache-2.0
"""What may be a name, and whose it is: names are unique within a tenant."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from ..errors import Conflict, InvalidArgument, NotFound
from ..model import cron, deployments
from ..model.principal import DAEMON, Tenant
from ..model.status import Container
from .principal import current

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")


OWN_LABELS = "io.hypercontainer."  # what labels begin with that say what a container is to this product
# What a container is in a deployment or a job's run: neither its copies nor those of its image are that.
PLACE_LABELS = {deployments.LABEL, deployments.VERSION_LABEL, cron.LABEL, cron.RUN_LABEL}
# A container of the daemon's own has it, with what it is for.
SYSTEM_LABEL = f"{OWN_LABELS}system"


def is_system(container: Container) -> bool:
    """Whether the daemon made it for itself: it is listed only for who asks for such. Anybody may set a label."""
    return container.owner == DAEMON.name and SYSTEM_LABEL in container.spec.labels


class Named(Protocol):
    """A record of something that has a name."""

    @property
    def name(self) -> str:
        """By which people call it; unique for its tenant."""

    @property
    def tenant(self) -> Tenant:
        """Whose it is."""


N = TypeVar("N", bound=Named)


class Identified(Named, Protocol):
    """One that has an id beside its name."""

    @property
    def id(self) -> str:
        """Which no other has."""


Kept = TypeVar("Kept", bound=Identified)


def check(kind: str, name: str) -> None:
    """:raise InvalidArgument: it is malformed."""
    if not _NAME.match(name):
        raise InvalidArgument(
            f"invalid {kind} name {name!r}",
            hint="use letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )


def hostname_of(pod: str) -> str:
    """What a pod of this name is called on its network where nothing else was chosen."""
    return pod[:63].rstrip("-._").replace("_", "-").lower()


def is_seen(record: Named) -> bool:
    """Whether it is there for who asks: it is their tenant's, or the daemon asks for itself."""
    who = current()
    return record.tenant == who.tenant or who.name == DAEMON.name


def mine(records: Iterable[N]) -> Iterable[N]:
    """Those of the tenant that asks."""
    tenant = current().tenant
    return (r for r in records if r.tenant == tenant)


def seen(records: Iterable[N]) -> list[N]:
    """Those that are there for who asks; for the daemon itself, all."""
    return [r for r in records if is_seen(r)]


def find(records: Iterable[N], name: str) -> N | None:
    """The one of this name, of the tenant that asks."""
    return next((r for r in mine(records) if r.name == name), None)


def pick(records: Mapping[str, Kept], key: str, kind: str, hint: str) -> Kept:
    """By id, name, or the beginning of an id, of the tenant that asks; by its id the daemon itself finds any.

    :raise NotFound: there is none, or several; `kind` and `hint` are words for people.
    """
    if (whole := records.get(key)) and is_seen(whole):
        return whole
    if named := find(records.values(), key):
        return named
    found = [r for r in mine(records.values()) if len(key) >= 4 and r.id.startswith(key)]
    if len(found) != 1:
        raise NotFound(f"no such {kind}: {key}", hint=hint)
    return found[0]


class Holds:
    """Names of things that are being made: nobody else gets one meanwhile."""

    def __init__(self, kind: str) -> None:
        """`kind` is a word for people."""
        self._kind = kind
        self._held: set[tuple[Tenant, str]] = set()

    @contextlib.contextmanager
    def hold(self, name: str, known: Iterable[Named]) -> Iterator[str]:
        """`known` are those that have been made. :raise Conflict: somebody has the name."""
        held = (current().tenant, name)
        if held in self._held or find(known, name):
            raise Conflict(f"the name {name!r} is taken by another {self._kind}", hint="choose another, or remove it")
        self._held.add(held)
        try:
            yield name
        finally:
            self._held.discard(held)
