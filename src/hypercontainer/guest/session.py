# SPDX-License-Identifier: Apache-2.0
"""The conversation with one guest over one connection.

    IDLE ──open()──► CONNECTING ──HELLO answered──► RUNNING ──► CLOSED

`open` sends the token and HELLO. The session ends when the stream does, when
the peer breaks the protocol, or by `close`; whatever waits then gets
`Unavailable`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar

from ..errors import DeadlineExceeded, GuestError, InvalidArgument, InvalidState, StartFailed, Unavailable
from ..protocol.constants import FIRST_TOKEN, FRAME_HEADER, FRAME_MAX, TOKEN_SIZE, Tag, Type
from ..protocol.messages import (
    ExitStatus,
    GuestContainer,
    GuestProcess,
    GuestStats,
    Hello,
    Interface,
    ListedProcess,
    decode_process_list,
)
from ..protocol.streams import decode_data, decode_window
from ..protocol.wire import (
    Attrs,
    Frame,
    FrameReader,
    ProtocolError,
    decode_attrs,
    encode_attrs,
    encode_frame,
    text,
)
from ..sys import deadlines, tasks
from .process import GuestProcessHandle, Nothing, Sink
from .replies import error_of, pid_of, record_spans, seed

_ID_MAX = 2**32 - 1
_UNREAD_MAX = 16 << 20  # bytes that may wait for a guest; one that keeps to its credits never comes near

_EARLY_SIZE, _EARLY_MAX = 1 << 10, 4096  # bytes of a frame, frames: a guest has no more processes

T = TypeVar("T")


def next_token(token: bytes) -> bytes:
    """The token of the connection after one that `token` opened.

    The first is random: containers know HP_FIRST_TOKEN. Each further one
    follows from its predecessor, so that a host that does not know whether
    its last HELLO arrived has just two tokens to try.
    """
    return os.urandom(TOKEN_SIZE) if token == FIRST_TOKEN else hashlib.sha256(token).digest()[:TOKEN_SIZE]


class State(Enum):
    """Where a session is in its life."""

    IDLE = "idle"
    CONNECTING = "connecting"
    RUNNING = "running"
    CLOSED = "closed"


class GuestSession(asyncio.Protocol):
    """One connection to hyperstart."""

    def __init__(self, token: bytes, *, inherited: bool = False) -> None:
        self.state = State.IDLE
        self.hello: Hello | None = None
        self.opened_at = datetime.now(UTC)  # when `hello` said how long the guest is up
        self.next_token = next_token(FIRST_TOKEN if inherited else token)
        self.closed = asyncio.Event()
        self.on_oom: dict[
            str, Callable[[], None]
        ] = {}  # by container: the kernel killed one of its processes for memory
        self._token = token
        self._reader = FrameReader(token)
        self._transport: asyncio.Transport | None = None
        self._requests: dict[int, asyncio.Future[Frame]] = {}
        self._processes: dict[int, GuestProcessHandle] = {}
        self._next_id = 0
        self._earlier: frozenset[int] = frozenset()  # processes' numbers of earlier connections
        self._early: dict[tuple[int, int], Frame] = {}  # by type and process: what came before `reattach` did
        self._why: Exception | None = None
        self.renewable = False  # whoever owns it opens another when the stream ends by itself
        self.lost = False  # it has, and what runs in the guest does not know yet

    @classmethod
    async def open(cls, sock: socket.socket, token: bytes, *, timeout: float, inherited: bool = False) -> GuestSession:
        """Connect; `timeout` covers the guest's boot. A token that is `inherited` opens other guests too.

        :raise Unavailable: when the stream ends first.
        :raise DeadlineExceeded: when the guest does not answer in time.
        """
        loop = asyncio.get_running_loop()
        _, session = await loop.create_connection(lambda: cls(token, inherited=inherited), sock=sock)
        try:
            await session._greet(timeout)
        except BaseException:
            session.close()
            raise
        return session

    async def _greet(self, timeout: float) -> None:
        assert self._transport is not None
        self._set_state(State.CONNECTING)
        self._transport.write(self._token)
        frame = await self._request(Type.HELLO, [(Tag.TOKEN, self.next_token), *seed()], timeout)
        self.hello = Hello.decode(frame.body)
        self._earlier = frozenset(p.id for p in self.hello.processes)
        self.opened_at = datetime.now(UTC)
        self._set_state(State.RUNNING)

    def _set_state(self, state: State) -> None:
        self.state = state
        if state is State.CLOSED:
            self.closed.set()

    # -- requests ---------------------------------------------------------------

    async def request(self, type_: Type, attrs: Attrs, timeout: float = deadlines.ANSWER) -> bytes:
        """Send a request, return the reply's body.

        :raise InvalidState: when the session does not run.
        :raise GuestError: when the guest refuses.
        """
        if self.state is not State.RUNNING:
            raise InvalidState("the guest is not connected")
        body = (await self._request(type_, attrs, timeout)).body
        record_spans(body)
        return body

    async def _request(self, type_: Type, attrs: Attrs, timeout: float, id_: int = 0) -> Frame:
        id_ = id_ or self._new_id()
        body = encode_attrs(attrs)
        if len(body) > FRAME_MAX - FRAME_HEADER:
            raise InvalidArgument(
                f"{type_.name} would take a message of {len(body)} bytes, and a guest reads no more than {FRAME_MAX}",
                hint="use fewer or shorter arguments, variables, files and mounts",
            )
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._requests[id_] = future
        try:
            self.send_frame(type_, id_, body)
            return await tasks.within(future, timeout)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the guest did not answer {type_.name} within {timeout:g} s",
                hint="wait, or end it with `hyperctl kill -s KILL` or `rm -f`",
            ) from None
        finally:
            self._requests.pop(id_, None)

    def _new_id(self) -> int:
        """One that nothing has, of this connection or an earlier one; a guest that names 2^32 - 1 takes none away."""
        while True:
            self._next_id = self._next_id % _ID_MAX + 1
            if not any(self._next_id in taken for taken in (self._earlier, self._requests, self._processes)):
                return self._next_id

    async def setup_pod(
        self, hostname: str, interfaces: list[Interface], sysctls: dict[str, str], shm_size: int
    ) -> None:
        """May be said again, with other values; entropy and the time come with it each time."""
        attrs: Attrs = [*seed(), (Tag.HOSTNAME, hostname), (Tag.SHM_SIZE, shm_size)]
        attrs += [(Tag.INTERFACE, i.attrs()) for i in interfaces]
        attrs += [(Tag.SYSCTL, [(Tag.NAME, k), (Tag.VALUE, v)]) for k, v in sysctls.items()]
        await self.request(Type.POD_SETUP, attrs, deadlines.WORK)

    async def set_interface(self, interface: Interface) -> None:
        """Bring a NIC of a running pod up, or down."""
        await self.request(Type.POD_SETUP, [(Tag.INTERFACE, interface.attrs())])

    async def create_container(self, container: GuestContainer) -> None:
        await self.request(Type.CONTAINER_CREATE, container.attrs(), deadlines.WORK)

    async def delete_container(self, id_: str) -> None:
        await self.request(Type.CONTAINER_DELETE, [(Tag.ID, id_)], deadlines.WORK)

    async def freeze_container(self, id_: str, frozen: bool) -> None:
        try:
            await self.request(Type.CONTAINER_FREEZE, [(Tag.ID, id_), (Tag.FREEZE, int(frozen))])
        except (asyncio.CancelledError, DeadlineExceeded):  # when it gets to it, nobody wants it any more
            if self.state is State.RUNNING:
                self.send_frame(
                    Type.CONTAINER_FREEZE, self._new_id(), encode_attrs([(Tag.ID, id_), (Tag.FREEZE, int(not frozen))])
                )
            raise

    async def start(self, process: GuestProcess, sink: Sink) -> GuestProcessHandle:
        """Start a process; its output goes to `sink` from the first byte.

        :raise StartFailed: when the program cannot be executed.
        """
        if self.state is not State.RUNNING:
            raise InvalidState("the guest is not connected")
        handle = GuestProcessHandle(self, self._new_id(), sink)
        self._processes[handle.id] = handle
        try:
            limit = deadlines.WORK if process.main else deadlines.ANSWER
            frame = await self._request(Type.PROCESS_START, process.attrs(), limit, handle.id)
        except (GuestError, StartFailed, InvalidArgument):  # it was refused, or never asked for
            self._processes.pop(handle.id, None)
            raise
        except BaseException:
            self.kill_orphan(handle.id)
            raise
        record_spans(frame.body)
        handle.pid = self._decoded(pid_of, frame.body)
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
        attrs: Attrs = [(Tag.ID, handle.id), (Tag.SIGNAL, signal), (Tag.ALL, int(everyone))]
        await self.request(Type.PROCESS_SIGNAL, attrs)

    async def resize(self, handle: GuestProcessHandle, rows: int, columns: int) -> None:
        attrs: Attrs = [(Tag.ID, handle.id), (Tag.ROWS, rows), (Tag.COLUMNS, columns)]
        await self.request(Type.PROCESS_RESIZE, attrs)

    def kill_orphan(self, id_: int, offsets: tuple[int, int] = (0, 0)) -> None:
        """End a process that nobody waits for any more, and let the guest forget it; one that it has yet to start, too.

        Requests are taken in their order, so this comes after the one that starts it. `offsets` say how much
        of stdout and stderr has come: what is under way goes on from there.
        """
        if self.state is not State.RUNNING:
            self._processes.pop(id_, None)
            return
        orphan = GuestProcessHandle(self, id_, Nothing(), offsets)
        orphan.stdin.abandoned = True  # it may have more of it than this handle knows of
        orphan.exited.add_done_callback(lambda f: None if f.cancelled() or f.exception() else self._forget(id_))
        self._processes[id_] = orphan
        self.send_frame(
            Type.PROCESS_SIGNAL,
            self._new_id(),
            encode_attrs([(Tag.ID, id_), (Tag.SIGNAL, signal.SIGKILL), (Tag.ALL, 0)]),
        )
        self._take_early(id_)
        orphan.open_windows()

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
        self.send_frame(Type.PROCESS_RELEASE, self._new_id(), encode_attrs([(Tag.ID, id_)]))

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

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        self._end(Unavailable("the connection to the guest was closed"))
        self.give_up()

    def give_up(self) -> None:
        """Of a lost connection: there is no other; what waits for the guest's processes hears of it."""
        for handle in self._processes.values():
            handle.fail(self._why or Unavailable("the connection to the guest was closed"))

    def take_over(self, earlier: GuestSession) -> None:
        """Go on with what a lost connection had: processes with their streams, and who hears of OOM kills."""
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

    # -- the stream -------------------------------------------------------------

    def send_frame(self, type_: int, id_: int, body: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(encode_frame(type_, id_, body))
            if self._transport.get_write_buffer_size() > _UNREAD_MAX:
                self._break(ProtocolError("the guest asks and does not read"))

    def _decoded(self, decode: Callable[[bytes], T], body: bytes) -> T:
        """:raise Unavailable: when a reply is malformed; the connection has ended then."""
        try:
            return decode(body)
        except ProtocolError as error:
            self._break(error)
            raise Unavailable(f"the guest's channel failed: {error}") from error

    def _break(self, error: ProtocolError) -> None:
        self._end(error)
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.renewable and self.state is State.RUNNING
        self._end(exc or Unavailable("the virtual machine closed its channel"))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._dispatch(frame)
        except ProtocolError as error:
            self._break(error)

    def _take_early(self, id_: int) -> None:
        """What the guest said right after HELLO."""
        for type_ in (Type.WINDOW, Type.EXITED):
            if early := self._early.pop((type_, id_), None):
                try:
                    self._dispatch(early)
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

    def _dispatch(self, frame: Frame) -> None:
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
            if heard := self.on_oom.get(text(dict(decode_attrs(frame.body)).get(Tag.CONTAINER, b""))):
                heard()
        elif frame.type in (Type.REPLY, Type.ERROR):
            future = self._requests.get(frame.id)
            if future and not future.done():
                if frame.type == Type.REPLY:
                    future.set_result(frame)
                else:
                    future.set_exception(error_of(frame.body))

    def _end(self, why: Exception) -> None:
        if self.state is State.CLOSED:
            return
        self._set_state(State.CLOSED)
        self._why = why if isinstance(why, Unavailable) else Unavailable(f"the guest's channel failed: {why}")
        for future in self._requests.values():
            if not future.done():
                future.set_exception(self._why)
        if not self.lost:
            self.give_up()
