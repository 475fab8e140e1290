# SPDX-License-Identifier: Apache-2.0
"""Processes, streams and reconnection, against the real guest init."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import tarfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError, StartFailed
from hypercontainer.guest.session import GuestSession
from hypercontainer.protocol.constants import FIRST_TOKEN, Builtin, Tag, Type
from hypercontainer.protocol.messages import ExitStatus, GuestHook, GuestProcess
from hypercontainer.protocol.wire import encode_frame

from .conftest import Guest, Sink

Start = Callable[[], AbstractAsyncContextManager[Guest]]
ENV = ("PATH=/usr/bin:/bin",)


def shell(script: str, **options: object) -> GuestProcess:
    return GuestProcess(args=("/bin/sh", "-c", script), env=ENV, **options)  # type: ignore[arg-type]


async def finish(session: GuestSession, process: GuestProcess) -> tuple[ExitStatus, Sink]:
    sink = Sink()
    handle = await session.start(process, sink)
    status = await asyncio.wait_for(handle.exited, 20)
    await asyncio.wait_for(handle.drained.wait(), 20)
    await session.release(handle)
    return status, sink


async def test_output_and_exit_code(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        status, sink = await finish(session, shell("echo out; echo err >&2; exit 7"))
        assert status == ExitStatus(code=7), bytes(sink.data[2])
        assert (sink.data[1], sink.data[2]) == (b"out\n", b"err\n")
        assert sink.ended == {1, 2}
        session.close()


async def test_hooks_are_run_before_it(start: Start, tmp_path: Path) -> None:
    def hook(script: str, timeout: float = 20.0) -> GuestHook:
        return GuestHook("/bin/sh", ("sh", "-c", script), ("A=b", *ENV), "heard", timeout)

    async with start() as guest:
        session = await guest.session()
        first = hook(f"echo $A $(cat) >{tmp_path}/one")
        second = hook(f"cat {tmp_path}/one >{tmp_path}/two; sleep 100 &")
        status, sink = await finish(session, shell(f"cat {tmp_path}/two", hooks=(first, second)))
        assert (status.code, sink.data[1]) == (0, b"b heard\n"), bytes(sink.data[2])
        for failing, words in (
            (hook("seq 100000; exit 3"), "the hook /bin/sh failed with status 3: 1\n2\n"),
            (hook("kill -9 $$"), "the hook /bin/sh failed with status 137"),
            (hook("sleep 100", 0.1), "the hook /bin/sh has not ended within 100 ms"),
        ):
            with pytest.raises(StartFailed, match=words):
                after = hook(f"touch {tmp_path}/ran")
                await session.start(shell(f"touch {tmp_path}/ran", hooks=(failing, after)), Sink())
        assert not (tmp_path / "ran").exists()
        session.close()


@pytest.mark.parametrize("code", [0, 1, 2, 127, 128, 255])
async def test_exit_codes(start: Start, code: int) -> None:
    async with start() as guest:
        session = await guest.session()
        assert (await finish(session, shell(f"exit {code}")))[0].shell_code == code
        session.close()


async def test_signal_is_reported(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(shell("exec sleep 100"), sink)
        await session.signal(handle, signal.SIGTERM)
        status = await asyncio.wait_for(handle.exited, 20)
        assert status == ExitStatus(signal=signal.SIGTERM)
        assert status.shell_code == 143
        session.close()


async def test_missing_program(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        with pytest.raises(StartFailed, match=r'"nosuch": executable file not found in \$PATH') as caught:
            await session.start(GuestProcess(args=("nosuch",), env=ENV), Sink())
        assert caught.value.exit_status == 127
        with pytest.raises(StartFailed) as caught:
            await session.start(GuestProcess(args=("/etc/passwd",), env=ENV), Sink())
        assert caught.value.exit_status == 126
        assert (await finish(session, shell("exit 3")))[0].code == 3
        session.close()


async def test_unknown_user_and_directory(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        with pytest.raises(StartFailed, match="unable to find user nosuchuser"):
            await session.start(shell("true", user="nosuchuser"), Sink())
        with pytest.raises(StartFailed, match="working directory /nosuch"):
            await session.start(shell("true", cwd="/nosuch"), Sink())
        session.close()


@pytest.mark.parametrize("size", [0, 7, 12, 4097 * 8])
async def test_what_is_no_filter(start: Start, size: int) -> None:
    async with start() as guest:
        session = await guest.session()
        with pytest.raises(GuestError, match=f"a seccomp filter of {size} bytes"):
            await session.request(Type.PROCESS_START, [(Tag.ARG, "/bin/true"), (Tag.FILTER, bytes(size))], 1000)
        with pytest.raises(GuestError, match="seccomp flags 8"):
            await session.request(Type.PROCESS_START, [(Tag.ARG, "/bin/true"), (Tag.FILTER_FLAGS, 8)], 1000)
        with pytest.raises(GuestError, match="the kernel refuses the seccomp filter"):
            await session.start(GuestProcess(args=("/bin/true",), filter=bytes(8), no_new_privs=True), Sink())
        session.close()


async def test_stdin_to_its_end(start: Start) -> None:
    payload = os.urandom(3 << 20)
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(GuestProcess(args=("/bin/cat",), env=ENV, stdin=True), sink)
        for at in range(0, len(payload), 100_000):
            await asyncio.wait_for(handle.write_stdin(payload[at : at + 100_000]), 20)
        handle.close_stdin()
        assert (await asyncio.wait_for(handle.exited, 20)).code == 0
        await asyncio.wait_for(handle.drained.wait(), 20)
        assert bytes(sink.data[1]) == payload
        session.close()


async def test_input_to_a_process_that_does_not_read(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        handle = await session.start(shell("exec 0<&-; exec sleep 0.2", stdin=True), Sink())
        # More than pipe and window hold: it must not block for ever.
        await asyncio.wait_for(handle.write_stdin(bytes(1 << 20)), 20)
        assert (await asyncio.wait_for(handle.exited, 20)).code == 0
        session.close()


async def test_unacknowledged_output_stops_at_the_window(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        sink.accept = False
        handle = await session.start(shell("head -c 1000000 /dev/zero; echo done >&2"), sink)

        async def full() -> None:
            while len(sink.data[1]) < 262144:
                await asyncio.sleep(0)

        await asyncio.wait_for(full(), 20)
        assert (await finish(session, shell("echo other")))[1].data[1] == b"other\n"
        assert len(sink.data[1]) == 262144 and not handle.exited.done()
        sink.accept = True
        handle.acknowledge(1, len(sink.data[1]))
        await asyncio.wait_for(handle.drained.wait(), 20)
        assert len(sink.data[1]) == 1_000_000
        session.close()


async def test_terminal(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(
            shell("stty size; read x; echo got-$x; stty size", tty=True, rows=33, columns=77, stdin=True), sink
        )
        await session.resize(handle, 40, 90)
        await handle.write_stdin(b"line\r")
        assert (await asyncio.wait_for(handle.exited, 20)).code == 0
        await asyncio.wait_for(handle.drained.wait(), 20)
        text = bytes(sink.data[1])
        assert b"got-line" in text and b"40 90" in text
        session.close()


async def test_nothing_is_lost_with_a_connection(start: Start) -> None:
    """Output and exit status of a process outlive the connection that saw it start."""
    async with start() as guest:
        first = await guest.session()
        sink = Sink()
        sink.accept = False  # received, never acknowledged
        handle = await first.start(shell("seq 1 20000; echo end >&2; exit 9"), sink)
        await asyncio.wait_for(handle.exited, 20)
        token, id_ = first.next_token, handle.id
        # A torn frame precedes the new connection's token.
        guest.sock.setblocking(True)
        guest.sock.sendall(encode_frame(Type.STATS, 99, bytes(500))[:300])
        guest.sock.setblocking(False)
        first.close()
        second = await guest.session(token)
        assert second.hello is not None
        known = {p.id: p for p in second.hello.processes}
        assert known[id_].exit == ExitStatus(code=9)
        again = Sink()
        reattached = second.reattach(id_, again, (0, 0))
        assert reattached is not None
        await asyncio.wait_for(reattached.drained.wait(), 20)
        assert bytes(again.data[1]) == b"".join(b"%d\n" % n for n in range(1, 20001))
        assert bytes(again.data[2]) == b"end\n"
        await second.release(reattached)
        assert second.reattach(12345, Sink(), (0, 0)) is None
        second.close()


async def test_resume_in_the_middle(start: Start) -> None:
    async with start() as guest:
        first = await guest.session()
        sink = Sink()
        handle = await first.start(shell("seq 1 5000; sleep 100"), sink)
        expected = b"".join(b"%d\n" % n for n in range(1, 5001))

        async def all_there() -> None:
            while len(sink.data[1]) < len(expected):
                await asyncio.sleep(0)

        await asyncio.wait_for(all_there(), 20)
        first.close()
        second = await guest.session(first.next_token)
        again = Sink()
        reattached = second.reattach(handle.id, again, (len(expected), 0))
        assert reattached is not None
        await second.signal(reattached, signal.SIGKILL)
        assert (await asyncio.wait_for(reattached.exited, 20)).signal == signal.SIGKILL
        await asyncio.wait_for(reattached.drained.wait(), 20)
        assert again.data[1] == b""
        second.close()


async def test_archive_there_and_back(start: Start, tmp_path: Path) -> None:
    source, target = tmp_path / "tree", tmp_path / "target"
    (source / "deep" / ("n" * 120)).mkdir(parents=True)
    target.mkdir()
    (source / "deep" / ("n" * 120) / "file").write_bytes(os.urandom(100_000))
    (source / "link").symlink_to("deep")
    os.link(source / "deep" / ("n" * 120) / "file", source / "hard")
    (source / "hard").chmod(0o4751)
    (source / "empty").touch()
    async with start() as guest:
        session = await guest.session()
        status, made = await finish(session, GuestProcess(args=(str(source),), builtin=Builtin.TAR_CREATE))
        assert status.code == 0, made.data[2]
        with tarfile.open(fileobj=io.BytesIO(made.data[1])) as tar:
            names = {m.name: m for m in tar}
        assert names["tree/link"].linkname == "deep" and names["tree/hard"].mode == 0o4751
        sink = Sink()
        handle = await session.start(GuestProcess(args=(str(target),), builtin=Builtin.TAR_EXTRACT, stdin=True), sink)
        await handle.write_stdin(bytes(made.data[1]))
        handle.close_stdin()
        assert (await asyncio.wait_for(handle.exited, 20)).code == 0, sink.data[2]
        session.close()
    copy = target / "tree"
    assert (copy / "hard").read_bytes() == (source / "hard").read_bytes()
    assert (copy / "hard").stat().st_nlink == 2 and (copy / "hard").stat().st_mode == (source / "hard").stat().st_mode
    assert os.readlink(copy / "link") == "deep"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_connection_is_relayed(start: Start, address: str) -> None:
    """More than all buffers, both ways; who listens hears the end of input, and answers further."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write(b"end")
        writer.close()

    server = await asyncio.start_server(answer, address, 0)
    port = server.sockets[0].getsockname()[1]
    payload = os.urandom(3 << 20)
    async with server, start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(session.relay_process(port, 10), sink)
        await asyncio.wait_for(handle.write_stdin(payload), 20)
        handle.close_stdin()
        assert (await asyncio.wait_for(handle.exited, 20)).code == 0, sink.data[2]
        await asyncio.wait_for(handle.drained.wait(), 20)
        assert bytes(sink.data[1]) == payload + b"end"
        session.close()


