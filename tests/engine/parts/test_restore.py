# SPDX-License-Identifier: Apache-2.0
"""A database that is damaged or lost, and `hyperd --recover`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine.descriptions import Descriptions
from hypercontainer.engine.events import Events
from hypercontainer.engine.leftovers import AllBut, checks
from hypercontainer.engine.paths import Paths
from hypercontainer.engine.registry import Registry
from hypercontainer.engine.restore import restore
from hypercontainer.engine.secrets import Secrets
from hypercontainer.engine.volumes import Volumes
from hypercontainer.model.network import Attachment, Network
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.status import Container, ContainerStatus, Pod, PodVolume, Vm, Volume
from hypercontainer.state import description, salvage
from hypercontainer.state.database import DamagedDatabase, Database
from hypercontainer.state.description import Description
from hypercontainer.volumes.disks import BlockVolumes
from tests.unit.test_records import container, pod

PAGE = 4096
DEADLINE = 10.0


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "root", tmp_path / "run")
    made.create()
    return made


def running(paths: Paths, id_: str, name: str) -> Pod:
    """A pod's record while its machine runs, whose directory is made."""
    directory = paths.machine(id_)
    directory.mkdir(exist_ok=True)
    return msgspec.structs.replace(pod(id_, name), vm=Vm(driver="fake", pid=7, directory=str(directory), token="00"))


def up(id_: str, name: str) -> Container:
    return container(id_, name, ContainerStatus.RUNNING)


def damage(path: Path, text: bytes) -> None:
    """Make the page useless that holds this text."""
    data = bytearray(path.read_bytes())
    at = data.index(text)
    at -= at % PAGE
    data[at : at + 64] = b"\xff" * 64
    path.write_bytes(data)


def asides(paths: Paths) -> list[Path]:
    return sorted(paths.root.glob("state.db.damaged-*"))


def nowhere(_: Path) -> bool:
    return False


# -- descriptions -------------------------------------------------------------------------


def test_a_description_is_believed_only_whole(tmp_path: Path) -> None:
    one = Description(pod=pod("a", "web"), containers=[container("a", "web")])
    assert description.read(tmp_path) == f"{tmp_path} has no description"
    description.write(tmp_path, one)
    file = tmp_path / "description"
    assert description.read(tmp_path) == one and file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["description"]
    whole = file.read_bytes()
    for wrong in (whole[:-1], whole.replace(b'"web"', b'"wep"'), b"", whole.partition(b"\n")[2]):
        file.write_bytes(wrong)
        assert description.read(tmp_path) == f"{file} is damaged"
    description.write(tmp_path, one)
    assert description.read(tmp_path) == one
    description.write(tmp_path / "gone", one)  # the machine's end was quicker
    assert not (tmp_path / "gone").exists()


async def test_what_runs_is_described_as_its_records_change(paths: Paths) -> None:
    registry = Registry(Database(paths.database))
    descriptions = Descriptions(registry)
    network = Network(id="n" * 32, name="inner", created_at="", bridge="b", subnet="10.0.0.0/24", gateway="10.0.0.1")
    registry.put_network(network)
    data, other = (Volume(name=n, created_at="", driver="block", path="") for n in ("data", "other"))
    registry.put_volume(data)
    registry.put_volume(other)
    here = Attachment(network="inner", interface="eth0", tap="ht0", mac="02:00:00:00:00:01", ip="10.0.0.2")
    uses = PodVolume(name="data", kind="disk", named="data")
    web = msgspec.structs.replace(running(paths, "a" * 64, "web"), attachments=[here], volumes=[uses])
    registry.create(web, up("a" * 64, "web"))
    registry.create(pod("b" * 64, "idle"), container("b" * 64, "idle"))

    async def described(expected: list[Container]) -> Description:
        async with asyncio.timeout(DEADLINE):
            while isinstance(found := description.read(paths.machine("a" * 64)), str) or found.containers != expected:
                await asyncio.sleep(0.01)
        return found

    first = await described([up("a" * 64, "web")])
    assert first == Description(pod=web, containers=first.containers, volumes=[data], networks=[network])
    renamed = up("a" * 64, "shop")
    registry.put(renamed)
    await described([renamed])
    assert not paths.machine("b" * 64).exists()
    registry.put_pod(msgspec.structs.replace(web, vm=None))  # it has ended
    (paths.machine("a" * 64) / "description").unlink()
    descriptions.close()
    assert isinstance(description.read(paths.machine("a" * 64)), str)
    registry.journal.close()


