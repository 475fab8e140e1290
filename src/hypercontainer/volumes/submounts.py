# SPDX-License-Identifier: Apache-2.0
"""What is mounted on this host below directories that guests are served: brought into their trees, and out of them.

The kernel could do that, if their server's mounts were slaves of the host's. But then nothing could be unmounted of
which a guest only remembers a file, since the server keeps that open: EBUSY, for whoever mounted it (umount(2)). And
what the kernel propagates is not restricted as the directory is. So the trees have mounts of their own, and are made
equal to the host's when that changes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Unavailable
from ..jail import helpers
from ..jail.jail import Entry, Started
from ..sys import clock, process
from ..sys.mount_table import MountPoint, mount_table
from .share import TREE

log = logging.getLogger(__name__)
_AGAIN = 30.0  # seconds
_ROUNDS = 16  # of changes at one time: more come with the next change of the host's mounts
Below = dict[str, MountPoint]  # the way from a directory -> what is mounted there


@dataclass(frozen=True)
class Followed:
    """A directory of this host in a tree."""

    source: str  # a real path
    place: str  # in the tree
    read_only: bool


@dataclass
class Follower:
    """Makes trees equal to the host."""

    # What could not be brought, by server and place; when it is tried again, in seconds of the loop's clock.
    refused: dict[tuple[int, str, MountPoint], float] = field(default_factory=dict)

    async def follow(self, server: Started, followed: Followed) -> list[str]:
        """Make one directory equal to the host's; the places in the tree where something is no longer mounted."""
        gone = []
        for _ in range(_ROUNDS):
            wanted, have = below(mount_table(), followed.source), below(_table_of(server), f"/{followed.place}")
            self._forget_gone(server, followed, wanted)
            if other := outermost(way for way, found in have.items() if not same(wanted.get(way), found)):
                gone += [f"{followed.place}/{way}" for way in other]
                await self._take(server, followed, other)
            elif not await self._bring(server, followed, missing(wanted, have)):
                break
        return gone

    def _forget_gone(self, server: Started, followed: Followed, wanted: Below) -> None:
        """Of one directory: what is mounted there again is another time."""
        there = set(wanted.values())
        for which in [w for w in self.refused if w[:2] == (server.pid, followed.place) and w[2] not in there]:
            del self.refused[which]

    async def _take(self, server: Started, followed: Followed, ways: list[str]) -> None:
        for way in ways:
            await helpers.jail().uncover(server, f"{TREE}/{followed.place}/{way}")

    async def _bring(self, server: Started, followed: Followed, wanted: Below) -> bool:
        """Whether something was brought: then there may be more."""
        brought = False
        for way in outermost(wanted):
            which = server.pid, followed.place, wanted[way]
            if clock.seconds() < self.refused.get(which, 0):
                continue
            source = Path(followed.source, way)
            try:
                await helpers.jail().cover(
                    server, Entry(source, f"{TREE}/{followed.place}/{way}", not followed.read_only)
                )
                brought = True
            except Unavailable as error:  # it is gone again, or cannot be bound
                if which not in self.refused:
                    log.warning("the mount %s does not come to a pod that has %s: %s", source, followed.source, error)
                self.refused[which] = clock.seconds() + _AGAIN
        return brought

    def forget(self, servers: set[int]) -> None:
        """Know nothing of other servers any more."""
        self.refused = {which: at for which, at in self.refused.items() if which[0] in servers}


def below(table: list[MountPoint], directory: str) -> Below:
    """What is mounted below it and can be seen: a later mount hides what is there, and all below that."""
    start, found = f"{directory.rstrip('/')}/", Below()
    for mount in table:
        hidden = f"{mount.point.rstrip('/')}/"
        for way in [w for w in found if f"{start}{w}/".startswith(hidden)]:
            del found[way]
        if mount.point.startswith(start) and mount.point != start:
            found[mount.point[len(start) :]] = mount
    return found


def same(one: MountPoint | None, other: MountPoint) -> bool:
    """Whether both show the same of a file system."""
    return one is not None and (one.device, one.root) == (other.device, other.root)


def missing(wanted: Below, have: Below) -> Below:
    """What of the one is not in the other."""
    return {way: mount for way, mount in wanted.items() if not same(have.get(way), mount)}


def outermost(ways: Iterable[str]) -> list[str]:
    """Those that lie below none of the others: who comes, or goes, takes along what is below."""
    found: list[str] = []
    for way in sorted(ways):
        if not any(way.startswith(f"{other}/") for other in found):
            found.append(way)
    return found


def _table_of(server: Started) -> list[MountPoint]:
    """As the server sees it, whose root is the tree.

    :raise Unavailable: it has ended.
    """
    try:
        found = mount_table(Path(f"/proc/{server.pid}/mountinfo"))
    except OSError:
        found = []
    if not found or process.start_time(server.pid) != server.started:
        raise Unavailable("the server of the pod's directories has ended")
    return found


def can_follow() -> bool:
    """Whether this daemon can change what a server is shown."""
    return os.geteuid() == 0 and helpers.jail().confines
