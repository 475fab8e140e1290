# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a guest: the port, in the engine's words.

`Agent` is one connection with one guest, `Process` a process there, `Sink` where its output goes. What only
some agents can do is a protocol of its own (`Freeze`, `Relay`); `require` finds it, or refuses before
anything is taken. `GuestSession` speaks to hyperstart; tests/contract/test_agent.py says what every agent does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeVar, runtime_checkable

from ..errors import Unsupported
from ..model.identity import Identity
from ..protocol.messages import (
    ExitStatus,
    GuestContainer,
    GuestProcess,
    Interface,
    Limits,
    ListedProcess,
)
from ..protocol.usage import GuestStats

F = TypeVar("F")


class Sink(Protocol):
    """Where output goes. The engine's log and its attached clients implement it."""

    def write(self, stream: int, data: bytes) -> int:
        """Take the bytes; how many of this stream's may be acknowledged now.

        The rest is acknowledged later, through `Process.acknowledge`.
        """

    def end(self, stream: int) -> None:
        """The stream has ended."""

    def exited(self) -> None:
        """The process has ended; what is left of its output comes, and shall not wait for anybody."""

    def lost(self, stream: int, count: int) -> None:
        """`count` bytes that an earlier connection did not bring are not in the guest any more."""


class Process(Protocol):
    """A process in the guest, started by `Agent.start` or found again by `Agent.reattach`."""

    @property
    def id(self) -> int:
        """Its number in the guest, by which another connection finds it."""

    @property
    def pid(self) -> int:
        """As its pod sees it."""

    @property
    def identity(self) -> Identity | None:
        """Whose it began as; None where the guest did not say."""

    @property
    def exited(self) -> asyncio.Future[ExitStatus]:
        """A future of the caller's own: to cancel it harms nobody. Fails with `Unavailable` when nobody will know."""

    async def write_stdin(self, data: bytes) -> None:
        """Queue input; returns when the guest has room for more."""

    def close_stdin(self) -> None:
        """What was queued comes before the end."""

    def acknowledge(self, stream: int, count: int) -> None:
        """`count` bytes that the sink had held back are safe now."""

    async def signal(self, number: int, *, everyone: bool = False) -> None:
        """To it, or to all processes of its container.

        :raise GuestError: the guest has no such process any more.
        """

    async def signal_group(self, number: int) -> None:
        """To it and what it has started, as far as that is in its process group; to it alone where the guest is older.

        :raise GuestError: the guest has no such process any more.
        """

    async def resize(self, rows: int, columns: int) -> None:
        """:raise GuestError: when the process has no terminal."""

    async def drain(self) -> bool:
        """After the end, until all output has come; False when some is missing."""

    def record_spans(self) -> None:
        """Record, for the caller's trace, where the guest's time until its end went."""

    async def release(self) -> None:
        """Let the guest forget it: it has ended. :raise GuestError: it runs."""

    def abandon(self) -> None:
        """Nobody waits for it any more: it is killed, and forgotten when it has ended."""

    def fail(self, error: Exception) -> None:
        """Whoever waits for its end, or for room, gets the error."""


class Agent(Protocol):
    """One connection with one guest; whatever waits when it ends gets `Unavailable`.

    Verbs raise `InvalidState` when there is no connection, `DeadlineExceeded` when the guest does not answer
    (`sys.deadlines`), and `GuestError` when it refuses.
    """

    on_oom: dict[str, Callable[[], None]]  # by container: the kernel killed one of its processes for memory
    renewable: bool  # whoever owns it opens another when the connection ends by itself: its processes wait for that

    @property
    def alive(self) -> bool:
        """Whether the guest can be asked."""

    @property
    def facets(self) -> frozenset[type]:
        """What this guest can do of the protocols below: its hyperstart may be older than this hyperd."""

    @property
    def closed(self) -> asyncio.Event:
        """The connection has ended."""

    @property
    def lost(self) -> bool:
        """It has ended by itself, was `renewable`, and its processes wait."""

    @property
    def fault(self) -> str:
        """How the guest has broken the protocol, which ended the connection; "" where it has not."""

    @property
    def next_token(self) -> bytes:
        """What opens the connection after this one."""

    @property
    def booted_at(self) -> datetime:
        """In UTC; times of `processes` count from it."""

    async def setup_pod(
        self, hostname: str, interfaces: list[Interface], sysctls: dict[str, str], shm_size: int
    ) -> None:
        """May be said again, with other values; entropy and the time come with it each time."""

    async def set_interface(self, interface: Interface, *, undo: bool = False) -> None:
        """Bring a NIC of a running pod up, or down. Idempotent.

        With `undo` the guest is asked for the opposite when this fails: whether it did it, nobody knows then.
        """

    async def create_container(self, container: GuestContainer) -> None:
        """Build its root; nothing runs in it yet. :raise GuestError: there is one of that id."""

    async def delete_container(self, id_: str) -> None:
        """Let its disks go. :raise GuestError: there is none, or something runs in it."""

    async def start(self, process: GuestProcess, sink: Sink) -> Process:
        """Start a process; its output goes to `sink` from the first byte.

        :raise StartFailed: when the program cannot be executed.
        :raise Unsupported: it needs `Hooks`, `Filters`, `OnlyGroups` or `PidsOf`.
        """

    def reattach(self, id_: int, sink: Sink, offsets: tuple[int, int]) -> Process | None:
        """A process of an earlier connection; None when the guest does not know it.

        `offsets` say how many bytes of stdout and stderr are safe already. Where
        the guest keeps less than what follows them, its word holds, and the sink is told.
        """

    def pid_of(self, id_: int) -> int:
        """In the guest, of a process of an earlier connection; 0 when the guest does not know it."""

    def kill_orphans(self, keep: set[int]) -> None:
        """End all processes of earlier connections but those to keep."""

    async def stats(self) -> GuestStats:
        """Of the guest, and of each container."""

    async def processes(self, container: str = "") -> list[ListedProcess]:
        """Of one container, or of the whole pod."""

    async def shut_down(self, timeout: float) -> None:
        """End all processes and make the disks clean, in so many seconds; the machine may then be killed."""

    def drop(self) -> None:
        """End the connection as if it had ended by itself. Idempotent."""

    async def renew(self, connect: Connect, gone: Gone) -> Agent | None:
        """Another connection in place of this one, which was lost, with all that it carried; None: there is none."""

    def take_over(self, earlier: Agent) -> None:
        """Go on with what another connection had, which was lost: its processes, and who hears of OOM kills."""

    def give_up(self) -> None:
        """Of a lost connection: there is no other; what waits for the guest's processes hears of it."""

    def close(self) -> None:
        """End the connection; the guest goes on, and keeps what it has to say. Idempotent."""