# -- what can be read of a damaged file ---------------------------------------------------


def test_what_lies_on_sound_pages_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database(path)
    for n in range(300):
        database.put_container(container(f"{n:064}", f"c{n}"))
    database.close()
    damage(path, b'"name":"c150"')
    before = path.read_bytes()
    with pytest.raises(DamagedDatabase) as error:
        Database(path)
    assert "start `hyperd --recover`" in str(error.value)
    names = [row["name"] for row in salvage.read_rows(path)["containers"]]
    assert len(names) == len(set(names)) > 280 and {"c0", "c299"} <= set(names) and "c150" not in names
    assert path.read_bytes() == before
    path.write_bytes(b"x" * 8192)
    assert not any(salvage.read_rows(path).values())
    assert not any(salvage.read_rows(tmp_path / "none").values())


def test_what_is_in_the_log_only_is_read(tmp_path: Path) -> None:
    """As it is after a crash."""
    database = Database(tmp_path / "state.db")
    database.put_container(container("a", "web"))
    for end in ("", "-wal"):
        (tmp_path / f"copy{end}").write_bytes((tmp_path / f"state.db{end}").read_bytes())
    database.close()
    assert [row["name"] for row in salvage.read_rows(tmp_path / "copy")["containers"]] == ["web"]


# -- a state again ------------------------------------------------------------------------


