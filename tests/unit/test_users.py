# SPDX-License-Identifier: Apache-2.0
"""The users as which processes of machines and conversions run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, InvalidArgument
from hypercontainer.hyperd.config import load
from hypercontainer.network import fence
from hypercontainer.sys import users


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(users, "_ranges", users.ranges())
    users._given.clear()
    yield
    users._given.clear()


def test_all_numbers_are_of_the_range_that_is_configured(tmp_path: Path) -> None:
    path = tmp_path / "hyperd.toml"
    path.write_text('users = "200000-204095"\n')
    users.use(*load(path, {}).user_numbers, etc=tmp_path)
    given = [users.ranges().fenced[0], users.ranges().open[0], *users.pick_for_conversion()]
    assert [(n - 200000) // 1024 for n in given] == [0, 1, 2, 3]
    assert users.pick_stranger() in range(202048 + 512, 202048 + 1024), "a half of the third"
    assert "meta skuid != { 200000-201023, 202560-203071 } accept" in fence.raised("inet x")


def test_the_default_is_what_it_was() -> None:
    found = users.split(*users.parse(load(Path(os.devnull), {}).users))
    assert [r.start for r in (found.fenced, found.open, found.conversions, found.groups)] == [
        0x70000000, 0x71000000, 0x72000000, 0x73000000,
    ]  # fmt: skip


def test_no_two_processes_have_one_user_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that run, nor those that are being started."""
    monkeypatch.setattr(users, "_ranges", users.split(100, 123))
    monkeypatch.setattr(users, "in_use", lambda: {112, 116})
    monkeypatch.setattr(users, "_next", {range(112, 115): 112})
    assert users.pick() == 113
    assert users.given_out(101) and not users.given_out(112)
    assert users.pick_for_conversion() == (114, 120)
    assert {users.pick_stranger(), users.pick_stranger()} == {115, 117}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no range"), ("5", "no range"), ("-5", "no range"), ("a-b", "no range"), ("1-2-3", "no range"),
        ("٣-٤", "no range"),
        ("200000-204094", "4096 numbers at least"), ("200000-100000", "4096 numbers at least"),
        ("4294960000-4294967295", "none above"),
        ("0-100000", "below 1000"), ("999-9999", "below 1000"), ("60000-70000", "65534"),
    ],
)  # fmt: skip
def test_a_range_that_cannot_be(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "hyperd.toml"
    path.write_text(f'users = "{text}"\n')
    with pytest.raises(InvalidArgument, match=f"users: .*{says}"):
        load(path, {})


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("passwd", "ann:x:200100:100::/home/ann:/bin/sh", "ann has 200100 in .*/passwd"),
        ("group", "staff:x:204095:", "staff has 204095 in .*/group"),
        ("subuid", "ann:165536:65536", "ann has 165536-231071 in .*/subuid"),
        ("subgid", "ann:204000:10", "ann has 204000-204009 in .*/subgid"),
    ],
)
def test_an_account_has_one_of_them(tmp_path: Path, name: str, line: str, says: str) -> None:
    (tmp_path / name).write_text(f"# a comment\n\nodd\n{line}\n")
    before = users.ranges()
    with pytest.raises(Conflict, match=says):
        users.use(200000, 204095, etc=tmp_path)
    assert users.ranges() == before


def test_accounts_beside_it_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("a:x:199999:1::/:\nb:x:204096:1::/:\n")
    (tmp_path / "subuid").write_text("a:134464:65536\nb:204096:65536\n")
    users.use(200000, 204095, etc=tmp_path)
    assert users.ranges().fenced.start == 200000
