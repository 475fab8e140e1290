# SPDX-License-Identifier: Apache-2.0
"""What every sink of a log does; the tests know only the port, and read what came by each one's own reader."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hypercontainer.engine.log_read import LogReader
from hypercontainer.engine.log_sinks import sender
from hypercontainer.engine.log_sinks.fake import FakeSink
from hypercontainer.engine.log_sinks.files import FileSink, Format, json_file, k8s_file
from hypercontainer.engine.log_sinks.journald import journald
from hypercontainer.engine.log_sinks.sender import Sender
from hypercontainer.engine.log_sinks.sink import LINE_MAX, Keeps, LogSink, NullSink, Piece
from hypercontainer.engine.log_sinks.syslog import header, syslog

TIME = 1_475_800_029_669_794_202  # 2016-10-07T00:27:09.669794202Z
Line = tuple[int, bytes, bool]  # stream, text, whether it goes on


@dataclass
class Receiver(ABC):
    """Where a sink's lines come out again."""

    place: Path
    keeps = True  # what is written can be read
    partial = True  # a line that goes on can be told from one that has ended
    bytes_ = True  # what is no text comes as it is
    sinks: list[LogSink] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.there = False

    def sink(self) -> LogSink:
        self.sinks.append(self.make())
        return self.sinks[-1]

    @abstractmethod
    def make(self) -> LogSink: ...

    @abstractmethod
    async def lines(self) -> list[Line]: ...

    async def open(self) -> None:
        """It can take."""
        self.there = True

    async def close(self) -> None:
        """It cannot."""
        self.there = False

    async def has(self, *expected: Line) -> None:
        """When all of it has come."""
        async with asyncio.timeout(20):
            while len(await self.lines()) < len(expected):
                await asyncio.sleep(0.01)
        assert await self.lines() == list(expected)

    async def end(self) -> None:
        for sink in self.sinks:
            sink.close()
            if isinstance(sink, Sender) and sink.task:
                async with asyncio.timeout(20):
                    await sink.task
        await self.close()


@dataclass
class InFile(Receiver):
    format_: Format = json_file

    def __post_init__(self) -> None:
        self.bytes_ = False  # the reader makes text of it
        self.path = self.place / "log" / "box.log"

    async def open(self) -> None:
        self.path.parent.mkdir()

    async def close(self) -> None:
        if self.path.parent.exists():
            self.path.parent.rename(self.place / "away")

    def make(self) -> LogSink:
        return FileSink(self.path, self.format_, max_size=1 << 30, max_files=3)

    async def lines(self) -> list[Line]:
        reader = LogReader(self.path)
        found: list[Line] = []
        while (records := reader.read()) is not None:
            assert all(r.time == "2016-10-07T00:27:09.669794202Z" for r in records)
            text = [(1 if r.stream == "stdout" else 2, r.log.encode()) for r in records]
            found += [(s, t.removesuffix(b"\n"), not t.endswith(b"\n")) for s, t in text]
        reader.close()
        return found


class InMemory(Receiver):
    def __post_init__(self) -> None:
        self.fake = FakeSink()

    def make(self) -> LogSink:
        return self.fake

    async def open(self) -> None:
        self.fake.fails = None

    async def close(self) -> None:
        self.fake.fails = OSError(5, "gone")

    async def lines(self) -> list[Line]:
        return [(p.stream, line, goes_on) for p in self.fake.pieces for line, goes_on in p.lines()]


class Nowhere(Receiver):
    keeps = False

    def make(self) -> LogSink:
        return NullSink()

    async def lines(self) -> list[Line]:
        return []


@dataclass
class OnSocket(Receiver):
    """A server of messages; each kind says how it listens, and what a message means."""

    messages: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self.path = self.place / "s"
        self.port = 0

    async def lines(self) -> list[Line]:
        return [self.read(m) for m in self.messages]

    @abstractmethod
    def read(self, message: bytes) -> Line: ...

    def listen(self, family: int) -> None:
        """For datagrams."""
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(str(self.path) if family == socket.AF_UNIX else ("127.0.0.1", self.port))
        self.port = self._sock.getsockname()[1] if family == socket.AF_INET else 0
        asyncio.get_running_loop().add_reader(self._sock, self._receive)

    def _receive(self) -> None:
        assert self._sock
        self.messages.append(self._sock.recv(1 << 20))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A stream of lines."""
        task = asyncio.current_task()
        assert task
        self._clients.add(task)
        try:
            while line := await reader.readline():
                self.messages.append(line.removesuffix(b"\n"))
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        if self._sock:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        if self._server:
            self._server.close()
            self._server = None
            for task in list(self._clients):
                task.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
        self.path.unlink(missing_ok=True)


class Journal(OnSocket):
    """Reads what systemd's journal reads."""

    async def open(self) -> None:
        self.listen(socket.AF_UNIX)

    def make(self) -> LogSink:
        return journald("the journal", {"CONTAINER_NAME": "box"}, "tag", self.path)

    def read(self, message: bytes) -> Line:
        fields: dict[bytes, bytes] = {}
        while message:
            name, _, message = message.partition(b"\n")
            if b"=" in name:
                name, _, value = name.partition(b"=")
            else:
                (size,) = struct.unpack_from("<Q", message)
                value, message = message[8 : 8 + size], message[9 + size :]
            fields[name] = value
        assert (
            fields[b"CONTAINER_NAME"] == b"box" and fields[b"SYSLOG_IDENTIFIER"] == fields[b"CONTAINER_TAG"] == b"tag"
        )
        assert fields[b"SYSLOG_TIMESTAMP"] == b"2016-10-07T00:27:09.669794202Z"
        stream = {b"6": 1, b"3": 2}[fields[b"PRIORITY"]]
        return stream, fields[b"MESSAGE"], fields.get(b"CONTAINER_PARTIAL_MESSAGE") == b"true"


