# SPDX-License-Identifier: Apache-2.0
"""`hyperd --restore` dies just before each change that it makes, or finds the disk full there.

A root that is not whole is never taken for one: no daemon starts on it, and the next restore makes it whole.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hypercontainer.engine.backup import putting_back
from hypercontainer.engine.backup.putting_back import check_whole, put_back
from hypercontainer.engine.paths import Paths
from hypercontainer.errors import NoSpace, Unavailable
from hypercontainer.model.specs import Mount
from hypercontainer.state.database import Database
from tests.sample import LEFT_OUT, Sample

from .clock import OWNER, Died
from .deaths import Steps, watching
from .stage import Stage


class Full(Steps):
    """The disk is full at one step, and at that alone."""

    def step(self, what: str) -> None:
        """:raise OSError: it is that one."""
        here = self.count
        super().step(what)
        if here == self.at - _FAR and self.count == here + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_FAR = 1 << 20  # beyond all steps, so that nobody dies


def restore(archive: bytes, root: Path, steps: Steps) -> None:
    """By a process of its own. What `put_back` raises, and :raise Died: it was killed at a step."""
    process = cast(Any, SimpleNamespace(killed=False))
    steps.daemon, steps._die = process, lambda: setattr(process, "killed", True)

    def run() -> None:
        OWNER.set(process)
        put_back(io.BytesIO(archive), Paths(root, root / "run"))

    with watching(steps):
        Context().run(run)


def contents(root: Path) -> dict[str, bytes]:
    """Of all files but the database, which is one that can be read and has the records."""
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_symlink()}
    database = Database(root / "state.db")
    try:
        assert [c.name for c in database.containers()] == ["a"] and [v.name for v in database.volumes()] == ["vol"]
    finally:
        database.close()
    return {name: data for name, data in found.items() if not name.startswith("state.db")}


def is_whole(root: Path) -> bool:
    try:
        check_whole(root)
    except Unavailable:
        return False
    return bool(os.listdir(root))


async def backup(s: Stage) -> bytes:
    await s.run("a", mounts=[Mount(target="/data", source="vol")])
    parts: list[bytes] = []

    async def made() -> None:
        parts.extend([piece async for piece in s.engine.backups.create()])

    await s.call(made())
    return b"".join(parts)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under test does not lose power, and a host's disks may be busy."""
    monkeypatch.setattr(putting_back.os, "sync", lambda: None)


def test_a_restore_dies_at_every_step(act: Any, tmp_path: Path, sample: Sample, count: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        archive, root = await backup(s), tmp_path / "root"
        sites, wanted = undisturbed(archive, root)
        for at in chosen(sample, count, "death", len(sites)):
            empty(root)
            with pytest.raises(Died):
                restore(archive, root, Steps(at, lambda: None))
            assert not is_whole(root) or contents(root) == wanted, f"half a root at {sites[at]}"
            restore(archive, root, Steps(-1, lambda: None))
            assert is_whole(root) and contents(root) == wanted, sites[at]

    act(scenario)


def test_a_restore_finds_the_disk_full_at_every_step(
    act: Any, tmp_path: Path, sample: Sample, count: Callable[..., None]
) -> None:
    async def scenario(s: Stage) -> None:
        archive, root = await backup(s), tmp_path / "root"
        sites, wanted = undisturbed(archive, root)
        for at in chosen(sample, count, "full", len(sites)):
            if sites[at].startswith("os.remove"):  # which takes no space
                continue
            empty(root)
            try:
                restore(archive, root, Full(at + _FAR, lambda: None))
            except (NoSpace, OSError):
                assert os.listdir(root) == [], (sites[at], os.listdir(root))
            else:
                differs = {name for name, data in wanted.items() if contents(root).get(name) != data}
                if "_describe_anew" in sites[at]:  # what is for a database that is lost may be missing
                    differs = {name for name in differs if not name.endswith("/description")}
                assert not differs, (sites[at], differs)

    act(scenario)


def undisturbed(archive: bytes, root: Path) -> tuple[list[str], dict[str, bytes]]:
    """Its steps, and what is there then."""
    empty(root)
    steps = Steps(-1, lambda: None)
    restore(archive, root, steps)
    wanted = contents(root)
    assert len(steps.sites) > 20 and len(wanted) > 5, (steps.sites, list(wanted))
    return steps.sites, wanted


def empty(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()


def chosen(sample: Sample, count: Callable[..., None], kind: str, steps: int) -> range:
    places = sample.pick(steps, f"restore {kind}")
    count(kind, len(places))
    count(LEFT_OUT, steps - len(places))
    return places
