# SPDX-License-Identifier: Apache-2.0
"""What a guest sends that is no protocol, or too much of it, costs that guest its session, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.errors import HyperError, Unavailable
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.guest.session import GuestSession
from hypercontainer.protocol.constants import OUTPUT_RING, STDIN_RING, TOKEN_SIZE, Tag, Type
from hypercontainer.protocol.messages import ExitStatus, GuestProcess, Hello, decode_process_list
from hypercontainer.protocol.streams import Data, Receiver, Sender, Window, decode_data, encode_data, encode_window
from hypercontainer.protocol.usage import GuestStats
from hypercontainer.protocol.wire import (
    Attrs,
    Frame,
    FrameReader,
    ProtocolError,
    decode_attrs,
    encode_attrs,
    encode_frame,
)

TOKEN = b"0123456789abcdef"
HELLO: Attrs = [(Tag.VERSION, 1), (Tag.KERNEL, "6.1"), (Tag.VALUE, "0.1"), (Tag.UPTIME_MS, 5)]
KNOWN: Attrs = [(Tag.ID, 3), (Tag.PID, 2), (Tag.STDIN_ACK, 10), (Tag.STDIN_EOF, 0)]

_numbers = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**62, 2**64 - 1])
_values = st.recursive(
    _numbers | st.binary(max_size=20),
    lambda inner: st.lists(st.tuples(st.sampled_from(list(Tag)), inner), max_size=8),
    max_leaves=20,
)
_bodies = st.lists(st.tuples(st.sampled_from(list(Tag)), _values), max_size=8).map(encode_attrs) | st.binary(
    max_size=100
)


class Nothing:
    """A sink that takes nothing back: no byte is acknowledged."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, stream: int, data: bytes) -> int:
        self.size += len(data)
        return 0

    def end(self, stream: int) -> None: ...

    def exited(self) -> None: ...

    def lost(self, stream: int, count: int) -> None: ...


