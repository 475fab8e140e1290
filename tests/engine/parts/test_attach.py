# SPDX-License-Identifier: Apache-2.0
"""An attached client, by the session of the engine: what it says, what it hears, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.attach.fake import FakePeer
from hypercontainer.engine.attach.keys import DetachFilter
from hypercontainer.engine.attach.peer import HEADER, End, Input, InputEnd, Peer, Resize, Said, frame
from hypercontainer.engine.attach.session import Attached, AttachOptions, AttachSession, Source
from hypercontainer.engine.attachments import History as LogHistory
from hypercontainer.engine.logs import OutputLog, json_log
from hypercontainer.engine.streams import FanOut
from hypercontainer.errors import HyperError, InvalidArgument, StartFailed
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.protocol.constants import STDIN_RING, Type
from hypercontainer.protocol.messages import ExitStatus
from hypercontainer.protocol.streams import Data, Window, decode_data

KEYS = b"\x10\x11"


class Program:
    """A process: what it got of its input, and what it prints. It is its own wire to the guest."""

    def __init__(self, log: Callable[[], OutputLog] | None = None) -> None:
        self.got, self.eof, self.sizes = bytearray(), False, list[tuple[int, int]]()
        self.granted = STDIN_RING
        self.answers = asyncio.Event()  # to sizes
        self.answers.set()
        self.fan_out = FanOut(log)
        self.fan_out.begin()
        self.handle = GuestProcessHandle(self, 1, self.fan_out)
        self._printed = {1: 0, 2: 0}
        self._changed = asyncio.Event()

    def start(self) -> None:
        self.handle.on_window(Window(0, 0, self.granted, closed=False))
        self.fan_out.attach_process(self.handle)

    def take(self) -> None:
        """It reads: there is room for more."""
        self.granted = len(self.got) + STDIN_RING
        self.handle.on_window(Window(0, len(self.got), self.granted, closed=False))

    def print(self, text: bytes, stream: int = 1) -> None:
        self.handle.on_data(Data(stream, self._printed[stream], text, eof=False))
        self._printed[stream] += len(text)

    def exit(self, code: int = 0) -> None:
        self.handle.set_exit(ExitStatus(code=code))
        for stream, printed in self._printed.items():
            self.handle.on_data(Data(stream, printed, b"", eof=True))

    async def until_got(self, text: bytes) -> None:
        while bytes(self.got) != text:
            self._changed.clear()
            await self._changed.wait()

    def send_frame(self, type_: int, id_: int, body: bytes) -> None:
        if type_ == Type.DATA:
            data = decode_data(body)
            self.got += data.payload
            self.eof = self.eof or data.eof
            self._changed.set()

    async def resize(self, handle: GuestProcessHandle, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))
        self._changed.set()
        await self.answers.wait()

    @property
    def readers(self) -> int:
        return len(self.fan_out._readers)


async def all_quiet() -> None:
    """Whatever can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def attached(
    program: Program,
    peer: Peer,
    *,
    tty: bool = False,
    begin: Callable[[], Coroutine[Any, Any, object]] | None = None,
    options: AttachOptions | None = None,
    history: Callable[[], Source] | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """A session that runs. Whatever happened, it leaves no task and no reader behind."""
    before = asyncio.all_tasks()

    async def finish() -> End:
        return End(exit_code=(await program.handle.exited).shell_code)

    start = (lambda: asyncio.create_task(begin())) if begin else None
    what = Attached(fan_out=program.fan_out, tty=tty, closes_stdin=not tty, begin=start, finish=finish, history=history)
    session = AttachSession(what, options or AttachOptions())
    task = asyncio.create_task(session.run(peer))
    try:
        async with asyncio.timeout(20):
            yield task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not program.readers, "a reader is left attached"
        assert asyncio.all_tasks() == before, "a task is left"


class History:
    """A log, as a session reads it."""

    def __init__(self, *chunks: tuple[int, bytes]) -> None:
        self.closed = False
        self._chunks = chunks

    async def __aiter__(self) -> AsyncGenerator[tuple[int, bytes], None]:
        for chunk in self._chunks:
            await asyncio.sleep(0)
            yield chunk

    def close(self) -> None:
        self.closed = True


# -- the keys ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "pieces", "passed"),
    [
        (KEYS, [b"ab\x10", b"c"], [b"ab", b"\x10c"]),  # ctrl-p waits for what follows
        (KEYS, [b"\x10\x10d"], [b"\x10\x10d"]),
        (KEYS, [b"\x10\x10", b"\x10"], [b"\x10", b"\x10"]),
        (b"aab", [b"aaac"], [b"aaac"]),
    ],
)
def test_what_may_become_the_keys_is_passed_on_when_it_does_not(
    keys: bytes, pieces: list[bytes], passed: list[bytes]
) -> None:
    found = DetachFilter(keys)
    assert [found.feed(piece) for piece in pieces] == passed and not found.detached


