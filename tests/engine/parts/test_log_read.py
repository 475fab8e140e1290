# SPDX-License-Identifier: Apache-2.0
"""Reading a log's files: torn lines, lines longer than any of ours, a log that is not there yet, both formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.engine import log_read
from hypercontainer.engine.log_read import LogReader, read


def line(text: str, second: int = 0) -> str:
    return f'{{"log":"{text}\\n","stream":"stdout","time":"2026-01-01T00:00:{second:02}.000000000Z"}}\n'


def texts(path: Path, **how: object) -> list[str]:
    return [r.log for r in read(path, **how)]  # type: ignore[arg-type]


def test_no_lines_of_a_log_are_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line("old"))
    reader = LogReader(path)
    reader.seek(0)
    assert reader.read() is None
    with path.open("a") as f:
        f.write(line("new"))
    assert [r.log for r in reader.read() or []] == ["new\n"]
    reader.close()


def test_the_last_lines_since_a_time_are_no_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(line(str(n), n) for n in range(10)))
    assert texts(path, tail=5, since="2026-01-01T00:00:07Z") == ["7\n", "8\n", "9\n"]
    assert texts(path, tail=2, since="2026-01-01T00:00:07Z") == ["8\n", "9\n"]
    assert texts(path, tail=2, until="2026-01-01T00:00:07Z") == ["6\n", "7\n"]


def test_a_log_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path, at_end=True)
    assert reader.read() is None and not reader.turn()
    path.write_text(line("first"))
    assert reader.turn() and [r.log for r in reader.read() or []] == ["first\n"]
    assert reader.read() is None and not reader.turn()
    path.rename(tmp_path / "log.1")
    path.write_text(line("second"))
    assert reader.turn()
    assert [r.log for r in reader.read() or []] == ["second\n"]
    for file in (path, tmp_path / "log.1"):
        file.unlink()
    path.write_text(line("third"))  # it was rotated so often that none of ours is left
    assert reader.turn() and [r.log for r in reader.read() or []] == ["third\n"]
    reader.close()


def test_what_is_longer_than_any_line_of_ours_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_read, "_BLOCK", 128)
    monkeypatch.setattr(log_read, "_RECORD_MAX", 512)
    path = tmp_path / "log"
    path.write_text(line("before") + "x" * 2000 + "\n" + line("after"))
    assert texts(path) == ["before\n", "after\n"]
    assert texts(path, tail=1) == ["after\n"]
    assert texts(path, tail=2) == ["before\n", "after\n"]  # as far as it is looked for: from the beginning


def test_torn_lines_of_either_format_are_none(tmp_path: Path) -> None:
    path = tmp_path / "log"
    moment = "2026-01-31T12:00:00.000000000Z"
    path.write_text(
        f'{{"log":"torn\n{moment} stdout F whole\n{moment} stdout P part\n{moment} stderr\n{moment} stdin F x\n'
        f"{moment} stdout X x\n{moment} stdout F\n{line('json')}unfinished"
    )
    assert texts(path) == ["whole\n", "part", "json\n"]
    assert texts(path, tail=2) == ["part", "json\n"]
