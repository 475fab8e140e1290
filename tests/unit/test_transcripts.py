# SPDX-License-Identifier: Apache-2.0
"""Transcripts of commands: how they are read, and what matches."""

from __future__ import annotations

import os
from pathlib import Path

from tests.transcript import Step, matches, play, read

TEXT = """# why
$ echo one
one
$ sh -c 'echo two; exit 3'
two
? 3
"""


def test_steps_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    steps = read(tmp_path / "t.txt")
    assert steps == [Step(2, "echo one", ["one"]), Step(4, "sh -c 'echo two; exit 3'", ["two"], 3)]
    assert play(steps, dict(os.environ), tmp_path) == []
    steps[0].expected, steps[1].status = ["other"], 0
    assert [w.partition(":")[0] for w in play(steps, dict(os.environ), tmp_path)] == ["line 2", "line 4"]


def test_holes_and_spaces() -> None:
    for expected, printed, same in (
        (["a  b"], "a b\n", True),
        (["a"], "a\nb\n", False),
        (["a", "b"], "a\n", False),
        (["<id> Up <age>"], "0123456789ab  Up 3 seconds\n", True),
        (["<id>"], "0123456789\n", False),
        (["Up <age>"], "Up About a minute\n", True),
        (["<size> (virtual <size>)"], "0B (virtual 2.2MB)\n", True),
        (["a<...>z"], "abcz\n", True),
        (["a.c"], "abc\n", False),
        (["...", "z"], "a\nb\nz\n", True),
        (["a", "..."], "a\n", True),
        ([], "", True),
        ([], "a\n", False),
    ):
        assert matches(Step(1, "x", expected), printed) is same, (expected, printed)