@pytest.mark.parametrize(
    ("keys", "pieces", "passed"),
    [
        (KEYS, [b"x\x10\x11y"], b"x"),
        (KEYS, [b"x\x10", b"\x11y"], b"x"),
        (KEYS, [b"\x10\x10\x11"], b"\x10"),
        (b"aab", [b"aa", b"ab"], b"a"),  # the second a begins it, too
        (b"q", [b"abq", b"c"], b"ab"),
    ],
)
def test_the_keys_and_what_follows_are_not_passed_on(keys: bytes, pieces: list[bytes], passed: bytes) -> None:
    found = DetachFilter(keys)
    assert b"".join(found.feed(piece) for piece in pieces) == passed
    assert found.detached and found.end() == b""


def test_keys_that_are_held_back_at_the_end_of_input() -> None:
    found = DetachFilter(KEYS)
    assert found.feed(b"a\x10") == b"a" and found.end() == b"\x10" and found.end() == b""


# -- a session that goes well -------------------------------------------------------


async def test_both_outputs_in_their_order_and_the_exit_code() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer) as session:
        await all_quiet()
        assert peer.opened
        program.print(b"one\n")
        program.print(b"two\n", 2)
        await peer.until(b"two", 2)
        program.print(b"three\n")
        program.exit(3)
        await session
    assert peer.heard == [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    assert peer.end == End(exit_code=3)


async def test_only_what_is_asked_for_is_heard() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer, options=AttachOptions(outputs=frozenset({2}))) as session:
        await all_quiet()
        program.print(b"out")
        program.print(b"err", 2)
        program.exit()
        await session
    assert peer.heard == [(2, b"err")] and peer.end == End(exit_code=0)


async def test_output_goes_on_after_the_end_of_input() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer) as session:
        peer.says(Input(b"all of it"), InputEnd())
        await program.until_got(b"all of it")
        await all_quiet()
        assert program.eof and not session.done()
        program.print(b"still here")
        await peer.until(b"still here")
        program.exit(7)
        await session
    assert peer.end == End(exit_code=7)


async def test_a_terminal_s_input_has_no_end() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer, tty=True) as session:
        peer.says(Input(b"a\x10"), InputEnd())
        await program.until_got(b"a\x10")  # the half of the keys, too
        await all_quiet()
        assert not program.eof and not session.done()
        program.exit()
        await session
    assert peer.end == End(exit_code=0)


async def test_input_sizes_and_keys_wait_for_a_process_that_starts() -> None:
    program, peer = Program(), FakePeer()
    go = asyncio.Event()

    async def begin() -> None:
        await go.wait()
        program.start()

    async with attached(program, peer, tty=True, begin=begin) as session:
        peer.says(Resize(10, 20), Input(b"early"), Resize(30, 40))
        await all_quiet()
        assert not program.got and not program.sizes
        go.set()
        await program.until_got(b"early")
        await all_quiet()
        assert program.sizes == [(30, 40)]  # the last counts
        program.exit()
        await session
    assert peer.end == End(exit_code=0)


async def test_the_log_comes_first_and_the_output_follows() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    history = History((1, b"old\n"), (2, b"bad\n"))
    async with attached(program, peer, options=AttachOptions(logs=True), history=lambda: history) as session:
        await asyncio.sleep(0)
        program.print(b"new\n")
        program.exit()
        await session
    assert peer.heard == [(1, b"old\n"), (2, b"bad\n"), (1, b"new\n")]
    assert peer.end == End(exit_code=0) and history.closed


