# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: what happens, in Docker's words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hypercontainer.docker.events import translated, wanted
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.specs import ContainerSpec, ExecSpec, Mount
from hypercontainer.model.status import Event
from hypercontainer.sys import clock

from .served import Served, read_answer, served
from .stage import IMAGE
from .test_image_verbs import put


async def told(s: Served, query: str) -> list[dict[str, Any]]:
    reader, writer = await s.open(docker=True)
    writer.write(f"GET /v1.51/events?{query} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(20):
        answer = await read_answer(reader)
    writer.close()
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def now() -> str:
    seconds, rest = divmod(clock.now_ns(), 10**9)
    return f"{seconds}.{rest:09}"


async def test_a_container_s_life(template: Path) -> None:
    async with served(template) as s:
        engine, before = s.stage.engine, now()
        spec = ContainerSpec(image=IMAGE, name="a", labels={"k": "v"}, command=["sleep", "1000"])
        id_ = (await engine.containers.create(spec)).id
        await engine.containers.start(id_)
        exec_ = engine.execs.create(id_, ExecSpec(command=["exit", "3"]))
        await engine.execs.start(exec_)
        await exec_.ended.wait()
        await engine.containers.kill(id_, "KILL")
        engine.containers.rename(id_, "b")
        await engine.containers.remove(id_)
        found = await told(s, f"since={before}&until={now()}")
        names = [e["Action"] for e in found]
        assert by_name_of(found)["die"]["execDuration"] == "0"
        assert names == [
            "create", "start", "exec_create: exit 3", "exec_start: exit 3", "exec_die", "kill", "die", "rename",
            "destroy",
        ]  # fmt: skip
        for event in found:
            assert (event["id"], event["from"], event["status"]) == (id_, IMAGE, event["Action"])
            assert (event["Type"], event["scope"], event["Actor"]["ID"]) == ("container", "local", id_)
            assert event["time"] == event["timeNano"] // 10**9
            assert event["Actor"]["Attributes"].items() >= {"k": "v", "image": IMAGE}.items()
        by_name = {e["Action"]: e["Actor"]["Attributes"] for e in found}
        assert by_name["die"]["exitCode"] == "137" and by_name["kill"]["signal"] == "9"
        assert by_name["rename"].items() >= {"name": "b", "oldName": "/a"}.items()
        assert by_name["exec_die"].items() >= {"exitCode": "3", "execID": exec_.id}.items()
        only = quote(json.dumps({"event": ["die", "start"], "container": ["a"]}))
        assert [e["Action"] for e in await told(s, f"since={before}&until={now()}&filters={only}")] == ["start", "die"]


def by_name_of(found: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {e["Action"]: e["Actor"]["Attributes"] for e in found}


async def test_looks_are_told_as_with_docker(template: Path) -> None:
    async with served(template) as s:
        engine, before = s.stage.engine, now()
        id_ = await s.stage.create("a", "sleep", "1000", tty=True, stdin=True)
        reader, writer = await s.open(docker=True)
        target = "/containers/a/attach?stream=1&stdin=1&stdout=1"
        writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n".encode())
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            await engine.containers.start(id_)
            assert (await s.ask("POST", "/containers/a/resize?h=5&w=7", docker=True)).status == 200
            assert (await s.ask("GET", "/containers/a/top", docker=True)).status == 200
            writer.write(b"\x10\x11")
            await reader.read()
        writer.close()
        exec_ = engine.execs.create(id_, ExecSpec(command=["sleep", "1000"], tty=True, stdin=True))
        reader, writer = await s.open(docker=True)
        head = f"POST /exec/{exec_.id}/start HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n"
        writer.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x10\x11")
            await reader.read()
        writer.close()
        found = [e for e in await told(s, f"since={before}&until={now()}") if e["Type"] == "container"]
        actions = [e["Action"].partition(":")[0] for e in found]
        assert actions == [
            "create", "attach", "start", "resize", "top", "detach", "exec_create", "exec_start", "exec_detach"
        ]  # fmt: skip
        assert by_name_of(found)["resize"].items() >= {"height": "5", "width": "7"}.items()
        await engine.containers.remove(id_, force=True)


async def test_networks_and_volumes_of_a_run(template: Path) -> None:
    async with served(template) as s:
        engine = s.stage.engine
        await engine.networks.create(NetworkSpec(name="lan", subnets=["10.91.0.0/24"]))
        await engine.volumes.create(VolumeSpec(name="data", driver="block"))
        mounts, before = [Mount(target="/d", source="data", read_only=True)], now()
        id_ = await s.stage.create("a", "sleep", "1000", networks=[NetworkRequest(name="lan")], mounts=mounts)
        await engine.containers.start(id_)
        await engine.containers.kill(id_, "KILL")
        await engine.containers.wait(id_)
        found = [e for e in await told(s, f"since={before}&until={now()}") if e["Type"] in ("network", "volume")]
        assert [f"{e['Type']} {e['Action']} {e['Actor']['Attributes']['container'] == id_}" for e in found] == [
            "network connect True", "volume mount True", "network disconnect True", "volume unmount True"
        ]  # fmt: skip
        mounted = found[1]["Actor"]
        assert mounted["ID"] == "data" and mounted["Attributes"].items() >= {
            "destination": "/d", "driver": "local", "read/write": "false", "propagation": ""
        }.items()  # fmt: skip


async def test_images_and_prunes(template: Path) -> None:
    async with served(template, own_images=True) as s:
        id_ = put(s, "docker.io/library/app:1", "2020-01-01T00:00:00Z", labels={"stage": "test"})
        before = now()
        for method, path in (
            ("POST", "/images/app:1/tag?repo=app&tag=2"), ("GET", "/images/app:1/get"), ("DELETE", "/images/app:1"),
            ("DELETE", "/images/app:2"), ("POST", "/images/prune"), ("POST", "/containers/prune"),
            ("POST", "/volumes/prune"), ("POST", "/networks/prune"),
        ):  # fmt: skip
            assert (await s.ask(method, path, docker=True)).status < 300, path
        found = await told(s, f"since={before}&until={now()}")
        assert [f"{e['Type']} {e['Action']}" for e in found] == [
            "image tag", "image save", "image untag", "image untag", "image delete", "image prune", "container prune",
            "volume prune", "network prune",
        ]  # fmt: skip
        assert {e["Actor"]["ID"] for e in found[:5]} == {id_}
        assert found[0]["Actor"]["Attributes"] == {"name": "app:2", "stage": "test"}
        assert found[1]["Actor"]["Attributes"] == {"name": id_, "stage": "test"}
        assert found[2]["Actor"]["Attributes"] == {"name": id_}
        assert found[5]["Actor"]["Attributes"] == {"reclaimed": "0"}


async def test_they_come_as_they_happen(template: Path) -> None:
    async with served(template) as s:
        await s.stage.engine.containers.create(ContainerSpec(image=IMAGE, name="before"))
        reader, writer = await s.open(docker=True)
        writer.write(b"GET /events HTTP/1.0\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            await s.stage.engine.containers.create(ContainerSpec(image=IMAGE, name="after"))
            event = json.loads(await reader.readline())
        assert (event["Action"], event["Actor"]["Attributes"]["name"]) == ("create", "after")
        writer.close()


async def test_queries_that_are_refused(template: Path) -> None:
    async with served(template) as s:
        for query in ("filters=[]", 'filters={"colour":["red"]}', "since=yesterday"):
            answer = await s.ask("GET", f"/events?{query}", docker=True)
            assert answer.status == 400 and list(answer.json) == ["message"], query


def event(type_: str, action: str, id_: str = "0123", **attributes: str) -> dict[str, Any]:
    made = Event(time="", time_nano=5, type=type_, action=action, id=id_, attributes=attributes, labels={"l": "1"})
    found = translated(made)
    assert found is not None
    return found


START = event("container", "start", name="web", image="docker.io/library/nginx:1")
PULL = event("image", "pull", "sha256:9", name="docker.io/library/nginx:1")
HEALTH = event("container", "health_status: healthy", name="web", image="x")
JOIN = event("network", "connect", "ab12", name="lan", container="0123")


@pytest.mark.parametrize(
    ("filters", "through"),
    [
        ({}, [START, PULL, HEALTH, JOIN]),
        ({"type": ["image", "network"]}, [PULL, JOIN]),
        ({"event": ["start", "pull"]}, [START, PULL]),
        ({"event": ["health_status"]}, [HEALTH]),
        ({"event": ["health_status: healthy"]}, [HEALTH]),
        ({"event": ["sta"]}, []),
        ({"container": ["we"]}, [START, HEALTH]),
        ({"container": ["01"]}, [START, HEALTH]),
        ({"network": ["lan"]}, [JOIN]),
        ({"image": ["docker.io/library/nginx"]}, [START]),
        ({"image": ["nginx"]}, [PULL]),
        ({"image": ["nginx:1"]}, [PULL]),
        ({"label": ["l=1"]}, [START, PULL, HEALTH, JOIN]),
        ({"label": ["l=2"]}, []),
        ({"scope": ["swarm"]}, []),
        ({"service": ["x"]}, []),
    ],
)
def test_filters(filters: dict[str, list[str]], through: list[dict[str, Any]]) -> None:
    assert [e for e in (START, PULL, HEALTH, JOIN) if wanted(e, filters)] == through


def test_what_docker_has_no_word_for() -> None:
    assert translated(Event(time="", time_nano=1, type="pod", action="start", id="x")) is None
    assert JOIN["Actor"]["Attributes"]["type"] == "bridge" and "status" not in JOIN
