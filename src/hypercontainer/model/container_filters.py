# SPDX-License-Identifier: Apache-2.0
"""Which containers a list shows, by Docker's filters.

Of several values of a filter one must hold, of labels all; of several filters all. `before` and `since` are places in
the list, which has the newest first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import InvalidArgument, NotFound
from .filters import Filters, has_labels
from .filters import flag as yes_or_no
from .specs import PortMapping
from .states import ALIVE
from .status import Container, ContainerStatus

NAMES = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish",
    "since", "status", "volume",
)  # fmt: skip
_HEALTH = ("none", "starting", "healthy", "unhealthy")
_STATUSES = (*(s.value for s in ContainerStatus), "dead")  # nothing is ever dead here
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)


@dataclass(frozen=True)
class Listed:
    """A container, with what its record does not say of it."""

    container: Container
    labels: dict[str, str]  # its image's, too
    ports: list[PortMapping] = field(default_factory=list)  # published now
    exposed: frozenset[str] = frozenset()  # PORT/PROTOCOL
    networks: frozenset[str] = frozenset()  # names and ids
    volumes: frozenset[str] = frozenset()  # names, sources and destinations


def select(
    newest: Iterable[Listed], filters: Filters, *, all_: bool, limit: int = 0, is_of: Callable[[Container, str], bool]
) -> list[Listed]:
    """Those that the filters let through, at most `limit` where that is above 0.

    `is_of` tells whether a container is made from the image of a name, or from one that is built on that.

    :raise InvalidArgument: a filter's value is none. :raise NotFound: nothing is before, or since, what is not there.
    """
    check(filters)
    found = _between(list(newest), filters)
    placed = "before" in filters or "since" in filters
    if not (all_ or limit > 0 or placed or "status" in filters or "exited" in filters):
        found = [x for x in found if x.container.state.status in ALIVE]
    held = [x for x in found if all(_TESTS[k](x, v) for k, v in filters.items() if k in _TESTS)]
    held = [x for x in held if has_labels(x.labels, filters)]
    if "ancestor" in filters:
        held = [x for x in held if any(is_of(x.container, name) for name in filters["ancestor"])]
    return held[:limit] if limit > 0 else held


def check(filters: Filters) -> None:
    """:raise InvalidArgument: naming the filter and its value."""
    for key, known in (("status", _STATUSES), ("health", _HEALTH)):
        for value in filters.get(key, []):
            if value not in known:
                raise InvalidArgument(f"invalid filter '{key}={value}'", hint=f"use one of {', '.join(known)}")
    for value in filters.get("exited", []):
        if not re.fullmatch("-?[0-9]{1,9}", value):
            raise InvalidArgument(f"invalid filter 'exited={value}'", hint="give an exit code")
    for key in ("publish", "expose"):
        for value in filters.get(key, []):
            _ports(key, value)
    yes_or_no(filters, "is-task")


def _between(newest: list[Listed], filters: Filters) -> list[Listed]:
    if before := filters.get("before"):
        newest = newest[_place(newest, before[-1]) + 1 :]
    if since := filters.get("since"):
        newest = newest[: _place(newest, since[-1])]
    return newest


def _place(found: list[Listed], key: str) -> int:
    wanted = key.removeprefix("/")
    named = (i for i, x in enumerate(found) if wanted in (x.container.name, x.container.id))
    begun = (i for i, x in enumerate(found) if wanted and x.container.id.startswith(wanted))
    index = next(itertools.chain(named, begun), None)
    if index is None:
        raise NotFound(f"No such container: {key}")
    return index


def _by_name(x: Listed, patterns: list[str]) -> bool:
    """Regular expressions, for names with Docker's slash before them and without; one that is none is a name."""
    for pattern in patterns:
        try:
            if re.search(pattern, x.container.name) or re.search(pattern, f"/{x.container.name}"):
                return True
        except re.error:
            if pattern == x.container.name:
                return True
    return False


def _by_exit(x: Listed, codes: list[str]) -> bool:
    state = x.container.state
    return state.status is ContainerStatus.EXITED and any(int(code) == state.exit_code for code in codes)


def _by_health(x: Listed, values: list[str]) -> bool:
    health = x.container.state.health
    return (health.status if health else "none") in values


def _ports(key: str, text: str) -> set[str]:
    found = _PORT.fullmatch(text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high <= 65535:
        raise InvalidArgument(f"invalid filter '{key}={text}'", hint="write PORT[-PORT][/tcp|udp]")
    protocol = (found and found[3]) or "tcp"
    return {f"{port}/{protocol}" for port in range(low, high + 1)}


def _by_published(x: Listed, texts: list[str]) -> bool:
    """By its port there, or the one of this host."""
    own = {f"{n}/{p.protocol}" for p in x.ports for n in (p.container_port, p.host_port)}
    return any(own & _ports("publish", text) for text in texts)


def _by_exposed(x: Listed, texts: list[str]) -> bool:
    own = x.exposed | {f"{p.container_port}/{p.protocol}" for p in x.ports}
    return any(own & _ports("expose", text) for text in texts)


_TESTS: dict[str, Callable[[Listed, list[str]], bool]] = {
    "name": _by_name,
    "id": lambda x, ids: any(x.container.id.startswith(i) for i in ids),
    "status": lambda x, values: x.container.state.status.value in values,
    "exited": _by_exit,
    "health": _by_health,
    "volume": lambda x, names: any(n in x.volumes or n.rstrip("/") in x.volumes for n in names),
    "network": lambda x, keys: any(n == k or (len(k) >= 4 and n.startswith(k)) for n in x.networks for k in keys),
    "publish": _by_published,
    "expose": _by_exposed,
    "is-task": lambda x, _: not yes_or_no({"is-task": _}, "is-task"),  # there is no swarm, so nothing is one
}