async def test_the_log_alone() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    history = History((1, b"old\n"))
    options = AttachOptions(logs=True, stream=False)
    async with attached(program, peer, options=options, history=lambda: history) as session:
        program.print(b"new\n")
        await session
    assert peer.heard == [(1, b"old\n")] and peer.end == End() and history.closed


@pytest.mark.parametrize("size", [1 << 20, 200])
async def test_nothing_is_missing_or_there_twice_between_log_and_output(tmp_path: Path, size: int) -> None:
    """A line is not in the log before it has ended; and the log goes on, and is rotated, while it is read."""
    path = tmp_path / "container.log"
    program = Program(functools.partial(json_log, path, max_size=size, max_files=50))
    program.start()
    peer = FakePeer()
    program.print(b"1\n2\nhal")
    options = AttachOptions(logs=True)
    async with attached(program, peer, options=options, history=lambda: LogHistory(program.fan_out, path)) as session:
        await asyncio.sleep(0)
        program.print(b"f\n" + b"more\n" * 20)
        program.exit()
        await session
    assert peer.output() == b"1\n2\nhalf\n" + b"more\n" * 20


# -- detaching ----------------------------------------------------------------------


async def test_the_keys_in_the_middle_of_what_is_typed_detach() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer, tty=True) as session:
        peer.says(Input(b"before\x10"), Input(b"\x11after"))
        await session
    assert peer.end == End(detached=True) and not program.handle.exited.done()


async def test_what_was_typed_before_the_keys_reaches_the_process() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer, tty=True, options=AttachOptions(detach_keys=b"q")) as session:
        peer.says(Input(b"before q after"))
        await session
        await program.until_got(b"before ")
    assert peer.end == End(detached=True)


async def test_what_is_no_terminal_has_no_keys() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer) as session:
        peer.says(Input(b"a\x10\x11b"))
        await program.until_got(b"a\x10\x11b")
        program.exit()
        await session
    assert peer.end == End(exit_code=0)


async def test_the_keys_are_heard_while_the_process_takes_no_input() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer, tty=True) as session:
        peer.says(Input(b"x" * (STDIN_RING + 1000)))
        await all_quiet()
        assert len(program.got) == STDIN_RING  # it waits for the rest
        peer.says(Input(KEYS))
        await session
    assert peer.end == End(detached=True)


async def test_the_keys_are_heard_while_the_guest_does_not_answer_to_a_size() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    program.answers.clear()
    async with attached(program, peer, tty=True) as session:
        peer.says(Resize(1, 2), Input(b"typed"))
        await program.until_got(b"typed")
        peer.says(Resize(3, 4), Input(KEYS))
        await session
    assert program.sizes == [(1, 2)] and peer.end == End(detached=True)


async def test_who_detaches_from_a_start_lets_it_go_on() -> None:
    program, peer = Program(), FakePeer()
    go, begun = asyncio.Event(), []

    async def begin() -> None:
        await go.wait()
        begun.append(True)
        program.start()

    async with attached(program, peer, tty=True, begin=begin) as session:
        peer.says(Input(KEYS))
        await all_quiet()
        assert not session.done()
        go.set()
        await session
    assert begun == [True] and peer.end == End(detached=True)


async def test_who_detaches_from_a_start_hears_that_it_failed() -> None:
    program, peer = Program(), FakePeer()
    go = asyncio.Event()
    error = StartFailed("no such file", exit_status=127)

    async def begin() -> None:
        await go.wait()
        raise error

    async with attached(program, peer, tty=True, begin=begin) as session:
        peer.says(Input(KEYS))
        await all_quiet()
        go.set()
        await session
    assert peer.end == End(error=error)


# -- slow clients, and much input ----------------------------------------------------


