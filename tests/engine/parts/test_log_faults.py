# SPDX-License-Identifier: Apache-2.0
"""Logs on a disk that fills up, of other names, rotated under their readers; and output that nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypercontainer.engine import log_read, logs, streams
from hypercontainer.engine.log_sinks.sink import NullSink
from hypercontainer.engine.streams import FanOut
from hypercontainer.errors import NoSpace
from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.protocol.constants import OUTPUT_RING, Type
from hypercontainer.protocol.messages import ExitStatus, KnownProcess
from hypercontainer.protocol.streams import Data, decode_window
from tests.small_disk import small_disk

LINE = b"x" * 1023 + b"\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with small_disk(tmp_path / "small", 1) as place:
        yield place


class Wire:
    """A guest's side that sends what it has credit for."""

    def __init__(self) -> None:
        self.limit = {1: 0, 2: 0}

    def send_frame(self, type_: int, id_: int, body: bytes) -> None:
        if type_ == Type.WINDOW:
            window = decode_window(body)
            self.limit[window.stream] = window.limit

    async def resize(self, *_: object) -> None: ...


class Run:
    """A process with its output."""

    def __init__(self, log: Callable[[], logs.OutputLog] | None = None) -> None:
        self.fan_out, self.wire, self.sent = FanOut(log), Wire(), 0
        self.fan_out.begin()
        self.handle = GuestProcessHandle(self.wire, 1, self.fan_out)
        self.fan_out.attach_process(self.handle)
        self.handle.open_windows()

    def print(self, text: bytes) -> bool:
        """False when there is no credit for it."""
        if self.sent + len(text) > self.wire.limit[1]:
            return False
        self.handle.on_data(Data(1, self.sent, text, eof=False))
        self.sent += len(text)
        return True

    def end(self) -> None:
        self.handle.set_exit(ExitStatus())
        self.handle.on_data(Data(1, self.sent, b"", eof=True))
        self.handle.on_data(Data(2, 0, b"", eof=True))