_HOST = re.escape(socket.gethostname())
_OLD = rb"<(\d+)>Oct  [67] \d\d:27:09 %sbox\[\d+\]: (.*)"
PATTERNS = {
    "": _OLD % b"",
    "rfc3164": _OLD % f"{_HOST} ".encode(),
    "rfc5424": rb"<(\d+)>1 2016-10-07T00:27:09Z %s box \d+ box - (.*)" % _HOST.encode(),
    "rfc5424micro": rb"<(\d+)>1 2016-10-07T00:27:09.669794Z %s box \d+ box - (.*)" % _HOST.encode(),
}


@dataclass
class Syslog(OnSocket):
    partial = False
    transport: str = "udp"
    stream: bool = False  # a unix socket of that kind
    format_: str = ""

    async def open(self) -> None:
        if self.transport == "udp":
            self.listen(socket.AF_INET)
        elif self.transport == "tcp":
            self._server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        elif self.stream:
            self._server = await asyncio.start_unix_server(self.serve, self.path)
        else:
            self.listen(socket.AF_UNIX)

    def make(self) -> LogSink:
        host, port = (str(self.path), 0) if self.transport == "unix" else ("127.0.0.1", self.port)
        return syslog("syslog", (self.transport, host, port), header(self.format_, 3, "box", socket.gethostname()))

    def read(self, message: bytes) -> Line:
        found = re.fullmatch(PATTERNS[self.format_], message, re.DOTALL)
        assert found, message
        return {3 * 8 + 6: 1, 3 * 8 + 3: 2}[int(found[1])], found[2], False


RECEIVERS: dict[str, Callable[[Path], Receiver]] = {
    "json-file": lambda place: InFile(place),
    "k8s-file": lambda place: InFile(place, format_=k8s_file),
    "memory": InMemory,
    "none": Nowhere,
    "journald": Journal,
    "syslog udp": lambda place: Syslog(place),
    "syslog udp rfc5424": lambda place: Syslog(place, format_="rfc5424"),
    "syslog tcp rfc3164": lambda place: Syslog(place, transport="tcp", format_="rfc3164"),
    "syslog tcp rfc5424micro": lambda place: Syslog(place, transport="tcp", format_="rfc5424micro"),
    "syslog /dev/log": lambda place: Syslog(place, transport="unix"),
    "syslog on a stream": lambda place: Syslog(place, transport="unix", stream=True),
}


@pytest.fixture(params=list(RECEIVERS))
async def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    monkeypatch.setattr(sender, "_RETRY", 0.02)
    with tempfile.TemporaryDirectory(prefix="hc") as short:  # sockets need short paths
        made = RECEIVERS[request.param](Path(short))
        yield made
        await made.end()


def piece(data: bytes, stream: int = 1, *, partial: bool = False) -> Piece:
    return Piece(stream, TIME, data, partial)


def needs(receiver: Receiver) -> None:
    if not receiver.keeps:
        pytest.skip("it keeps nothing")


async def test_lines_of_both_streams_in_their_order(receiver: Receiver) -> None:
    await receiver.open()
    sink = receiver.sink()
    sink.open()
    sink.open()
    sink.write(piece(b"one\ntwo\n"))
    sink.write(piece(b"bad\n", 2))
    sink.write(piece(b"\n"))
    sink.write(piece(b"the last"))
    sink.flush()
    if receiver.keeps:
        last = isinstance(receiver, InFile) and receiver.format_ is json_file  # it says that there was no line end
        await receiver.has(
            (1, b"one", False), (1, b"two", False), (2, b"bad", False), (1, b"", False), (1, b"the last", last)
        )
    sink.close()
    sink.close()


async def test_a_long_line_is_divided(receiver: Receiver) -> None:
    needs(receiver)
    await receiver.open()
    sink = receiver.sink()
    sink.open()
    sink.write(piece(b"x" * LINE_MAX, partial=True))
    sink.write(piece(b"y" * (LINE_MAX + 1), partial=True))
    sink.write(piece(b"end\n"))
    goes_on = receiver.partial
    await receiver.has(
        (1, b"x" * LINE_MAX, goes_on), (1, b"y" * LINE_MAX, goes_on), (1, b"y", goes_on), (1, b"end", False)
    )