class Guest:
    """The other end of a session."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._frames = FrameReader(TOKEN)
        self._waiting: list[Frame] = []

    async def frame(self, type_: Type) -> Frame:
        """The next one of a type."""
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting:
                if (found := self._waiting.pop(0)).type == type_:
                    return found
            data = await loop.sock_recv(self.sock, 1 << 16)
            assert data, "the host has closed"
            self._waiting += self._frames.feed(data)

    async def say(self, *frames: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(frames))


async def _opened(guest: Guest, theirs: socket.socket, *, hello: Attrs = HELLO) -> GuestSession:
    opening = asyncio.create_task(GuestSession.open(theirs, TOKEN, timeout=30))
    asked = await guest.frame(Type.HELLO)
    token = dict(decode_attrs(asked.body))[Tag.TOKEN]
    assert len(token) == TOKEN_SIZE
    await guest.say(TOKEN, encode_frame(Type.REPLY, asked.id, encode_attrs(hello)))
    return await opening


@contextlib.asynccontextmanager
async def conversation(hello: Attrs = HELLO) -> AsyncIterator[tuple[GuestSession, Guest]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    guest = Guest(ours)
    session = None
    try:
        session = await _opened(guest, theirs, hello=hello)
        yield session, guest
    finally:
        if session:
            session.close()
        ours.close()


@pytest.mark.parametrize(
    "decode", [Hello.decode, GuestStats.decode, decode_process_list, lambda b: ExitStatus.decode(dict(decode_attrs(b)))]
)
@given(body=_bodies)
def test_decoders_raise_protocol_errors_only(decode: Callable[[bytes], object], body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(body)


_windows = st.builds(lambda *w: encode_window(Window(*w)), st.integers(0, 3), _numbers, _numbers, st.booleans())
_data = st.builds(lambda *d: encode_data(Data(*d)), st.integers(0, 3), _numbers, st.binary(max_size=9), st.booleans())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Type.REPLY, Type.ERROR, Type.EXITED, Type.DATA, Type.WINDOW, Type.OOM]),
            st.integers(0, 3),
            _bodies | _windows | _data,
        ),
        max_size=12,
    )
)  # fmt: skip
def test_no_frame_raises_anything_into_the_loop(frames: list[tuple[int, int, bytes]]) -> None:
    async def feed() -> None:
        async with conversation([*HELLO, (Tag.PROCESS, KNOWN)]) as (session, _):
            handle = session.reattach(3, Nothing(), (0, 0))
            assert handle is not None
            handle.stdin.write(b"x" * 100)
            for frame in frames:
                session.data_received(encode_frame(*frame))

    asyncio.run(feed())


@pytest.mark.parametrize(
    "hello",
    [
        [a for a in HELLO if a[0] != Tag.VERSION],
        [*HELLO, (Tag.PROCESS, [(Tag.ID, 2**32), *KNOWN[1:]])],
        [*HELLO, (Tag.PROCESS, KNOWN[:-1])],
        [*HELLO, (Tag.PROCESS, [*KNOWN, (Tag.STDIN_ACK, 2**64 - 1)])],
        [*HELLO, (Tag.UPTIME_MS, 2**64 - 1)],
    ],
)
async def test_a_malformed_hello_is_an_error_of_ours(hello: Attrs) -> None:
    with pytest.raises(HyperError):
        async with conversation(hello):
            pass


async def test_the_largest_number_of_a_process_leaves_numbers_for_others() -> None:
    async with conversation([*HELLO, (Tag.PROCESS, [(Tag.ID, 2**32 - 1), *KNOWN[1:]])]) as (session, guest):
        for _ in range(3):
            asking = asyncio.create_task(session.stats())
            asked = await guest.frame(Type.STATS)
            assert 0 < asked.id < 2**32 - 1
            await guest.say(encode_frame(Type.REPLY, asked.id))
            await asyncio.wait_for(asking, 30)


async def test_a_malformed_reply_ends_its_session() -> None:
    async with conversation() as (session, guest):
        asking = asyncio.create_task(session.processes())
        asked = await guest.frame(Type.PROCESS_LIST)
        await guest.say(encode_frame(Type.REPLY, asked.id, encode_attrs([(Tag.PROCESS, [(Tag.PID, 1)])])))
        with pytest.raises(Unavailable, match="channel failed"):
            await asyncio.wait_for(asking, 30)
        assert session.closed.is_set()


async def test_output_beyond_the_credit_ends_the_session() -> None:
    sink = Nothing()
    async with conversation() as (session, guest):
        starting = asyncio.create_task(session.start(GuestProcess(("x",)), sink))
        asked = await guest.frame(Type.PROCESS_START)
        await guest.say(encode_frame(Type.REPLY, asked.id, encode_attrs([(Tag.PID, 1)])))
        await asyncio.wait_for(starting, 30)
        for at in range(0, OUTPUT_RING * 4, 1 << 15):
            await guest.say(encode_frame(Type.DATA, asked.id, encode_data(Data(1, at, bytes(1 << 15), eof=False))))
        await asyncio.wait_for(session.closed.wait(), 30)
        assert sink.size <= OUTPUT_RING


async def test_a_guest_of_many_words_lets_others_speak() -> None:
    """Frames of no kind as small as they can be: the loop has its turn after each piece of them."""
    async with conversation() as (session, guest):
        told, feed = list[int](), session._reader.feed
        session._reader.feed = lambda data: (told.append(len(data)), feed(data))[1]  # type: ignore[method-assign]
        await asyncio.get_running_loop().sock_sendall(guest.sock, encode_frame(999, 0, b"") * 20_000)
        while sum(told) < 20_000 * len(encode_frame(999, 0, b"")):
            await asyncio.sleep(0)
        assert max(told) <= 32 << 10


async def test_a_guest_that_asks_and_never_reads_is_left() -> None:
    async with conversation([*HELLO, (Tag.PROCESS, KNOWN)]) as (session, _):
        handle = session.reattach(3, Nothing(), (0, 0))
        assert handle is not None
        for at in range(10, 64 << 20, STDIN_RING):  # it says that it has what it never took off the channel
            if session.closed.is_set():
                break
            handle.stdin.write(bytes(STDIN_RING))
            session.data_received(
                encode_frame(Type.WINDOW, 3, encode_window(Window(0, at, at + STDIN_RING, closed=False)))
            )
        assert session.closed.is_set()


async def test_what_comes_with_the_hello_is_not_lost() -> None:
    """Credit for stdin, and the exit, of processes that the host has not adopted yet: both come once."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    guest = Guest(ours)
    opening = loop.create_task(GuestSession.open(theirs, TOKEN, timeout=30))
    asked = await guest.frame(Type.HELLO)
    other: Attrs = [(Tag.ID, 4), *KNOWN[1:]]
    hello = encode_frame(Type.REPLY, asked.id, encode_attrs([*HELLO, (Tag.PROCESS, KNOWN), (Tag.PROCESS, other)]))
    window = encode_frame(Type.WINDOW, 3, encode_window(Window(0, 10, 10 + STDIN_RING, closed=False)))
    ended = encode_frame(Type.EXITED, 4, encode_attrs([(Tag.CODE, 5)]))
    await guest.say(TOKEN + hello + window)
    session = await opening
    session.data_received(ended)
    handle, gone = (session.reattach(id_, Nothing(), (0, 0)) for id_ in (3, 4))
    assert handle is not None and gone is not None
    assert (await asyncio.wait_for(gone.exited, 30)).code == 5
    await asyncio.wait_for(handle.write_stdin(b"input"), 30)
    assert decode_data((await asyncio.wait_for(guest.frame(Type.DATA), 30)).body).payload == b"input"
    session.close()
    ours.close()


