# SPDX-License-Identifier: Apache-2.0
"""Who asks is known to the engine, recorded with what is created, and told by events and logs; names are a tenant's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from hypercontainer.engine.events import Events
from hypercontainer.engine.principal import asked_by, asking, current, owned
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import Conflict, NotFound
from hypercontainer.hyperd.logging import JsonFormatter
from hypercontainer.model.network import Network
from hypercontainer.model.principal import DAEMON, Principal
from hypercontainer.model.status import Container, Pod, Volume
from hypercontainer.serving.identity import identified
from hypercontainer.state.database import Database
from hypercontainer.state.fake import FakeDisk, FakeStore
from hypercontainer.state.journal import Journal

from . import test_records

ALICE, BOB = Principal("uid:1000"), Principal("uid:1001")
RED, BLUE = Principal("token:red", "red"), Principal("token:blue", "blue")
NOBODY = 65534


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry(FakeStore(FakeDisk()))
    yield made
    made.journal.close()


def container(id_: str, name: str) -> Container:
    return msgspec.structs.replace(test_records.container(id_, name), **owned())


def pod(id_: str, name: str) -> Pod:
    return msgspec.structs.replace(test_records.pod(id_, name), **owned())


def volume(name: str) -> Volume:
    return Volume(name=name, created_at="", driver="block", path="", **owned())


def network(id_: str, name: str) -> Network:
    return Network(id=id_, name=name, created_at="", bridge=id_, subnet="10.0.0.0/24", gateway="10.0.0.1", **owned())


# -- whose request ------------------------------------------------------------------------


async def test_a_task_works_for_whoever_asked_also_when_the_answer_is_given() -> None:
    go = asyncio.Event()

    async def later() -> tuple[Principal, Principal]:
        await go.wait()
        return current(), asking()

    assert current() == asking() == DAEMON
    with asked_by(ALICE):
        assert current() == asking() == ALICE
        task = asyncio.create_task(later())
        with asked_by(BOB):
            assert current() == BOB
        assert asking() == ALICE
    assert current() == DAEMON
    go.set()
    assert await task == (ALICE, DAEMON)


async def test_events_say_who_asked_and_not_who_waited() -> None:
    events = Events(Journal(FakeStore(FakeDisk())))
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        events.publish("container", "start", "by its policy")

    with asked_by(ALICE):
        for action in ("create", "die", "health_status: healthy"):
            events.publish("container", action, "a")
        task = asyncio.create_task(later())
    go.set()
    await task
    assert [(e.action, e.principal) for e in events.past()] == [
        ("create", "uid:1000"),
        ("die", ""),
        ("health_status: healthy", ""),
        ("start", ""),
    ]


def test_the_log_says_who_asked() -> None:
    record = logging.LogRecord("hypercontainer.engine", logging.INFO, "", 0, "done", (), None)
    with asked_by(BOB):
        assert json.loads(JsonFormatter().format(record))["principal"] == "uid:1001"
    assert "principal" not in json.loads(JsonFormatter().format(record))


# -- owners in records --------------------------------------------------------------------


def test_the_owner_is_in_the_record_and_in_its_row(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    for who, id_ in ((ALICE, "a"), (BOB, "b"), (DAEMON, "d")):
        with asked_by(who):
            registry.create(pod(id_, f"pod-{id_}"), container(id_, f"box-{id_}"))
            registry.put_volume(volume(f"data-{id_}"))
            registry.put_network(network(id_, f"net-{id_}"))
    registry.journal.close()
    again = Registry(Database(tmp_path / "state.db"))
    for kind in (again.containers(), again.pods(), again.volumes(), again.networks()):
        assert sorted(r.owner for r in kind) == ["", "uid:1000", "uid:1001"]  # type: ignore[attr-defined]
    again.journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        for table in ("containers", "pods", "volumes", "networks"):
            rows = db.execute(f"SELECT owner, tenant, CAST(document AS TEXT) FROM {table} ORDER BY owner").fetchall()
            assert [(owner, tenant) for owner, tenant, _ in rows] == [("", ""), ("uid:1000", ""), ("uid:1001", "")]
            assert not any("tenant" in document for *_, document in rows)  # with one, nothing tells of it


def test_with_one_tenant_names_are_everybodys(registry: Registry) -> None:
    with asked_by(ALICE):
        registry.create(container("a", "web"))
    with asked_by(BOB):
        assert registry.container("web").id == "a"
        with pytest.raises(Conflict, match="taken by container a"):
            registry.reserve("web")
    assert registry.container("web").owner == "uid:1000"


# -- names of tenants ---------------------------------------------------------------------


def test_names_are_unique_within_a_tenant(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    for who in (RED, BLUE, DAEMON):
        with asked_by(who):
            id_ = f"{who.tenant or 'own'}-{'0' * 20}"
            assert registry.reserve("web") == "web"
            registry.check_pod_name("web")
            registry.create(pod(id_, "web"), container(id_, "web"))
            registry.release("web")
            registry.put_volume(volume("data"))
            registry.check_network_name("inner")
            registry.put_network(network(id_, "inner"))
            for taken in (registry.check_name, registry.check_pod_name, registry.check_network_name):
                with pytest.raises(Conflict):
                    taken("inner" if taken == registry.check_network_name else "web")
    registry.journal.close()
    again = Registry(Database(tmp_path / "state.db"))
    for who in (RED, BLUE, DAEMON):
        with asked_by(who):
            assert again.container("web").tenant == again.pod("web").tenant == who.tenant
            found = again.find_volume("data")
            assert found and found.tenant == who.tenant and again.network("inner").tenant == who.tenant
    with asked_by(RED):
        again.remove_volume(again.volume("data"))
        assert again.find_volume("data") is None
    with asked_by(BLUE):
        assert again.find_volume("data")
        for lookup in (again.container, again.pod):
            assert lookup("blue").tenant == "blue"
            with pytest.raises(NotFound):
                lookup("red")  # the begin of another tenant's id
        for whole in (again.container, again.pod, again.network):
            with pytest.raises(NotFound):
                whole(f"red-{'0' * 20}")
    assert again.container(f"red-{'0' * 20}").tenant == "red"  # the engine itself works by whole ids
    for other in (Principal("uid:0"), Principal("token:x", scopes=frozenset({"admin"}))):
        with asked_by(other), pytest.raises(NotFound):  # they say which project, if they mean one
            again.container(f"red-{'0' * 20}")
    again.journal.close()


def test_a_name_that_is_held_is_so_for_its_tenant(registry: Registry) -> None:
    with asked_by(RED):
        registry.reserve("web")
    with asked_by(BLUE):
        registry.reserve("web")
        registry.release("web")
    with asked_by(RED), pytest.raises(Conflict, match="about to be taken"):
        registry.reserve("web")


def test_networks_are_found_by_their_tenant_alone(registry: Registry) -> None:
    registry.put_network(network("0" * 32, "bridge"))
    registry.put_network(network("1" * 32, "inner"))
    with asked_by(RED):
        for name in ("bridge", "inner", "1" * 32, "1111"):
            with pytest.raises(NotFound):
                registry.network(name)
    with asked_by(Principal("uid:0")):
        assert registry.network("bridge").id == "0" * 32


def test_the_database_itself_keeps_names_apart(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    insert = "INSERT INTO pods (id, tenant, name, owner, document) VALUES (?, ?, 'web', '', '')"
    database._db.execute(insert, ("a", "red"))
    database._db.execute(insert, ("b", "blue"))
    with pytest.raises(sqlite3.IntegrityError, match=r"pods\.tenant, pods\.name"):
        database._db.execute(insert, ("c", "red"))
    database.close()


# -- over the API's socket ----------------------------------------------------------------

ASK = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    sys.stdout.buffer.write(s.makefile("rb").read())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
async def test_two_users_of_one_socket_are_two_principals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hypercontainer.serving")

    async def who(_: web.Request) -> web.Response:
        return web.Response(text=f"you are {current().name}")

    app = web.Application(middlewares=[identified])
    app.router.add_get("/", who)
    runner = web.AppRunner(app)
    await runner.setup()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = f"{directory}/api.sock"
        await web.UnixSite(runner, path).start()
        os.chmod(directory, 0o755)
        os.chmod(path, 0o666)
        answers = [await asyncio.to_thread(ask, path, uid) for uid in (0, NOBODY)]
        await runner.cleanup()
    assert [a.rpartition("\n")[2] for a in answers] == ["you are uid:0", f"you are uid:{NOBODY}"]
    assert current() == DAEMON
    lines = [r.message for r in caplog.records if "asks for" in r.message]
    assert lines == ["uid:0 asks for GET /", f"uid:{NOBODY} asks for GET /"]


def ask(path: str, uid: int) -> str:
    done = subprocess.run(
        [sys.executable, "-S", "-c", ASK, path, str(uid)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd="/",
    )
    return done.stdout