async def test_a_client_that_does_not_read_slows_the_process() -> None:
    program, peer = Program(), FakePeer(takes=1)
    program.start()
    async with attached(program, peer) as session:
        await all_quiet()
        program.print(b"first")
        await peer.until(b"first")
        sent, taken = 0, True
        while taken:
            await all_quiet()
            held = program.fan_out.write(1, bytes(64 << 10))
            taken = bool(held)
            sent += 64 << 10
            assert sent < 4 << 20, "nothing holds it back"
        assert sent > 1 << 20
        peer.read_on()
        program.exit()
        await session
    assert len(peer.output()) == sent + len(b"first") and peer.end == End(exit_code=0)


async def test_what_a_slow_client_has_missed_at_the_end_it_is_told() -> None:
    program, peer = Program(), FakePeer(takes=0)
    program.start()
    async with attached(program, peer) as session:
        await all_quiet()
        program.handle.set_exit(ExitStatus(code=0))
        for _ in range(5):
            program.fan_out.write(1, bytes(1 << 20))
        program.exit()
        await all_quiet()
        peer.read_on()
        await session
    assert peer.end is not None and "1048576 bytes of output are not shown" in peer.end.message
    assert len(peer.output()) == 4 << 20 and peer.end.exit_code == 0


async def test_no_more_input_is_taken_than_may_wait() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer) as session:
        peer.says(*[Input(bytes(64 << 10)) for _ in range(100)])
        await all_quiet()
        assert peer.untaken > 80
        while len(program.got) < 100 * (64 << 10):
            program.take()
            await all_quiet()
        assert not peer.untaken
        program.exit()
        await session


# -- errors ---------------------------------------------------------------------------


async def test_a_start_that_fails_is_told() -> None:
    program, peer = Program(), FakePeer()
    error = StartFailed("no such file", exit_status=127)

    async def begin() -> None:
        raise error

    async with attached(program, peer, begin=begin) as session:
        await session
    assert peer.end == End(error=error)


async def test_what_a_client_says_and_nobody_understands_is_told() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    error = InvalidArgument("a window's size is not understood")
    async with attached(program, peer) as session:
        peer.says(error)
        await session
    assert peer.end == End(error=error)


async def test_a_defect_is_told_and_raised() -> None:
    program, peer = Program(), FakePeer()

    async def begin() -> None:
        raise ZeroDivisionError

    async with attached(program, peer, begin=begin) as session:
        with pytest.raises(ZeroDivisionError):
            await session
    assert peer.end is not None and isinstance(peer.end.error, ZeroDivisionError)
    assert not isinstance(peer.end.error, HyperError)


# -- a client that goes, in every state -------------------------------------------------


async def test_a_client_that_goes_before_it_is_attached() -> None:
    program, peer = Program(), FakePeer()
    peer.goes()
    async with attached(program, peer) as session:
        await session
    assert peer.end is None


async def test_what_was_made_to_be_started_is_asked_to_start_even_if_the_client_has_gone() -> None:
    """Else nobody would settle it."""
    program, peer, asked = Program(), FakePeer(), []

    async def wait() -> None:
        await asyncio.Event().wait()

    def begin() -> Coroutine[Any, Any, None]:
        asked.append(True)
        return wait()

    peer.goes()
    async with attached(program, peer, begin=begin) as session:
        await session
    assert asked == [True] and peer.end is None


async def test_with_a_client_that_goes_its_start_is_given_up() -> None:
    program, peer, given_up = Program(), FakePeer(), []

    async def begin() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(True)
            raise

    async with attached(program, peer, begin=begin) as session:
        await all_quiet()
        peer.goes()
        await session
    assert given_up == [True] and peer.end is None


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_client_that_goes_while_the_process_runs(stalled: bool) -> None:
    program, peer = Program(), FakePeer(takes=0 if stalled else 1 << 20)
    program.start()
    async with attached(program, peer) as session:
        await all_quiet()
        program.print(b"text")
        await all_quiet()
        peer.goes()
        await session
    assert peer.end is None and not program.handle.exited.done()
    assert program.fan_out.write(1, b"nobody holds it back") > 0


async def test_a_client_that_goes_while_the_log_is_shown() -> None:
    program, peer, history = Program(), FakePeer(takes=0), History(*[(1, b"x")] * 5)
    program.start()
    async with attached(program, peer, options=AttachOptions(logs=True), history=lambda: history) as session:
        await all_quiet()
        peer.goes()
        await session
    assert history.closed


