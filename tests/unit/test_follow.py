# SPDX-License-Identifier: Apache-2.0
"""Answers that tell how far something is, a line each."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.client.base import follow
from hypercontainer.errors import NoSpace, Unavailable

STEP: dict[str, Any] = {"id": "a", "status": "Copying", "current": 1, "total": 2}


def test_each_line_is_told_and_the_last_is_the_answer() -> None:
    told: list[dict[str, Any]] = []
    assert follow([STEP, {"made": {}}], "made", "the copy", told.append) == {"made": {}}
    assert told == [STEP, {"made": {}}]


def test_what_went_wrong_and_an_answer_that_breaks_off() -> None:
    with pytest.raises(NoSpace, match="the disk is full"):
        follow([STEP, {"error": {"code": NoSpace.code, "message": "the disk is full"}}], "made", "the copy", print)
    for lines in ([], [STEP]):
        with pytest.raises(Unavailable, match="hyperd closed the connection during the copy"):
            follow(lines, "made", "the copy", print)
