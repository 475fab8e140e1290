# SPDX-License-Identifier: Apache-2.0
"""A log whose daemon was killed between a record and its account of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypercontainer.engine import logs


class Killed(BaseException):
    """The daemon ends here."""


def _writer(path: Path, max_size: int = 1 << 20) -> logs.OutputLog:
    return logs.json_log(path, max_size=max_size, max_files=3)


@pytest.mark.parametrize("max_size", [1 << 20, 100])
def test_what_the_guest_sends_again_is_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_size: int
) -> None:
    """With 100 bytes the record that is lost is the first of a new file."""
    path = tmp_path / "container.log"
    first = _writer(path, max_size)
    first.begin()
    assert first.write(1, b"one\n") == 4

    def killed(*_: object) -> int:
        raise Killed

    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(os, "pwrite", killed)
        first.write(1, b"two\n")
    first.close()
    next_ = _writer(path, max_size)
    assert next_.begin(resume=True) == (4, 0)
    next_.write(1, b"two\n")
    next_.write(1, b"three\n")
    next_.close()
    assert [r.log for r in logs.read(path)] == ["one\n", "two\n", "three\n"]
