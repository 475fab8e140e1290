# SPDX-License-Identifier: Apache-2.0
"""The comparison with dockerd: what it takes for a difference, and that each one on the page has its reason."""

from __future__ import annotations

import re
from pathlib import Path

from tests.beside import page
from tests.beside.fields import differences
from tests.beside.steps import Difference, Side, plain
from tests.transcript import read


def test_what_differs_between_documents() -> None:
    docker = {"Id": "a" * 64, "N": None, "L": [], "At": "2026-01-01T00:00:00Z", "Labels": {"x": "1"}, "Old": 1}
    here = {"Id": "b" * 64, "N": [], "L": [], "At": "2027-01-01T00:00:00.5Z", "Labels": {"y": "1"}, "New": 2}
    found = {d.what: (d.docker, d.here) for d in differences("x", docker, here)}
    assert found == {
        "x.N": ("null", "[]"),
        "x.Labels": ("x", "y"),
        "x.Old": ("1", "absent"),
        "x.New": ("absent", "2"),
    }
    lists = differences("x", {"M": [{"A": 1}]}, {"M": [{"A": True}]})
    assert lists == [Difference("x.M[].A", "1", "true")]
    assert differences("x", [{"A": "a"}], [{"A": "b"}]) == [Difference("x[].A", '"a"', '"b"')]


def test_what_is_another_at_each_run_is_the_same(tmp_path: Path) -> None:
    side = Side(tmp_path / "socket", tmp_path)
    printed = f"{'a' * 64} 0123456789ab  Up 3 seconds 12.5kB 2026-01-01T00:00:00Z {tmp_path}/x"
    assert plain(printed, side) == "<ID> <id> Up <age> <size> <time> <place>/x"


def test_reasons_are_found_by_patterns() -> None:
    known = [page.Reason(("*.Mounts[].Source", "docker info*"), "one"), page.Reason(("*",), "other")]
    assert page.why("GET /x.body.Mounts[].Source", known) == "one"
    assert page.why("docker info -f x", known) == "one"
    assert page.why("docker ps", known) == "other"
    assert page.why("docker ps", known[:1]) == ""
    assert page.unused(known, [Difference("docker ps", "", "")]) == ["one"]


def test_each_difference_on_the_page_has_a_reason_and_is_of_a_command_that_is_compared(repository: Path) -> None:
    files = (*(repository / "tests/e2e/transcripts").glob("*.txt"), repository / "tests/beside/more.txt")
    commands = {step.command.replace("|", "\\|") for path in files for step in read(path)}
    rows = re.findall(r"^\| `(docker .*?)` \| (?:`.*?`|nothing) \| (?:`.*?`|nothing) \| (.*) \|$",
                      page.PAGE.read_text(), re.M)  # fmt: skip
    assert len(rows) > 20
    assert [command for command, why in rows if not why or command not in commands] == []
