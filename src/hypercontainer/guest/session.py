# SPDX-License-Identifier: Apache-2.0
"""The conversation with hyperstart over one connection: the agent's verbs, and its processes.

`open` sends the token and HELLO; the reply names what the guest knows from earlier connections.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from ..errors import DeadlineExceeded, GuestError, InvalidArgument, StartFailed, Unavailable
from ..protocol.constants import FIRST_TOKEN, GROUP, Builtin, Capability, Tag, Type
from ..protocol.messages import (
    ExitStatus,
    GuestContainer,
    GuestProcess,
    Hello,
    Interface,
    Limits,
    ListedProcess,
    decode_process_list,
)
from ..protocol.streams import decode_data, decode_window
from ..protocol.usage import GuestStats
from ..protocol.wire import Attrs, Frame, ProtocolError, decode_attrs, text
from ..sys import clock, deadlines
from .agent import (
    Agent,
    Connect,
    EditFiles,
    FilesVerb,
    Filters,
    Fork,
    Freeze,
    Gone,
    HoldVolumes,
    Hooks,
    MakeLayers,
    OnlyGroups,
    PidsOf,
    Relay,
    Sink,
    UpdateLimits,
    require,
)
from .connection import Connection, State
from .process import GuestProcessHandle, Nothing
from .reopen import reopen
from .replies import identity_of, pid_of, record_spans, seed
from .tokens import next_token

_EARLY_SIZE, _EARLY_MAX = 1 << 10, 4096  # bytes of a frame, frames: a guest has no more processes


_FACETS: dict[type, Capability] = {
    Freeze: Capability.FREEZE,
    UpdateLimits: Capability.LIMITS,
    MakeLayers: Capability.LAYER,
    Relay: Capability.RELAY,
    EditFiles: Capability.FILES,
    HoldVolumes: Capability.HOLD,
    Hooks: Capability.HOOKS,
    Filters: Capability.FILTER,
    OnlyGroups: Capability.ONLY_GROUPS,
    PidsOf: Capability.PIDS_OF,
    Fork: Capability.FORK,
}


class GuestSession(Connection):
    """One connection to hyperstart: an `Agent` with the facets that HELLO names."""

    def __init__(self, token: bytes, *, inherited: bool = False, following: bytes = b"") -> None:
        super().__init__(token)
        self.hello: Hello | None = None
        self.booted_at = clock.now()
        self.next_token = following or next_token(FIRST_TOKEN if inherited else token)
        self.on_oom: dict[str, Callable[[], None]] = {}
        self._processes: dict[int, GuestProcessHandle] = {}
        self._earlier: frozenset[int] = frozenset()  # processes' numbers of earlier connections
        self._early: dict[tuple[int, int], Frame] = {}  # by type and process: what came before `reattach` did

    @classmethod
    async def open(
        cls, sock: socket.socket, token: bytes, *, timeout: float, inherited: bool = False, following: bytes = b""
    ) -> GuestSession:
        """Connect; `timeout` covers the guest's boot. A token that is `inherited` opens other guests too.

        `following` opens the connection after this one; else it follows from `token`, or is random.

        :raise Unavailable: when the stream ends first.
        :raise DeadlineExceeded: when the guest does not answer in time.
        """
        loop = asyncio.get_running_loop()
        _, session = await loop.create_connection(
            lambda: cls(token, inherited=inherited, following=following), sock=sock
        )
        try:
            await session._greet(timeout)
        except BaseException:
            session.close()
            raise
        return session

    @classmethod
    async def continued(cls, sock: socket.socket, token: bytes, following: bytes, timeout: float) -> GuestSession:
        """Connect to a guest that has answered before. Raises what `open` does."""
        return await cls.open(sock, token, timeout=timeout, following=following)

    async def _greet(self, timeout: float) -> None:
        self._set_state(State.CONNECTING)
        self._send_token()
        frame = await self._request(Type.HELLO, [(Tag.TOKEN, self.next_token), *seed()], timeout)
        self.hello = Hello.decode(frame.body)
        self._earlier = frozenset(p.id for p in self.hello.processes)
        self.booted_at = clock.now() - timedelta(milliseconds=self.hello.uptime_ms)
        self._set_state(State.RUNNING)

    def _is_taken(self, id_: int) -> bool:
        """By what is of this connection or an earlier one."""
        return super()._is_taken(id_) or id_ in self._earlier or id_ in self._processes

    # -- pod and containers -------------------------------------------------------

    async def setup_pod(
        self, hostname: str, interfaces: list[Interface], sysctls: dict[str, str], shm_size: int
    ) -> None:
        """May be said again, with other values; entropy and the time come with it each time."""
        attrs: Attrs = [*seed(), (Tag.HOSTNAME, hostname), (Tag.SHM_SIZE, shm_size)]
        attrs += [(Tag.INTERFACE, i.attrs()) for i in interfaces]
        attrs += [(Tag.SYSCTL, [(Tag.NAME, k), (Tag.VALUE, v)]) for k, v in sysctls.items()]
        await self.request(Type.POD_SETUP, attrs, deadlines.WORK)

    async def become(
        self, hostname: str, before: Sequence[Interface], interfaces: Sequence[Interface], sysctls: dict[str, str],
        shm_size: int,
    ) -> None:  # fmt: skip
        attrs: Attrs = [*seed(), (Tag.HOSTNAME, hostname), (Tag.SHM_SIZE, shm_size)]
        attrs += [(Tag.INTERFACE, replace(i, down=True, gateways=()).attrs()) for i in before]
        attrs.append((Tag.SEVER, 1))  # while nothing leaves the machine: the other one's connections go on
        attrs += [(Tag.INTERFACE, i.attrs()) for i in interfaces]
        attrs += [(Tag.SYSCTL, [(Tag.NAME, k), (Tag.VALUE, v)]) for k, v in sysctls.items()]
        await self.request(Type.POD_SETUP, attrs, deadlines.WORK)

    def keep_free_pages(self) -> None:
        self.post(Type.POD_SETUP, [(Tag.BALLOON, 0)])

    async def set_interface(self, interface: Interface, *, undo: bool = False) -> None:
        try:
            await self.request(Type.POD_SETUP, [(Tag.INTERFACE, interface.attrs())])
        except BaseException:
            if undo and self.alive:
                self.post(Type.POD_SETUP, [(Tag.INTERFACE, replace(interface, down=not interface.down).attrs())])
            raise

    async def create_container(self, container: GuestContainer) -> None:
        await self.request(Type.CONTAINER_CREATE, container.attrs(), deadlines.WORK)

    async def delete_container(self, id_: str) -> None:
        await self.request(Type.CONTAINER_DELETE, [(Tag.ID, id_)], deadlines.WORK)

    @property
    def facets(self) -> frozenset[type]:
        """What hyperstart's HELLO says that it can do."""
        can = self.hello.capabilities if self.hello else Capability(0)
        return frozenset(facet for facet, needed in _FACETS.items() if needed in can)

    async def update_limits(self, id_: str, limits: Limits) -> None:
        await self.request(Type.CONTAINER_LIMIT, [(Tag.ID, id_), *limits.attrs()])

    async def freeze_container(self, id_: str, frozen: bool) -> None:
        try:
            await self.request(Type.CONTAINER_FREEZE, [(Tag.ID, id_), (Tag.FREEZE, int(frozen))])
        except (asyncio.CancelledError, DeadlineExceeded):  # when it gets to it, nobody wants it any more
            if self.alive:
                self.post(Type.CONTAINER_FREEZE, [(Tag.ID, id_), (Tag.FREEZE, int(not frozen))])
            raise

    def layer_process(self, container: str, mount_points: Sequence[str]) -> GuestProcess:
        return GuestProcess(args=(container, *mount_points), builtin=Builtin.LAYER)

    def files_process(self, container: str, verb: FilesVerb, path: str, option: str) -> GuestProcess:
        return GuestProcess(args=(verb, path, option), container=container, builtin=Builtin.FILES)

    def relay_process(self, port: int, timeout: float) -> GuestProcess:
        return GuestProcess(args=(str(port), str(int(timeout * 1000))), builtin=Builtin.RELAY, stdin=True)

    def hold_process(self, volume: str, silence: float, limit: float) -> GuestProcess:
        times = (str(int(seconds * 1000)) for seconds in (silence, limit))
        return GuestProcess(args=(volume, *times), builtin=Builtin.HOLD, stdin=True)

    # -- processes ------------------------------------------------------------------

    async def start(self, process: GuestProcess, sink: Sink) -> GuestProcessHandle:
        """Start a process; its output goes to `sink` from the first byte.

        :raise StartFailed: when the program cannot be executed. :raise Unsupported: the guest has no hooks, or filters.
        """
        self._check_running()
        if process.hooks:  # else it would run without
            require(self, Hooks)
        if process.filter:
            require(self, Filters)
        if process.only_groups:
            require(self, OnlyGroups)
        if process.pids_of:
            require(self, PidsOf)
        handle = GuestProcessHandle(self, self._new_id(), sink)
        self._processes[handle.id] = handle
        try:
            limit = deadlines.WORK if process.main else deadlines.ANSWER
            limit += sum(h.timeout for h in process.hooks)
            frame = await self._request(Type.PROCESS_START, process.attrs(), limit, handle.id)
        except (GuestError, StartFailed, InvalidArgument):  # it was refused, or never asked for
            self._processes.pop(handle.id, None)
            raise
        except BaseException:
            self.kill_orphan(handle.id)
            raise
        record_spans(frame.body)
        handle.pid = self._decoded(pid_of, frame.body)
        handle.identity = self._decoded(identity_of, frame.body)
        handle.open_windows()
        return handle

    def reattach(self, id_: int, sink: Sink, offsets: tuple[int, int]) -> GuestProcessHandle | None:
        """Take up a process of an earlier connection; None when the guest does not know it.

        `offsets` say how many bytes of stdout and stderr are safe already. Where
        the guest keeps less than what follows them, its word holds, and the sink is told.
        """
        known = next((p for p in self.hello.processes if p.id == id_), None) if self.hello else None
        if known is None:
            return None
        begins = tuple(max(have, begin) for have, begin in zip(offsets, known.output_begins, strict=True))
        handle = GuestProcessHandle(self, id_, sink, (begins[0], begins[1]))
        for stream, have, begin in zip((1, 2), offsets, begins, strict=True):
            if begin > have:
                sink.lost(stream, begin - have)
        handle.pid = known.pid
        handle.stdin.rewind(known.stdin_have)
        if known.stdin_eof:
            handle.stdin.closed = True
        self._processes[id_] = handle
        if known.exit:
            handle.set_exit(known.exit)
        self._take_early(id_)
        if self._why:  # the connection broke while others were taken up: nothing comes of this one any more
            handle.fail(self._why)
        handle.open_windows()
        return handle

    async def signal(self, handle: GuestProcessHandle, signal: int, *, everyone: bool = False) -> None:
        await self._signal(handle, signal, int(everyone))

    async def signal_group(self, handle: GuestProcessHandle, signal: int) -> None:
        await self._signal(handle, signal, GROUP if EditFiles in self.facets else 0)

    async def _signal(self, handle: GuestProcessHandle, signal: int, whom: int) -> None:
        attrs: Attrs = [(Tag.ID, handle.id), (Tag.SIGNAL, signal), (Tag.ALL, whom)]
        await self.request(Type.PROCESS_SIGNAL, attrs)

    async def resize(self, handle: GuestProcessHandle, rows: int, columns: int) -> None:
        attrs: Attrs = [(Tag.ID, handle.id), (Tag.ROWS, rows), (Tag.COLUMNS, columns)]
        await self.request(Type.PROCESS_RESIZE, attrs)

    def kill_orphan(self, id_: int, offsets: tuple[int, int] = (0, 0)) -> None:
        """End a process that nobody waits for any more, and let the guest forget it; one that it has yet to start, too.

        Requests are taken in their order, so this comes after the one that starts it. `offsets` say how much
        of stdout and stderr has come: what is under way goes on from there.
        """
        if not self.alive:
            self._processes.pop(id_, None)
            return
        orphan = GuestProcessHandle(self, id_, Nothing(), offsets)
        orphan.stdin.abandoned = True  # it may have more of it than this handle knows of
        orphan.exited.add_done_callback(lambda f: None if f.cancelled() or f.exception() else self._forget(id_))
        self._processes[id_] = orphan
        self.post(Type.PROCESS_SIGNAL, [(Tag.ID, id_), (Tag.SIGNAL, signal.SIGKILL), (Tag.ALL, 0)])
        self._take_early(id_)
        orphan.open_windows()

    def pid_of(self, id_: int) -> int:
        return next((p.pid for p in self.hello.processes if p.id == id_), 0) if self.hello else 0

    def kill_orphans(self, keep: set[int]) -> None:
        """All processes of earlier connections but those to keep."""
        for known in self.hello.processes if self.hello else ():
            if known.id in keep:
                continue
            if known.exit:
                self._forget(known.id)
            else:
                self.kill_orphan(known.id, known.output_begins)

    def _forget(self, id_: int) -> None:
        self._processes.pop(id_, None)
        self.post(Type.PROCESS_RELEASE, [(Tag.ID, id_)])

    async def release(self, handle: GuestProcessHandle) -> None:
        """Let the guest forget an ended process."""
        self._processes.pop(handle.id, None)
        await self.request(Type.PROCESS_RELEASE, [(Tag.ID, handle.id)])

    async def stats(self) -> GuestStats:
        return self._decoded(GuestStats.decode, await self.request(Type.STATS, []))

    async def processes(self, container: str = "") -> list[ListedProcess]:
        """Of one container, or of the whole pod."""
        attrs: Attrs = [(Tag.CONTAINER, container)] if container else []
        return self._decoded(decode_process_list, await self.request(Type.PROCESS_LIST, attrs))

    async def shut_down(self, timeout: float) -> None:
        """End all processes and make the disks clean; the VM may then be killed."""
        await self.request(Type.SHUTDOWN, [], timeout)

    # -- the end of the connection, and another -----------------------------------------

    def close(self) -> None:
        super().close()
        self.give_up()

    def _has_ended(self) -> None:
        if not self.lost:
            self.give_up()

    def give_up(self) -> None:
        """Of a lost connection: there is no other; what waits for the guest's processes hears of it."""
        for handle in self._processes.values():
            handle.fail(self._why or Unavailable("the connection to the guest was closed"))

    async def renew(self, connect: Connect, gone: Gone) -> GuestSession | None:
        """Another in its place, with all that it carried; None when the guest does not answer any more."""
        found = await reopen(connect, gone, self.next_token, type(self).continued)
        if found:
            found.take_over(self)
        return found

    def take_over(self, earlier: Agent) -> None:
        assert isinstance(earlier, GuestSession)
        known = {p.id: p for p in self.hello.processes} if self.hello else {}
        self.on_oom.update(earlier.on_oom)
        self._next_id = max(self._next_id, earlier._next_id)
        for id_, handle in earlier._processes.items():
            if id_ not in known:
                handle.fail(Unavailable("the guest does not know the process any more"))
                continue
            self._processes[id_] = handle
            handle.rebind(self, known[id_])
            self._take_early(id_)
        earlier._processes.clear()
        self.kill_orphans(keep=set(self._processes))

    # -- what the guest says by itself ----------------------------------------------------

    def _take_early(self, id_: int) -> None:
        """What the guest said right after HELLO."""
        for type_ in (Type.WINDOW, Type.EXITED):
            if early := self._early.pop((type_, id_), None):
                try:
                    self._heard(early)
                except ProtocolError as error:
                    self._break(error)

    def _keep_early(self, frame: Frame) -> None:
        """Of a process that is not adopted yet, if it may be: a few small frames."""
        if (
            (self.hello is None or frame.id in self._earlier)
            and len(frame.body) <= _EARLY_SIZE
            and len(self._early) < _EARLY_MAX
        ):
            self._early[frame.type, frame.id] = frame

    def _heard(self, frame: Frame) -> None:
        if frame.type == Type.DATA:
            if handle := self._processes.get(frame.id):
                handle.on_data(decode_data(frame.body))
        elif frame.type == Type.WINDOW:
            if handle := self._processes.get(frame.id):
                handle.on_window(decode_window(frame.body))
            else:
                self._keep_early(frame)
        elif frame.type == Type.EXITED:
            if not (handle := self._processes.get(frame.id)):
                self._keep_early(frame)
            else:
                handle.set_exit(ExitStatus.decode(dict(decode_attrs(frame.body))), frame.body)
        elif frame.type == Type.OOM:
            container = text(dict(decode_attrs(frame.body)).get(Tag.CONTAINER, b""))
            self.on_oom.get(container, lambda: None)()
