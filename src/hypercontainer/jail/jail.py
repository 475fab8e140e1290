# SPDX-License-Identifier: Apache-2.0
"""The port: what is asked of a jail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol


@dataclass(frozen=True)
class Entry:
    """A file or directory of the host that a program may have."""

    source: Path
    target: str = ""  # where the program finds it; "" is the same path
    writable: bool = False

    @property
    def place(self) -> str:
        return self.target or str(self.source)


@dataclass(frozen=True)
class Limits:
    """rlimits of the process, in a jail that confines; it leaves no core there."""

    descriptors: int = 4096  # how many it may have open
    file_size: int = -1  # bytes that a file may have which it writes to; -1: as many as it likes
    processes: int = -1  # of its user, threads too; -1: as many as it likes
    stack: int = -1  # bytes of each thread's; -1: the host's
    locked_memory: int = -1  # bytes that may be kept where they are, also more than hyperd may; -1: the host's


@dataclass(frozen=True)
class Order:
    """A program, and all that it gets."""

    args: tuple[str, ...]  # the first is the program's path, which `files` holds; its name will do without a jail
    user: int  # that it becomes when we are root, with a group of the same number
    output: int  # descriptor for what it prints
    input: int = -1  # descriptor that it reads; -1: nothing
    errors: int = -1  # descriptor for what it complains of; -1: `output`
    groups: tuple[int, ...] = ()  # further ones
    files: tuple[Entry, ...] = ()  # all that it finds; a jail may show it more than that, and says so in `hindrance`
    directories: tuple[str, ...] = ()  # empty ones that it finds, which may be passed through
    late: str = ""  # another one, below which `Jail.add` shows it more
    devices: tuple[Path, ...] = ()  # of the host, which it may open
    descriptors: tuple[int, ...] = ()  # it has them under the same numbers
    environment: Mapping[str, str] = field(default_factory=dict)  # all of it
    limits: Limits = Limits()
    host_network: bool = False  # it uses the host's network; else it has none
    filter: bytes = b""  # of system calls, by `seccomp.program`; from when it has started on
    first_filter: bytes = b""  # another one, by `seccomp.refusals`; from its first instruction on
    capabilities: frozenset[int] = frozenset()  # that it keeps: CAP_* of linux/capability.h
    settings: Literal["", "read", "write"] = ""  # what it may do with the sysctls, which its /proc has only then
    nested: bool = False  # it makes namespaces of its own
    dies_with_us: bool = False
    subordinate: bool = False  # of a user's daemon: it has that user's numbers of subuid(5), too
    control_groups: tuple[Path, ...] = ()  # directories of groups that it is in from its first instruction on


class Started(NamedTuple):
    """A process, which is our child."""

    pid: int
    started: int  # in clock ticks since the host's boot


Born = Callable[[Started], None]


def ignore(_: Started) -> None:
    """For who need not know before a start is over."""


class Jail(Protocol):
    """Starts programs."""

    confines: bool  # whether more holds than another user and the limits

    def hindrance(self) -> str:
        """Why it cannot start anything as it should on this host; "" when it can."""

    async def spawn(self, order: Order, born: Born = ignore) -> Started:
        """Start a program; it runs on when we end. With a filter it has started when that is in force.

        `born` is told as soon as there is a process.

        One that ends before is no error: it has said why on its output, and there is a child to be waited for.

        :raise Unavailable: when a step fails, with a sentence; nothing is left then.
        """

    async def add(self, started: Started, entry: Entry) -> None:
        """Show a program that runs one more file or directory, at a place below its order's `late` that it has not.

        :raise Unsupported: this jail cannot. :raise Unavailable: a step fails, or the program has ended.
        """

    async def remove(self, started: Started, place: str) -> None:
        """Show it what `add` put at this place no longer. Idempotent; what it has open it keeps.

        :raise Unsupported: this jail cannot. :raise Unavailable: a step fails, or the program has ended.
        """

    async def cover(self, started: Started, entry: Entry) -> None:
        """Show a program that runs, and what is below it, a mount of the host: over something that it finds.

        No link on either way is followed.

        :raise Unsupported: this jail cannot. :raise Unavailable: a step fails, or the program has ended.
        """

    async def uncover(self, started: Started, place: str) -> None:
        """Show it no longer what is mounted there. Idempotent; what it has open it keeps.

        :raise Unsupported: this jail cannot. :raise Unavailable: a step fails, or the program has ended.
        """
