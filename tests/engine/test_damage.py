# SPDX-License-Identifier: Apache-2.0
"""The database is damaged while machines run: what is said, and what `hyperd --recover` brings back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from hypercontainer.engine import leftovers
from hypercontainer.engine.restore import restore
from hypercontainer.errors import InvalidArgument, NotFound, Unavailable

from .stage import Stage, play, stage, whole

SOON = 1.0  # seconds of the virtual clock in which descriptions are written


def damage(s: Stage) -> None:
    for file in s.paths.root.glob("state.db*"):
        file.unlink()
    s.paths.database.write_bytes(b"x" * 8192)


def recover(s: Stage) -> None:
    """As hyperd does when it is told to."""
    restore(s.paths, partial(leftovers.runs_in, s.paths, s.drivers()))


@pytest.mark.parametrize("killed", [False, True])
def test_what_runs_goes_on(template: Path, killed: bool) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")
        await s.create("idle", "true")
        machine = s.machine("a").pid
        if killed:
            await asyncio.sleep(SOON)
            s.kill()
        else:
            await s.close(keep_running=True)
        damage(s)
        with pytest.raises(Unavailable) as error:
            s.prepare()
        assert f"its virtual machines go on (processes {machine})" in str(error.value)
        assert "start `hyperd --recover`" in str(error.value)
        s.daemon = None
        recover(s)
        await s.open()
        assert s.status("a") == "running" and s.machine("a").pid == machine
        assert s.engine.registry.container("a").id == id_
        checks = await s.call(s.engine.doctor())
        assert any(c.name == "files" and "1 directories" in c.found for c in checks)  # of the one that did not run
        for stray in s.paths.root.glob("containers/*"):
            if stray.name != id_:
                shutil.rmtree(stray)
        assert await s.call(s.engine.containers.stop("a", 0))

    with stage(template) as s:
        play(s, whole(scenario))


def test_a_machine_that_nobody_describes_goes_on_until_it_is_forgotten(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.open()
        id_ = await s.run("a", "sleep", "1000")
        await s.close(keep_running=True)
        (s.paths.machine(id_) / "description").unlink()
        damage(s)
        recover(s)
        for _ in range(2):  # also after the next daemon's start
            await s.open()
            assert [m.directory.name for m in s.host.machines.values()] == [id_[:12]]
            failed = [c for c in await s.call(s.engine.doctor()) if c.status == "fail" and c.name == "state"]
            assert len(failed) == 1 and f"--forget {id_[:12]}" in failed[0].hint
            await s.close(keep_running=True)
        await s.open()
        with pytest.raises(NotFound, match="no record of 'nobody' was set aside"):
            await s.call(s.engine.forget("nobody"))
        await s.call(s.engine.forget(id_[:12]))
        assert s.host.machines == {} and not s.paths.machine(id_).exists() and s.engine.registry.set_aside == []
        assert (s.paths.root / "containers" / id_).is_dir()  # its files stay
        shutil.rmtree(s.paths.root / "containers" / id_)
        await s.close()

    with stage(template) as s:
        play(s, scenario)


@pytest.mark.parametrize("how", ["empty", "missing", "damaged"])
def test_machines_that_wait_are_nobodys_work(template: Path, how: str) -> None:
    """They neither keep a daemon with a new state from starting, nor are they named; its start ends them."""

    async def scenario(s: Stage) -> None:
        await s.open()
        await s.run("a", "true", auto_remove=True)
        while not s._waiting():
            await asyncio.sleep(1)
        s.kill()
        assert s.host.machines
        if how == "damaged":
            damage(s)
            with pytest.raises(Unavailable) as error:
                s.prepare()
            assert "virtual machines go on" not in str(error.value)
            return
        for file in s.paths.root.glob("state.db*"):
            file.unlink()
        if how == "empty":
            s.paths.database.touch()
            shutil.rmtree(s.paths.root / "containers")  # what it had is known to be lost
            s.paths.create()
        before = set(s.host.machines)
        await s.open()
        assert not before & set(s.host.machines)
        await s.check()
        await s.clear()
        await s.close()

    with stage(template, factory=True) as s:
        play(s, scenario)


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_a_database_that_is_lost_while_machines_run_is_told(template: Path, how: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        machine = s.machine("a").pid
        await s.close(keep_running=True)
        for file in s.paths.root.glob("state.db*"):
            file.unlink()
        if how == "empty":
            s.paths.database.touch()
        with pytest.raises(Unavailable) as error:
            s.prepare()
        assert f"is {how}, and virtual machines run that only it knows (processes {machine})" in str(error.value)
        s.daemon = None
        recover(s)
        await s.open()
        assert s.status("a") == "running" and s.machine("a").pid == machine

    with stage(template) as s:
        play(s, whole(scenario))


def test_an_empty_database_where_files_are_is_told(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.open()
        await s.create("a", "sleep", "1000")
        await s.close()
        kept = {f: f.read_bytes() for f in s.paths.root.glob("state.db*")}
        for file in kept:
            file.unlink()
        s.paths.database.touch()
        with pytest.raises(Unavailable, match="is empty, and 1 containers and pods have files below"):
            s.prepare()
        s.daemon = None
        s.paths.database.unlink()  # whoever moves it away begins anew, and the files stay
        await s.open()
        assert s.engine.registry.containers() == [] and len(list((s.paths.root / "containers").iterdir())) == 1
        await s.close()
        for file in s.paths.root.glob("state.db*"):
            file.unlink()
        for file, content in kept.items():
            file.write_bytes(content)
        await s.open()
        await s.clear()
        await s.close()

    with stage(template) as s:
        play(s, scenario)


def test_a_record_is_forgotten_by_a_name_that_is_its_own(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.open()
        ids = [await s.create(f"c{n}") for n in range(17)]
        await s.close()
        database = sqlite3.connect(s.paths.database)
        with contextlib.closing(database), database:
            database.execute("UPDATE containers SET document='{}'")
        await s.open()
        twice = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
        with pytest.raises(InvalidArgument, match="may be one of several"):
            await s.call(s.engine.forget(twice))
        with pytest.raises(NotFound, match="its record was set aside"):
            s.status("c0")
        for n in range(17):
            await s.call(s.engine.forget(f"c{n}"))
        assert not any(a.kind == "containers" for a in s.engine.registry.set_aside)
        for place in ("containers", "pods"):
            for left in (s.paths.root / place).iterdir():
                shutil.rmtree(left)
        for pod in s.engine.registry.pods():
            await s.call(s.engine.pods.undo(pod.id))
        await s.clear()
        await s.close()

    with stage(template) as s:
        play(s, scenario)