def _log(path: Path, size: int = 64 << 20, files: int = 3) -> logs.OutputLog:
    return logs.json_log(path, max_size=size, max_files=files)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_full_disk_holds_the_output_back_until_there_is_space(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_RETRY", 0.02)
    ballast = small / "ballast"
    ballast.write_bytes(bytes(900 << 10))
    run, n = Run(lambda: _log(small / "container.log")), 0
    while run.print(b"%07d " % n + LINE[8:]):
        n += 1
        assert n < 2000, "nothing was held back"
    assert n * len(LINE) < (200 << 10) + OUTPUT_RING + (64 << 10)
    ballast.unlink()
    await _until(lambda: run.print(b"%07d " % n + LINE[8:]))
    run.end()
    assert run.handle.drained.is_set()
    got = [int(r.log[:7]) for r in logs.read(small / "container.log")]
    assert got == list(range(n + 1))


async def test_a_log_that_is_full_at_the_end_is_finished_when_there_is_space(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_RETRY", 0.02)
    run = Run(lambda: _log(small / "container.log"))
    run.print(b"first\n")
    ballast = small / "ballast"
    with open(ballast, "wb", buffering=0) as f, pytest.raises(OSError, match="No space"):
        while True:
            f.write(bytes(4096))
    n = 0
    while n < 100 and run.print(LINE):
        n += 1
    run.print(b"no end")
    run.end()
    run.fan_out.finish()
    ballast.unlink()
    await _until(lambda: logs.read(small / "container.log")[-1].log == "no end")
    assert len(logs.read(small / "container.log")) == n + 2
    run.fan_out.discard()


async def test_a_log_that_cannot_be_opened_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="the log cannot be written"):
        FanOut(lambda: _log(tmp_path / "none" / "container.log")).begin()


def test_a_rotation_without_space_keeps_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _log(tmp_path / "container.log", size=2000)
    log.begin()
    for n in range(40):
        assert log.write(1, b"%d\n" % n)
    before = [r.log for r in logs.read(tmp_path / "container.log")]
    real = os.open

    def full(path: object, *how: int, **more: int) -> int:
        if str(path).endswith(".new"):
            raise OSError(28, "No space left on device")
        return real(path, *how, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(os, "open", full)
        while log.write(1, b"y\n"):
            before.append("y\n")
        assert log.error and [r.log for r in logs.read(tmp_path / "container.log")] == before
    assert log.write(1, b"z\n") == 4
    assert [r.log for r in logs.read(tmp_path / "container.log")] == [*before, "y\n", "z\n"]
    log.close()


def test_two_logs_of_one_directory_have_an_account_each(tmp_path: Path) -> None:
    one, two = _log(tmp_path / "one.log"), _log(tmp_path / "two.log")
    one.begin()
    two.begin()
    one.write(1, b"1234\n")
    two.write(1, b"12345678\n")
    assert (one.offsets, two.offsets) == ((5, 0), (9, 0))
    one.close()
    two.close()


def test_no_log_counts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = logs.OutputLog(NullSink(), tmp_path / "offsets")
    first.begin()
    assert first.write(1, b"abc") == 3 and first.write(2, b"d") == 1
    first.close()
    second = logs.OutputLog(NullSink(), tmp_path / "offsets")
    assert second.begin(resume=True) == (3, 1)
    second.close()
    third = logs.OutputLog(NullSink(), tmp_path / "none" / "offsets")  # an account that cannot be kept holds nothing
    assert third.begin() == (0, 0) and third.write(1, b"abc") == 3 and third.error is None
    third.close()


# -- a log that cannot be opened when a daemon comes back ----------------------------------------


@contextlib.contextmanager
def refused(monkeypatch: pytest.MonkeyPatch, *calls: str) -> Iterator[None]:
    """Files can be read, and neither made nor written."""

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        for call in calls:
            context.setattr(os, call, full)
        yield


@pytest.mark.parametrize("calls", [("open",), ("pwrite",), ("write", "pwrite")])
async def test_what_runs_goes_on_without_its_log_and_has_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: tuple[str, ...]
) -> None:
    monkeypatch.setattr(streams, "_RETRY", 0.02)
    path = tmp_path / "container.log"
    before = _log(path)
    before.begin()
    assert before.write(1, b"one\n") == 4
    before.close()
    told: list[str] = []
    fan_out = FanOut(lambda: _log(path))
    fan_out.told = told.append
    with refused(monkeypatch, *calls):
        assert fan_out.begin(resume=True) == (4, 0)
        reader = fan_out.attach()
        assert fan_out.write(1, b"two\n") == 0 and fan_out.write(2, b"three\n") == 0  # held back
        assert told == ["No space left on device"]
    await _until(lambda: told[-1] == "")
    assert fan_out.write(1, b"four\n") == 5
    fan_out.finish()
    assert [r.log for r in logs.read(path)] == ["one\n", "two\n", "three\n", "four\n"]
    assert b"".join([data async for _, data in reader]) == b"two\nthree\nfour\n"
    assert path.with_name("offsets").read_bytes()[:16] == struct.pack("<QQ", 13, 6)


async def test_an_account_that_cannot_be_read_makes_nothing_missing_or_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file system comes late: the guest begins with what was not acknowledged, of which the log has a part."""
    monkeypatch.setattr(streams, "_RETRY", 0.02)
    late, place = tmp_path / "late", tmp_path / "place"
    late.mkdir()
    before = _log(late / "box.log")
    before.begin()
    before.write(1, b"one\ntwo\nthree\n")
    before.close()
    fan_out = FanOut(lambda: _log(place / "box.log"))
    assert fan_out.begin(resume=True) == (0, 0)
    wire = Wire()
    handle = GuestProcessHandle(wire, 1, fan_out)
    fan_out.attach_process(handle)
    handle.rebind(wire, KnownProcess(1, 1, 0, False, (4, 0), None))
    handle.on_data(Data(1, 4, b"two\nthree\nfour\n", eof=False))
    late.rename(place)
    await _until(lambda: len(logs.read(place / "box.log")) == 4)
    assert [r.log for r in logs.read(place / "box.log")] == ["one\n", "two\n", "three\n", "four\n"]
    assert wire.limit[1] == 19 + OUTPUT_RING or wire.limit[1] == 4 + OUTPUT_RING  # told when there is enough to tell
    fan_out.discard()


# -- readers of the output ------------------------------------------------------------------


async def test_a_paused_reader_holds_the_log_back_only_while_the_process_runs(tmp_path: Path) -> None:
    run = Run(lambda: _log(tmp_path / "container.log"))
    reader, n = run.fan_out.attach(), 0
    while run.print(LINE):
        n += 1
        assert n < 10_000, "nothing was held back"
    run.handle.set_exit(ExitStatus())
    left = 0
    while left < 300:  # what lies in the guest's pipe yet
        assert run.print(LINE)
        left += 1
    run.end()
    assert len(logs.read(tmp_path / "container.log")) == n + left
    assert sum([len(data) async for _, data in reader]) == (n + left) * len(LINE)
    assert reader.lost == 0


async def test_a_reader_of_a_process_that_ended_is_told_what_it_missed() -> None:
    run = Run()
    reader = run.fan_out.attach()
    run.handle.set_exit(ExitStatus())
    for _ in range(8 << 10):
        assert run.print(LINE)
    run.end()
    got = sum([len(data) async for _, data in reader])
    assert got <= 4 << 20 and got + reader.lost == 8 << 20


async def test_a_reader_of_one_run_does_not_hold_the_next_back() -> None:
    run = Run()
    reader = run.fan_out.attach()
    while run.print(LINE):
        pass
    run.end()
    run.fan_out.begin()
    assert run.fan_out.write(1, LINE) == len(LINE)
    assert not any([b"next" in data async for _, data in reader])


async def test_output_in_single_bytes_costs_no_more_memory_than_bytes() -> None:
    run = Run()
    run.fan_out.attach()
    tracemalloc.start()
    try:
        for n in range(30_000):
            run.fan_out.write(1 + n % 2, b"x")
        assert tracemalloc.get_traced_memory()[1] < 800 << 10
    finally:
        tracemalloc.stop()


# -- readers of the log -----------------------------------------------------------------------


def _filled(path: Path, lines: int, *, size: int = 1 << 30, files: int = 3) -> logs.OutputLog:
    log = _log(path, size, files)
    log.begin()
    for at in range(0, lines, 500):
        log.write(1, b"".join(b"%d\n" % n for n in range(at, min(lines, at + 500))))
    return log


def test_the_last_lines_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    _filled(path, 300_000).close()
    tracemalloc.start()
    try:
        assert [r.log for r in logs.read(path, tail=5)] == [f"{n}\n" for n in range(299_995, 300_000)]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tail", [0, 1, 2, 7, 1700, 1999, 2000, 2001, 5000])
def test_any_tail_across_files_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int) -> None:
    path = tmp_path / "container.log"
    _filled(path, 2000, size=40_000, files=9).close()
    monkeypatch.setattr(log_read, "_BLOCK", 333)
    everything = [r.log for r in logs.read(path)]
    assert everything == [f"{n}\n" for n in range(2000)]
    assert [r.log for r in logs.read(path, tail=tail)] == (everything[-tail:] if tail else [])


def test_a_tail_of_lines_between_two_times(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_text(
        "".join(f'{{"log":"{n}\\n","stream":"stdout","time":"2026-01-01T00:00:{n:02}Z"}}\n' for n in range(60))
    )
    found = logs.read(path, tail=3, since="2026-01-01T00:00:10Z", until="2026-01-01T00:00:20Z")
    assert [r.log for r in found] == ["18\n", "19\n", "20\n"]
    assert len(logs.read(path, tail=100, since="2026-01-01T00:00:50Z")) == 10


def test_a_record_longer_than_a_block(tmp_path: Path) -> None:
    log = _log(tmp_path / "container.log")
    log.begin()
    long = b"\x01" * 200_000 + b"\n"
    log.write(1, b"before\n" + long + b"after\n")
    log.close()
    assert [len(r.log) for r in logs.read(tmp_path / "container.log")] == [7, len(long), 6]
    assert [len(r.log) for r in logs.read(tmp_path / "container.log", tail=2)] == [len(long), 6]


def test_a_slow_reader_loses_nothing_to_rotations(tmp_path: Path) -> None:
    """It holds the files open that it has not read yet; several rotations pass between two reads."""
    log = _filled(tmp_path / "container.log", 500, size=30_000, files=9)
    reader = log_read.LogReader(tmp_path / "container.log")
    seen: list[int] = []
    for begin in range(500, 3000, 500):
        seen += [int(r.log) for r in reader.read() or []]
        log.write(1, b"".join(b"%d\n" % n for n in range(begin, begin + 500)))
    while True:
        while (records := reader.read()) is not None:
            seen += [int(r.log) for r in records]
        if not reader.turn():
            break
    assert seen == list(range(3000))
    reader.close()
    log.close()
