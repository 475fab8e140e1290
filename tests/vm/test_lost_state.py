# SPDX-License-Identifier: Apache-2.0
"""Databases that are lost or damaged beside virtual machines and files, in a state that no other test has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.status import ContainerStatus

from .conftest import Lab, machines


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost")


async def test_a_lost_database_while_machines_run_is_told(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    await lab.engine.close(keep_running=True)
    path = config.root_path / "state.db"
    (pid,) = machines(config.run_path)
    for damage, words in (
        (lambda: path.write_bytes(b""), "is empty, and virtual machines run that only it knows"),
        (path.unlink, "is missing, and virtual machines run that only it knows"),
        (lambda: path.write_bytes(b"x" * 8192), "cannot open the state database"),
    ):
        damage()
        with pytest.raises(Unavailable, match=words) as error:
            build_engine(config)
        assert "`hyperd --recover`" in str(error.value) and "restore it from a backup" in str(error.value)
        assert words.startswith("cannot") or f"end them with `kill {pid}`" in str(error.value)
        assert machines(config.run_path) == [pid]
    lab.engine = build_engine(config, recover=True)  # as each of them says
    await lab.engine.open()
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.RUNNING
    assert machines(config.run_path) == [pid]
    assert (await lab.exec(id_, "echo", "still here")).out == "still here\n"
    (aside,) = config.root_path.glob("state.db.damaged-*")
    assert aside.read_bytes() == b"x" * 8192
    aside.unlink()


async def test_an_empty_database_beside_containers_files_is_told(lab: Lab, config: Config) -> None:
    id_ = await lab.create("true")
    await lab.engine.close(keep_running=True)
    path = config.root_path / "state.db"
    saved = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(Unavailable, match="is empty, and 1 containers and pods have files") as error:
        build_engine(config)
    assert "remove it to start with an empty state" in str(error.value)
    path.unlink()  # as it says
    engine = build_engine(config)
    await engine.open()
    assert (config.root_path / "containers" / id_).is_dir()
    checks = await engine.doctor()
    assert any(c.name == "files" and id_ in c.found for c in checks)
    await engine.close(keep_running=False)
    path.write_bytes(saved)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert lab.engine.registry.exists(id_)


async def test_a_record_that_cannot_be_read_stops_nothing_and_its_machine_goes_on(lab: Lab, config: Config) -> None:
    good, bad = await lab.create("sleep", "1000", name="good"), await lab.create("sleep", "1000", name="bad")
    await lab.engine.containers.start(bad)
    await lab.engine.close(keep_running=True)
    (pid,) = machines(config.run_path)
    with sqlite3.connect(config.root_path / "state.db") as db:
        (document,) = db.execute("SELECT document FROM containers WHERE id=?", (bad,)).fetchone()
        db.execute(
            "UPDATE containers SET document=? WHERE id=?",
            (document.replace(b'"interval"', b'"x"').replace(b'"pid":', b'"pit":'), bad),
        )
    db.close()
    engine = build_engine(config)
    await engine.open()
    assert [c.id for c in engine.registry.containers()] == [good] and machines(config.run_path) == [pid]
    assert any(c.name == "state" and "bad" in c.found and c.status == "fail" for c in await engine.doctor())
    await engine.close(keep_running=True)
    with sqlite3.connect(config.root_path / "state.db") as db:
        db.execute("UPDATE set_aside SET document=?", (document,))
    db.close()
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert lab.engine.registry.container(bad).state.status is ContainerStatus.RUNNING and machines(config.run_path) == [
        pid
    ]