async def test_a_connection_that_cannot_be_or_breaks(start: Start) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with start() as guest:
        session = await guest.session()
        async with server:
            status, sink = await finish(session, session.relay_process(port, 10))
            assert status.code == 0 and not sink.data[1]
        status, sink = await finish(session, session.relay_process(port, 10))
        assert status.code == 1
        assert sink.data[2] == b"connecting to port %d within the pod: Connection refused\n" % port
        session.close()


@pytest.mark.parametrize("name", ["../escape", "a/../../escape"])
async def test_archive_that_leaves_its_target(start: Start, tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(GuestProcess(args=(str(inside),), builtin=Builtin.TAR_EXTRACT, stdin=True), sink)
        await handle.write_stdin(raw.getvalue())
        handle.close_stdin()
        assert (await asyncio.wait_for(handle.exited, 20)).code == 1
        await asyncio.wait_for(handle.drained.wait(), 20)
        assert b"leaves the target" in sink.data[2]
        session.close()
    assert not list(tmp_path.glob("escape*"))


async def test_refusals(start: Start) -> None:
    """A malformed or impossible request is answered with an error, and the guest goes on."""
    async with start() as guest:
        session = await guest.session()
        for type_, attrs, words in (
            (200, [], "no request 200"),
            (Type.PROCESS_START, [], "at least one argument"),
            (Type.PROCESS_START, [(Tag.ARG, "a\0b")], "NUL"),
            (Type.PROCESS_START, [(Tag.ARG, "x"), (Tag.TTY, b"123")], "not a number"),
            (Type.PROCESS_SIGNAL, [(Tag.ID, 77)], "no process 77"),
            (Type.CONTAINER_CREATE, [(Tag.ID, "../x"), (Tag.IMAGE_DISK, "d"), (Tag.FSTYPE, "f")], "needs an id"),
            (Type.CONTAINER_DELETE, [(Tag.ID, "none")], "no container none"),
        ):
            with pytest.raises(GuestError, match=words):
                await session.request(type_, attrs, 10)  # type: ignore[arg-type]
        assert (await finish(session, shell("exit 0")))[0].code == 0
        session.close()


@pytest.mark.parametrize(
    "garbage",
    [
        encode_frame(Type.PROCESS_START, 5, b"\x01"),
        encode_frame(Type.PROCESS_START, 5, b"\x29\0\0\0\xff\xff\xff\xff"),
        encode_frame(Type.DATA, 5, b"\x00"),
        encode_frame(Type.WINDOW, 5, bytes(15)),
        b"\xff" * 64,
        b"\0" * 64,
        b"\x03\0\0\0" + bytes(60),
        encode_frame(Type.CONTAINER_CREATE, 9, b"\x1d\0\0\0\x04\0\0\0abcd"),
    ],
)
async def test_garbage_never_ends_the_guest(start: Start, garbage: bytes) -> None:
    async with start() as guest:
        session = await guest.session()
        token = session.next_token
        guest.sock.setblocking(True)
        guest.sock.sendall(garbage)
        guest.sock.setblocking(False)
        session.close()
        again = await guest.session(token)
        assert (await finish(again, shell("echo alive")))[1].data[1] == b"alive\n"
        again.close()


async def test_wrong_token_opens_nothing(start: Start) -> None:
    async with start() as guest:
        session = await guest.session()
        session.close()
        guest.sock.setblocking(True)
        guest.sock.settimeout(0.3)
        guest.sock.sendall(FIRST_TOKEN + encode_frame(Type.STATS, 1))  # spent already
        with pytest.raises(TimeoutError):
            while guest.sock.recv(4096):
                pass