async def test_output_that_is_under_way_does_not_end_the_session_when_its_process_is_given_up() -> None:
    async with conversation() as (session, guest):
        starting = asyncio.create_task(session.start(GuestProcess(("x",)), Nothing()))
        asked = await guest.frame(Type.PROCESS_START)
        await guest.say(encode_frame(Type.REPLY, asked.id, encode_attrs([(Tag.PID, 1)])))
        handle = await asyncio.wait_for(starting, 30)
        session.data_received(encode_frame(Type.DATA, asked.id, encode_data(Data(1, 0, b"some", eof=False))))
        session.kill_orphan(handle.id, handle.offsets)
        session.data_received(encode_frame(Type.DATA, asked.id, encode_data(Data(1, 4, b"more", eof=True))))
        assert not session.closed.is_set()
        session.data_received(encode_frame(Type.EXITED, asked.id, encode_attrs([(Tag.SIGNAL, 9)])))
        assert (await asyncio.wait_for(guest.frame(Type.PROCESS_RELEASE), 30)).body == encode_attrs(
            [(Tag.ID, handle.id)]
        )


def test_credit_for_input_is_what_a_guest_has_room_for() -> None:
    with pytest.raises(ProtocolError, match="more credit"):
        Sender().acknowledge(Window(0, 0, 2**62, closed=False))


def test_input_that_was_not_sent_cannot_be_acknowledged() -> None:
    sender = Sender()
    sender.write(bytes(100))
    with pytest.raises(ProtocolError, match="beyond"):
        sender.acknowledge(Window(0, 100, 200, closed=False))


def test_credit_for_output_is_enforced() -> None:
    receiver = Receiver(1)
    assert receiver.data(Data(1, 0, bytes(OUTPUT_RING), eof=False))
    with pytest.raises(ProtocolError, match="credit"):
        receiver.data(Data(1, OUTPUT_RING, b"x", eof=False))


async def test_names_that_are_no_text_can_be_sent_on() -> None:
    """msgspec refuses surrogates: `top` of such a process was an internal error."""
    import msgspec

    raw = encode_attrs(
        [
            (
                Tag.PROCESS,
                [(t, 1) for t in (Tag.PID, Tag.PPID, Tag.UID, Tag.START_MS, Tag.CPU_MS)]
                + [(Tag.CONTAINER, "c"), (Tag.ARG, b"a\xff")],
            )
        ]
    )
    assert msgspec.json.encode(decode_process_list(raw)[0].command) == '"a\ufffd"'.encode()


async def test_a_limit_that_comes_together_with_the_answer_still_holds() -> None:
    """As in `stop -t 0`, which waits for the answer to its signal and then for the end, for no time in all."""
    async with conversation() as (session, guest):
        asking = asyncio.create_task(session.stats())
        asked = await guest.frame(Type.STATS)
        asking.cancel()  # both come before it runs again
        session.data_received(encode_frame(Type.REPLY, asked.id, encode_attrs([])))
        with pytest.raises(asyncio.CancelledError):
            await asking


class _Deaf:
    """A connection on which nothing is heard."""

    def send_frame(self, type_: Type, id_: int, body: bytes = b"") -> None: ...


@pytest.mark.parametrize("end", ["exit", "lost"])
async def test_input_for_a_process_that_has_ended_is_not_kept(end: str) -> None:
    """A guest says that it has, and never that its output has: 50 MB of hyperd's memory a second."""
    handle = GuestProcessHandle(_Deaf(), 3, Nothing())  # type: ignore[arg-type]
    handle.on_window(Window(0, 0, 100, False))
    waiting = asyncio.ensure_future(handle.write_stdin(bytes(1000)))
    await asyncio.sleep(0)
    assert handle.stdin.unsent == 900 and not waiting.done()
    if end == "exit":
        handle.set_exit(ExitStatus(code=0))
    else:
        handle.fail(Unavailable("it is gone"))
    await waiting
    for _ in range(100):
        await handle.write_stdin(bytes(65536))
    assert handle.stdin.unsent == 0 and len(handle.stdin._kept) == 0
