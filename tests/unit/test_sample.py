# SPDX-License-Identifier: Apache-2.0
"""Which of many trials a run makes (tests/sample.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sample import Sample, out_of_turn


@pytest.mark.parametrize("count", [1, 3, 7, 8, 9, 100])
@pytest.mark.parametrize("today", [0, 20_000])
def test_so_many_days_see_all_of_them(count: int, today: int) -> None:
    days = [Sample(8, today + i).pick(count, "start error") for i in range(8)]
    assert {place for day in days for place in day} == set(range(count))
    assert all(1 <= len(day) <= -(-count // 8) for day in days)


def test_one_is_all() -> None:
    assert list(Sample(1, 20_000).pick(30, "x")) == list(range(30))


def test_of_none_there_is_none() -> None:
    assert list(Sample(8, 3).pick(0, "x")) == []


def test_verbs_begin_with_different_places() -> None:
    assert len({Sample(8, 0).pick(100, f"verb {n}").start for n in range(50)}) == 8


def test_tests_take_turns() -> None:
    """Each of a file has its day."""
    marked = [(3, "a"), (3, "b"), (3, "a"), (2, "a"), (3, "a"), (3, "a"), (3, "a")]
    days = [set(out_of_turn(marked, 20_000 + day)) for day in range(6)]
    made = [set(range(len(marked))) - day for day in days]
    assert set.union(*made) == set(range(len(marked)))
    assert all(1 <= len(day & {0, 2, 4, 5, 6}) <= 2 and 1 in day for day in made)
    assert [3 in day for day in made] == [True] * 6  # alone, it is always its turn
    assert days[:3] == days[3:]


def test_what_is_named_runs_on_any_day(repository: Path) -> None:
    def seen(*arguments: str) -> set[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True, timeout=60)
        return {line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line}

    file = "tests/e2e/test_full_disk.py"
    every = seen("--trials-every", "1", file)
    assert len(every) == 3 and len(seen(file)) == 1
    assert all(seen(f"{file}::{name}") == {name} for name in sorted(every)[:2])