async def test_a_client_that_goes_while_the_end_is_awaited() -> None:
    program, peer = Program(), FakePeer()
    program.start()
    async with attached(program, peer) as session:
        await all_quiet()
        for stream in (1, 2):  # its outputs have ended, it has not
            program.handle.on_data(Data(stream, 0, b"", eof=True))
        await all_quiet()
        assert not session.done()
        peer.goes()
        await session
    assert peer.end is None


@pytest.mark.parametrize("ready", [False, True])
async def test_a_session_that_is_cancelled_leaves_nothing(ready: bool) -> None:
    program, peer = Program(), FakePeer()

    async def begin() -> None:
        if not ready:
            await asyncio.Event().wait()
        program.start()

    async with attached(program, peer, begin=begin) as session:
        await all_quiet()
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session


# -- other connections --------------------------------------------------------------------


class Hijacked:
    """Docker's: bytes both ways, the end of what comes is the end of input."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, raw: bool) -> None:
        self._reader, self._writer, self._raw = reader, writer, raw
        self._ended = False

    async def open(self) -> None:
        self._writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")

    async def receive(self) -> Said | None:
        if self._ended:
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
            return None
        data = await self._reader.read(64 << 10)
        self._ended = not data
        return Input(data) if data else InputEnd()

    async def send(self, stream: int, data: bytes) -> None:
        self._writer.write(data if self._raw else frame(stream, data))
        await self._writer.drain()

    async def finish(self, end: End) -> None:
        self._writer.close()


class Channels:
    """CRI's over a websocket: the first byte of a message is its channel, 3 is the status and 4 the size."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent: list[bytes] = []

    async def open(self) -> None: ...

    async def receive(self) -> Said | None:
        message = await self.messages.get()
        if message is None:
            return None
        if message[0] == 4:
            width, height = message[1:].split(b"x")
            return Resize(int(height), int(width))
        return Input(message[1:]) if message[0] == 0 else InputEnd()

    async def send(self, stream: int, data: bytes) -> None:
        self.sent.append(bytes([stream]) + data)

    async def finish(self, end: End) -> None:
        self.sent.append(b"\3%d" % (end.exit_code or 0))


@pytest.mark.parametrize("raw", [False, True])
async def test_a_connection_as_docker_s(raw: bool) -> None:
    """With a real connection, whose client ends its half."""
    program, ended = Program(), asyncio.Event()
    program.start()
    taken: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.put_nowait((reader, writer))
        await ended.wait()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    theirs = await taken.get()
    async with attached(program, Hijacked(*theirs, raw=raw)) as session:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        writer.write_eof()
        await program.until_got(b"hello")
        while not program.eof:
            await asyncio.sleep(0)
        program.print(b"out")
        program.print(b"err", 2)
        program.exit()
        await session
        got = await reader.read()
    assert got == (b"outerr" if raw else HEADER.pack(1, 3) + b"out" + HEADER.pack(2, 3) + b"err")
    ended.set()
    writer.close()
    server.close()
    await server.wait_closed()


async def test_channels_as_cri_s() -> None:
    program, peer = Program(), Channels()
    program.start()
    async with attached(program, peer) as session:
        for message in (b"\x0480x25", b"\0in", b"\xff"):
            peer.messages.put_nowait(message)
        await program.until_got(b"in")
        await all_quiet()
        assert program.sizes == [(25, 80)] and program.eof
        program.print(b"out")
        program.exit(4)
        await session
    assert peer.sent == [b"\1out", b"\x034"]


async def test_sizes_may_come_by_another_way() -> None:
    program, peer = Program(), FakePeer()
    program.start()

    async def finish() -> End:
        return End(exit_code=0)

    what = Attached(fan_out=program.fan_out, tty=True, closes_stdin=False, begin=None, finish=finish)
    session = AttachSession(what, AttachOptions())
    task = asyncio.create_task(session.run(peer))
    await all_quiet()
    session.resize(5, 6)
    await all_quiet()
    assert program.sizes == [(5, 6)]
    program.exit()
    await task