async def test_what_is_no_text(receiver: Receiver) -> None:
    needs(receiver)
    await receiver.open()
    sink = receiver.sink()
    sink.open()
    text = b'\xff\xfe\x00 = "\\n" \t\x1b['
    sink.write(piece(text + b"\n"))
    await receiver.has((1, text if receiver.bytes_ else text.decode("utf-8", "replace").encode(), False))


async def test_a_receiver_that_is_not_there_and_comes(receiver: Receiver) -> None:
    """What a sink refuses is not there; what it takes comes."""
    needs(receiver)
    await receiver.open()
    await receiver.close()
    sink = receiver.sink()
    taken: list[Line] = []
    for text in (b"early", b"also"):
        try:
            sink.open()
            sink.write(piece(text + b"\n"))
        except OSError as error:
            assert error.errno
        else:
            taken.append((1, text, False))
    if isinstance(receiver, InFile):
        (receiver.place / "away").rename(receiver.path.parent)
    else:
        await receiver.open()
    if isinstance(receiver, Syslog) and receiver.transport == "udp":
        taken = []  # nobody hears of a datagram that nobody took; the host may say so with the next one
        async with asyncio.timeout(20):
            while not receiver.messages:
                sink.write(piece(b"again\n"))
                await asyncio.sleep(0.02)
        return
    sink.open()
    sink.write(piece(b"late\n"))
    await receiver.has(*taken, (1, b"late", False))


async def test_a_receiver_that_begins_anew(receiver: Receiver) -> None:
    """A file that was moved away by who rotates it; a server that was started again."""
    needs(receiver)
    await receiver.open()
    sink = receiver.sink()
    sink.open()
    sink.write(piece(b"one\n"))
    await receiver.has((1, b"one", False))
    if isinstance(receiver, InFile):
        receiver.path.rename(receiver.place / "old")
        sink.write(piece(b"still there\n"))
        sink.reopen()
        sink.write(piece(b"two\n"))
        await receiver.has((1, b"two", False))
        assert b"still there" in (receiver.place / "old").read_bytes()
        return
    await receiver.close()
    await receiver.open()
    sink.write(piece(b"two\n"))
    await receiver.has((1, b"one", False), (1, b"two", False))
    sink.reopen()
    sink.write(piece(b"three\n"))
    await receiver.has((1, b"one", False), (1, b"two", False), (1, b"three", False))


async def test_what_is_not_accounted_for_can_be_taken_back(receiver: Receiver) -> None:
    await receiver.open()
    sink = receiver.sink()
    sink.open()
    if not isinstance(sink, Keeps):
        assert not isinstance(receiver, InFile)
        return
    sink.write(piece(b"one\n"))
    place = sink.place()
    sink.write(piece(b"two\n"))
    sink.back_to(place)
    sink.write(piece(b"three\n"))
    await receiver.has((1, b"one", False), (1, b"three", False))


# -- what only some have --------------------------------------------------------------


async def test_what_waits_too_long_is_dropped_and_the_gap_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sender, "_RETRY", 0.02)
    monkeypatch.setattr(sender, "_WAITS_MAX", 100)
    with tempfile.TemporaryDirectory(prefix="hc") as short:
        receiver = Journal(Path(short))
        sink = receiver.sink()
        sink.open()
        sink.write(piece(b"a" * 90 + b"\n"))
        for _ in range(3):
            with pytest.raises(OSError, match="buffer space"):
                sink.write(piece(b"b" * 90 + b"\n"))
        await asyncio.sleep(0.1)
        await receiver.open()
        await receiver.has((1, b"a" * 90, False))
        sink.write(piece(b"after\n"))
        gap = b"[hyperd: 273 bytes of stdout are missing here: they could not be sent in time]"
        await receiver.has((1, b"a" * 90, False), (1, gap, False), (1, b"after", False))
        await receiver.end()
    said = [r.getMessage() for r in caplog.records]
    assert said == [
        "the journal does not work, and is tried again: No such file or directory",
        "the journal works again",
    ]


async def test_what_cannot_be_sent_at_the_end_is_given_up_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sender, "_RETRY", 0.02)
    sink = journald("the journal", {}, "tag", tmp_path / "none")
    sink.open()
    sink.write(piece(b"lost\n"))
    sink.close()
    assert sink.task
    async with asyncio.timeout(20):
        await sink.task
    assert "the last 5 bytes were not sent: " in caplog.text


def test_the_kubelets_own_example(tmp_path: Path) -> None:
    """kubernetes/design-proposals-archive, node/kubelet-cri-logging.md"""
    path = tmp_path / "log"
    sink = FileSink(path, k8s_file)
    sink.open()
    sink.write(Piece(1, 1_475_712_997_169_794_202, b"The content of the log entry 1\n"))
    sink.close()
    assert path.read_bytes() == b"2016-10-06T00:16:37.169794202Z stdout F The content of the log entry 1\n"
    assert os.stat(path).st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