def test_a_sound_database_is_left_alone(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Database(paths.database).close()
    before = paths.database.read_bytes()
    restore(paths, nowhere)
    assert paths.database.read_bytes() == before and asides(paths) == []
    assert "there is nothing to recover" in caplog.text


@pytest.mark.parametrize("lost", ["garbage", "empty", "missing"])
def test_what_runs_is_found_again_by_its_directory(paths: Paths, caplog: pytest.LogCaptureFixture, lost: str) -> None:
    web = running(paths, "a" * 64, "web")
    description.write(paths.machine("a" * 64), Description(pod=web, containers=[up("a" * 64, "web")]))
    garbage = {"garbage": b"x" * 8192, "empty": b""}.get(lost)
    if garbage is not None:
        paths.database.write_bytes(garbage)
    restore(paths, nowhere)
    registry = Registry(Database(paths.database))
    assert registry.container("web").state.status is ContainerStatus.RUNNING and registry.pod("web").vm == web.vm
    registry.journal.close()
    assert [a.read_bytes() for a in asides(paths)] == ([garbage] if garbage is not None else [])
    assert all(a.stat().st_mode & 0o777 == 0o600 and str(a) in caplog.text for a in asides(paths))
    assert "brought back: 1 containers, 1 pods, 0 volumes, 0 networks; 1 pods ran" in caplog.text
    assert sorted(p.name for p in paths.root.glob("state.db*") if p not in asides(paths)) == ["state.db"]


async def test_a_volume_is_found_again_by_its_directory(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(Database(paths.database))
    volumes = Volumes(registry, paths, BlockVolumes(paths.cache, 1 << 30), Secrets(paths), Events())
    made = await volumes.create(VolumeSpec(name="data", driver="directory", labels={"of": "web"}))
    (Path(made.path) / "rows").write_text("1")
    await volumes.create(VolumeSpec(name="gone", driver="directory"))
    await volumes.remove("gone")
    await volumes.create(VolumeSpec(name="older", driver="directory"))
    (paths.volume("older") / "description").unlink()  # made before there were descriptions
    (paths.volume("data") / "description").rename(paths.volumes / "elsewhere")
    (paths.volumes / "moved").mkdir()
    (paths.volumes / "moved/description").write_bytes((paths.volumes / "elsewhere").read_bytes())
    (paths.volumes / "elsewhere").rename(paths.volume("data") / "description")
    registry.journal.close()
    paths.database.write_bytes(b"")
    restore(paths, nowhere)
    registry = Registry(Database(paths.database))
    assert registry.volumes() == [made] and (Path(made.path) / "rows").read_text() == "1"
    assert "brought back: 0 containers, 0 pods, 1 volumes, 0 networks" in caplog.text
    (check,) = checks(paths, registry)
    assert check.found.endswith("belong to no record: volumes/moved, volumes/older") and check.status == "warn"
    registry.journal.close()


def test_what_can_be_read_is_taken_over_and_the_description_is_newer(paths: Paths) -> None:
    registry = Registry(Database(paths.database))
    events = Events(registry.journal)
    events.publish("container", "create", "a")
    registry.create(pod("a" * 64, "old-name"), container("a" * 64, "old-name"))
    for n in range(300):
        id_ = f"{n:064}"
        registry.create(pod(id_, f"c{n}"), container(id_, f"c{n}"))
    registry.put_volume(Volume(name="data", created_at="", driver="block", path=""))
    registry.begin("half")
    registry.journal.close()
    damage(paths.database, b'"name":"c150","pod"')
    web = running(paths, "a" * 64, "web")
    description.write(paths.machine("a" * 64), Description(pod=web, containers=[up("a" * 64, "web")]))
    restore(paths, nowhere)
    registry = Registry(Database(paths.database))
    assert registry.container("web").id == registry.pod("web").id == "a" * 64
    assert len(registry.containers()) == len(registry.pods()) > 280
    assert [v.name for v in registry.volumes()] == ["data"]
    assert len(asides(paths)) == 1
    assert [e.id for e in Events(registry.journal).past()] == ["a"]
    assert registry.unfinished == []  # what was lost with its record must not be removed as half made
    registry.journal.close()


def test_a_half_of_a_container_is_named_and_its_files_are_not_endangered(
    paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    """Recovery removes the files of a pod of one container that has none."""
    database = Database(paths.database)
    database.put_pod(pod("a", "no-container"))
    database.put_container(container("b", "no-pod"))
    database.put_pod(msgspec.structs.replace(pod("c", "empty-pod"), implicit=False))
    database.close()
    damage_header(paths.database)
    restore(paths, nowhere)
    registry = Registry(Database(paths.database))
    assert [p.name for p in registry.pods()] == ["empty-pod"] and registry.containers() == []
    assert "pod no-container (a) is not brought back: the record of its container is lost" in caplog.text
    assert "container no-pod (b) is not brought back: the record of its pod is lost; its files stay" in caplog.text
    registry.journal.close()


def damage_header(path: Path) -> None:
    """So that the file is refused, and its tables can be read: a free page that is none."""
    data = bytearray(path.read_bytes())
    data[32:40] = (3).to_bytes(4, "big") + (9).to_bytes(4, "big")  # first page of the free list, and its length
    path.write_bytes(data)
    with pytest.raises(DamagedDatabase):
        Database(path)


def test_records_that_cannot_be_read_are_set_aside_again(paths: Paths) -> None:
    database = Database(paths.database)
    database.put_container(container("a", "bad"))
    database._db.execute("UPDATE containers SET document='{'")
    database.set_record_aside("pods", "b", "older", b"[", "of before")
    database.close()
    damage_header(paths.database)
    restore(paths, nowhere)
    registry = Registry(Database(paths.database))
    assert sorted((a.kind, a.id, a.name) for a in registry.set_aside) == [
        ("containers", "a", "bad"),
        ("pods", "b", "older"),
    ]
    registry.journal.close()


def test_a_machine_without_a_description_is_named_and_goes_on(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    paths.database.write_bytes(b"x" * 8192)
    known, unknown, ended = (paths.machine(c * 64) for c in "aue")
    for directory in (unknown, ended, paths.machine("pool-1234")):
        directory.mkdir()
    description.write(running(paths, "a" * 64, "web") and known, Description(pod=pod("a" * 64, "web")))
    (unknown / "description").write_text("cut off")
    restore(paths, lambda d: d in (unknown, known))
    registry = Registry(Database(paths.database))
    assert [(a.kind, a.name, a.pod) for a in registry.set_aside] == [("pods", "u" * 12, "u" * 12)]
    assert paths.machine(registry.set_aside[0].pod) == unknown  # by which its machine is kept
    assert f"the virtual machine in {unknown} goes on" in caplog.text
    assert f"hyperctl doctor --forget {'u' * 12}" in caplog.text
    registry.journal.close()


def test_a_crash_in_the_middle_leaves_what_was(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.database.write_bytes(b"x" * 8192)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hypercontainer.engine.restore._fill", crash)
    with pytest.raises(KeyboardInterrupt):
        restore(paths, nowhere)
    assert paths.database.read_bytes() == b"x" * 8192
    monkeypatch.undo()
    restore(paths, nowhere)
    Database(paths.database).close()
    assert len(asides(paths)) == 2


def test_a_newer_schema_is_not_recovered(paths: Paths) -> None:
    database = Database(paths.database)
    database._db.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(Exception, match="written by a newer hyperd"):
        restore(paths, nowhere)
    assert asides(paths) == []


def test_all_but_one() -> None:
    check: Callable[[Path], bool] = AllBut(Path("/a")).__contains__
    assert check(Path("/b")) and not check(Path("/a"))