Connect = Callable[[], socket.socket]  # a further byte stream to the guest; raises Unavailable (`Machine.connect`)
Gone = Callable[[], Awaitable[None]]  # returns when the guest's machine has ended (`Machine.wait`)


# -- facets --------------------------------------------------------------------------


@runtime_checkable
class Freeze(Protocol):
    """A container's processes stand still, and go on."""

    async def freeze_container(self, id_: str, frozen: bool) -> None:
        """Idempotent. Who stops waiting for it has it taken back.

        :raise GuestError: there is no such container.
        """


@runtime_checkable
class UpdateLimits(Protocol):
    """Other limits for a container that runs."""

    async def update_limits(self, id_: str, limits: Limits) -> None:
        """Set those that are given.

        :raise GuestError: there is no such container, or its processes hold more memory than they are to have.
        """


@runtime_checkable
class MakeLayers(Protocol):
    """What a container has changed in its image's files, as a layer."""

    def layer_process(self, container: str, mount_points: Sequence[str]) -> GuestProcess:
        """What writes it: a tar stream with OCI's whiteouts; what is empty at a mount point is left out."""


@runtime_checkable
class Relay(Protocol):
    """A connection within the pod is a process of the guest: what it is sent is its input, what it says its output."""

    def relay_process(self, port: int, timeout: float) -> GuestProcess:
        """To whoever listens on this TCP port of the pod's loopback; ends with status 1 when nobody does within
        so many seconds, and says so on stderr.
        """


FilesVerb = Literal["list", "remove", "rename", "watch"]


@runtime_checkable
class EditFiles(Protocol):
    """A container's files are listed, removed, renamed and watched without a program in it."""

    def files_process(self, container: str, verb: FilesVerb, path: str, option: str) -> GuestProcess:
        """Its option is a depth (list), `recursive` or "" (remove, watch), the new path (rename). It ends with status 2
        when there is no such path, and says other errors on stderr.
        """


@runtime_checkable
class HoldVolumes(Protocol):
    """A volume's file system takes no writes for a while."""

    def hold_process(self, volume: str, silence: float, limit: float) -> GuestProcess:
        """Of what the guest calls `volume`: it writes a line when nothing is written any more and all of it is on the
        disk, and lets it go on at the end of its input, with status 0. It does so by itself, with another one, when its
        input has said nothing for `silence` seconds, or it lasts for `limit`, and when it is killed.
        """


@runtime_checkable
class Hooks(Protocol):
    """`start` takes processes with `hooks`, which are run before them."""


@runtime_checkable
class Filters(Protocol):
    """`start` takes processes with a `filter` of their own, in place of Docker's default."""


@runtime_checkable
class OnlyGroups(Protocol):
    """`start` takes processes with `only_groups`."""


@runtime_checkable
class PidsOf(Protocol):
    """`start` takes processes with `pids_of`."""


@runtime_checkable
class Fork(Protocol):
    """Its machine is saved while it runs, and others go on from what was saved."""

    async def become(
        self, hostname: str, before: Sequence[Interface], interfaces: Sequence[Interface], sysctls: dict[str, str],
        shm_size: int,
    ) -> None:  # fmt: skip
        """What `setup_pod` says, to the guest of a machine that goes on from a saved one; `before` it had these
        interfaces. Its TCP connections that leave the machine are reset.
        """

    def keep_free_pages(self) -> None:
        """They are in a file that others map, too: soon its kernel tells the hypervisor of none any more."""


_NAMES: dict[type, str] = {
    Fork: "saving a pod while it runs",
    Freeze: "pausing a container",
    UpdateLimits: "other limits for a container that runs",
    MakeLayers: "making a layer of a container",
    Relay: "connections to a pod's ports",
    EditFiles: "listing and watching files",
    HoldVolumes: "freezing a volume's file system",
    Hooks: "hooks in a container",
    Filters: "a seccomp profile of one's own",
    OnlyGroups: "supplementalGroupsPolicy Strict",
    PidsOf: "the PID namespace of another container",
}


def require(agent: Agent, facet: type[F]) -> F:
    """The same agent, as one that has this facet.

    :raise Unsupported: when it has not.
    """
    if isinstance(agent, facet) and facet in agent.facets:
        return agent
    raise Unsupported(
        f"the guest's agent does not support {_NAMES.get(facet, facet.__name__)}",
        hint="it may be older than hyperd: what is started anew has the present one",
    )
