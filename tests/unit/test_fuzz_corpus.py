# SPDX-License-Identifier: Apache-2.0
"""The inputs that fuzzing begins with, and those that it has found, by every target."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.__main__ import C_TARGETS, NAMES, PYTHON_TARGETS
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS


def inputs(repository: Path, name: str) -> list[Path]:
    return sorted((repository / "fuzz/corpus" / name).iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_and_takes_what_is_sound(repository: Path, name: str) -> None:
    taken = {path.name: TARGETS[name](path.read_bytes()) for path in inputs(repository, name)}
    assert any(taken.values()), f"nothing of it is an input that the decoder takes: {taken}"


def test_seeds_are_the_same_each_time() -> None:
    assert {name: list(seeds()) for name, seeds in SEEDS.items()} == {n: list(seeds()) for n, seeds in SEEDS.items()}


def test_every_target_is_run_and_has_a_corpus(repository: Path) -> None:
    assert set(PYTHON_TARGETS) == set(TARGETS)
    assert {p.stem for p in (repository / "fuzz/guest").glob("*.c")} == set(C_TARGETS)
    assert {p.name for p in (repository / "fuzz/corpus").iterdir()} == set(NAMES)
    assert all(inputs(repository, name) for name in NAMES)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_refuses_what_is_nothing(name: str) -> None:
    assert TARGETS[name](b"\xff\xfe\0 nothing that anybody would send") is False
