# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: containers, made and ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from .served import Answer, Served, served


async def make(s: Served, name: str = "a", *, host: dict[str, Any] | None = None, **config: Any) -> str:
    """A container over Docker's API; its id."""
    body = {"Image": "box", **config, "HostConfig": host or {}}
    answer = await s.ask("POST", f"/v1.51/containers/create?name={name}", body, docker=True)
    assert answer.status == 201, answer.body
    assert answer.json["Warnings"] == []
    return str(answer.json["Id"])


async def do(s: Served, method: str, path: str, body: Any = None) -> Answer:
    return await s.ask(method, f"/v1.51/containers/{path}", body, docker=True)


async def look(s: Served, name: str = "a") -> Any:
    return (await do(s, "GET", f"{name}/json")).json


async def test_a_life(template: Path) -> None:
    async with served(template) as s:
        id_ = await make(s, Cmd=["sleep", "9"], Labels={"x": "y"}, Env=["A=b"])
        found = await look(s)
        assert (found["Id"], found["Name"], found["Path"], found["Args"]) == (id_, "/a", "sleep", ["9"])
        assert found["State"]["Status"] == "created" and found["State"]["StartedAt"] == "0001-01-01T00:00:00Z"
        assert found["Config"]["Env"] == ["A=b", "PATH=/bin"] and found["Config"]["Labels"] == {"x": "y"}
        assert found["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
        assert (await do(s, "GET", "json")).json == []
        assert [(await do(s, "POST", "a/start")).status for _ in range(2)] == [204, 304]
        (listed,) = (await do(s, "GET", "json")).json
        assert (listed["Id"], listed["Names"], listed["State"]) == (id_, ["/a"], "running")
        assert listed["Status"].startswith("Up ") and listed["Command"] == "sleep 9"
        assert (await do(s, "POST", "a/pause")).status == 204
        assert (await look(s))["State"]["Paused"]
        assert (await do(s, "POST", "a/unpause")).status == 204
        assert (await do(s, "POST", "a/kill?signal=USR1")).status == 204
        assert (await do(s, "POST", "a/rename?name=b")).status == 204
        assert (await do(s, "POST", f"{id_[:12]}/restart?t=0")).status == 204
        assert [(await do(s, "POST", "b/stop?t=0")).status for _ in range(2)] == [204, 304]
        state = (await look(s, "b"))["State"]
        assert state["Status"] == "exited" and not state["Running"] and state["ExitCode"] == 137
        assert (await do(s, "DELETE", "b")).status == 204
        assert (await do(s, "GET", "b/json")).status == 404


async def test_one_that_is_suspended_is_paused_to_docker(template: Path) -> None:
    async with served(template, factory=True) as s:
        await make(s, Cmd=["sleep", "9"])
        assert (await do(s, "POST", "a/start")).status == 204
        assert (await s.ask("POST", "/v1/pods/a/suspend")).status == 200
        state = (await look(s))["State"]
        assert state["Status"] == "paused" and state["Paused"]
        assert (await do(s, "POST", "a/unpause")).status == 204
        assert (await look(s))["State"]["Status"] == "running"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "x/json", 404, "No such container: x"),
        ("POST", "x/start", 404, "No such container: x"),
        ("DELETE", "x", 404, "No such container: x"),
        ("POST", "a/kill", 409, "cannot kill container: a: container ID is not running"),
        ("POST", "a/pause", 409, "container ID is not running"),
        ("POST", "a/unpause", 409, "Container ID is not paused"),
        ("POST", "up/unpause", 409, "Container ID is not paused"),
        ("POST", "a/rename?name=", 400, "Neither old nor new names may be empty"),
        ("POST", "a/rename?name=a", 400, "Renaming a container with the same name as its current name"),
        ("POST", "a/rename?name=up", 409, 'Conflict. The container name "/up" is already in use by container "ID"'),
        ("DELETE", "up", 409, 'cannot remove container "/up": container is running: stop the container before'),
    ],
)
async def test_what_a_state_does_not_allow(template: Path, method: str, path: str, status: int, message: str) -> None:
    async with served(template) as s:
        ids = {name: await make(s, name) for name in ("a", "up")}
        await do(s, "POST", "up/start")
        answer = await do(s, method, path)
        named = ids.get("up" if "up" in path else "a", "")
        assert answer.status == status and message.replace("ID", named) in answer.json["message"]
        await do(s, "DELETE", "up?force=1")


async def test_who_cannot_be_made(template: Path) -> None:
    async with served(template) as s:
        id_ = await make(s)
        for name, body, status, message in (
            ("b", {"Image": "nope"}, 404, "No such image: nope:latest"),
            ("b", {"Image": "registry.example/nope:1"}, 404, "No such image: registry.example/nope:1"),
            ("b", {"Image": ""}, 400, "invalid reference format"),
            ("a", {"Image": "box"}, 409, f'The container name "/a" is already in use by container "{id_}"'),
            ("b", b"", 400, "EOF"),
            ("b", {"Image": "box", "HostConfig": {"NetworkMode": "host"}}, 501, "a network of its own"),
            ("b", {"Image": "box", "HostConfig": {"Devices": [{"PathOnHost": "/dev/kvm"}]}}, 501, "HostConfig.Devices"),
            ("b", {"Image": "box", "Env": "A=b"}, 400, "Env"),
        ):
            answer = await do(s, "POST", f"create?name={name}", body)
            assert answer.status == status and message in answer.json["message"], answer.body


async def test_nothing_is_what_null_says(template: Path) -> None:
    """Clients of Go send all fields, most of them null."""
    async with served(template) as s:
        host = {"Binds": None, "PortBindings": None, "MemorySwappiness": None, "RestartPolicy": {"Name": ""},
                "LogConfig": {"Type": "", "Config": None}, "ConsoleSize": [0, 0], "NetworkMode": "default"}  # fmt: skip
        await make(s, Env=None, Cmd=None, Entrypoint=None, Labels=None, host=host)
        found = await look(s)
        assert found["Path"] == "sleep" and found["HostConfig"]["NetworkMode"] == "bridge"


async def names(s: Served, query: str) -> list[str]:
    answer = await do(s, "GET", f"json?{query}")
    assert answer.status == 200, answer.body
    return [x["Names"][0] for x in answer.json]


def filtered(**filters: Any) -> str:
    return "all=1&filters=" + quote(json.dumps({k.replace("_", "-"): v for k, v in filters.items()}))


async def test_the_list_by_filters(template: Path) -> None:
    async with served(template) as s:
        await make(s, "a", Labels={"x": "1", "y": "2"})
        await make(s, "b", Labels={"x": "2"}, ExposedPorts={"80/tcp": {}}, host={"Tmpfs": {"/t": ""}})
        await make(s, "c", host={"Binds": ["vol:/data"], "PortBindings": {"81/tcp": [{"HostPort": "18081"}]}})
        await do(s, "POST", "c/start")
        for query, expected in (
            ("", ["/c"]),
            ("all=1", ["/c", "/b", "/a"]),
            ("limit=2", ["/c", "/b"]),
            ("limit=-1&all=true", ["/c", "/b", "/a"]),
            (filtered(name=["^/a$"]), ["/a"]),
            (filtered(name=["a", "^b"]), ["/b", "/a"]),
            (filtered(name=["("]), []),
            (filtered(name={"a": True}), ["/a"]),
            (filtered(label=["x"]), ["/b", "/a"]),
            (filtered(label=["x=1", "y"]), ["/a"]),
            (filtered(status=["created"]), ["/b", "/a"]),
            (filtered(status=["running", "created"], name=["b", "c"]), ["/c", "/b"]),
            (filtered(before=["c"]), ["/b", "/a"]),
            (filtered(since=["a"]), ["/c", "/b"]),
            (filtered(since=["a"], before=["c"]), ["/b"]),
            (filtered(volume=["vol"]), ["/c"]),
            (filtered(volume=["/data/"]), ["/c"]),
            (filtered(expose=["80/tcp"]), ["/b"]),
            (filtered(expose=["80-81"]), ["/c", "/b"]),
            (filtered(publish=["18081"]), ["/c"]),
            (filtered(publish=["81/udp"]), []),
            (filtered(network=["bridge"]), ["/c", "/b", "/a"]),
            (filtered(network=["other"]), []),
            (filtered(ancestor=["box"]), ["/c", "/b", "/a"]),
            (filtered(ancestor=["other"]), []),
            (filtered(health=["none"]), ["/c", "/b", "/a"]),
            (filtered(exited=["0"]), []),
            (filtered(is_task=["true"]), []),
            (filtered(is_task=["false"], id=["zz"]), []),
        ):
            assert await names(s, query) == expected, query
        await do(s, "POST", "c/kill")
        await do(s, "POST", "c/stop")  # returns when it has ended
        assert await names(s, filtered(exited=["137"])) == ["/c"]
        assert await names(s, filtered(status=["exited"])) == ["/c"]


@pytest.mark.parametrize(
    ("filters", "status", "message"),
    [
        ({"nope": ["1"]}, 400, "invalid filter 'nope'"),
        ({"status": ["well"]}, 400, "invalid filter 'status=well'"),
        ({"health": ["fine"]}, 400, "invalid filter 'health=fine'"),
        ({"exited": ["x"]}, 400, "invalid filter 'exited=x'"),
        ({"publish": ["99999"]}, 400, "invalid filter 'publish=99999'"),
        ({"is-task": ["maybe"]}, 400, "invalid filter 'is-task=maybe'"),
        ({"before": ["x"]}, 404, "No such container: x"),
        ([], 400, "invalid filters"),
    ],
)
async def test_filters_that_are_none(template: Path, filters: Any, status: int, message: str) -> None:
    async with served(template) as s:
        answer = await do(s, "GET", f"json?filters={quote(json.dumps(filters))}")
        assert answer.status == status and message in answer.json["message"]


async def test_sizes_only_when_asked(template: Path) -> None:
    async with served(template) as s:
        await make(s)
        (plain,), (sized,) = (await do(s, "GET", "json?all=1")).json, (await do(s, "GET", "json?all=1&size=1")).json
        assert "SizeRw" not in plain and sized["SizeRootFs"] >= sized["SizeRw"] >= 0
        assert "SizeRw" not in await look(s) and (await do(s, "GET", "a/json?size=true")).json["SizeRootFs"] > 0


async def test_prune(template: Path) -> None:
    async with served(template) as s:
        ids = {n: await make(s, n, Labels={"n": n}) for n in ("a", "b", "c")}
        await do(s, "POST", "c/start")
        gone = (await do(s, "POST", "prune?filters=" + quote('{"label": ["n=a"]}'))).json
        assert gone["ContainersDeleted"] == [ids["a"]] and gone["SpaceReclaimed"] >= 0
        assert (await do(s, "POST", "prune?filters=" + quote('{"label!": ["n=b"]}'))).json["ContainersDeleted"] == []
        assert (await do(s, "POST", "prune?filters=" + quote('{"until": ["1h"]}'))).json["ContainersDeleted"] == []
        assert (await do(s, "POST", "prune")).json["ContainersDeleted"] == [ids["b"]]
        assert (await do(s, "POST", "prune?filters=" + quote('{"x": ["y"]}'))).status == 400
        assert await names(s, "all=1") == ["/c"]


async def test_update(template: Path) -> None:
    async with served(template) as s:
        await make(s, host={"CpuPeriod": 50_000, "CpuQuota": 25_000})
        assert (await look(s))["HostConfig"]["CpuQuota"] == 25_000
        body = {"Memory": 64 << 20, "CpuShares": 0, "BlkioWeight": 0, "RestartPolicy": {"Name": "always"}}
        assert (await do(s, "POST", "a/update", body)).json == {"Warnings": None}
        found = (await look(s))["HostConfig"]
        assert (found["Memory"], found["CpuQuota"], found["NanoCpus"]) == (64 << 20, 25_000, 0)
        assert found["RestartPolicy"]["Name"] == "always"
        assert (await do(s, "POST", "a/update", {"NanoCpus": 10**9, "PidsLimit": 7})).status == 200
        found = (await look(s))["HostConfig"]
        assert (found["NanoCpus"], found["CpuQuota"], found["PidsLimit"], found["Memory"]) == (10**9, 0, 7, 64 << 20)
        assert (await do(s, "POST", "a/update", {"PidsLimit": -1})).status == 200
        assert (await look(s))["HostConfig"]["PidsLimit"] is None
        for wrong, status in (({"Memory": 1}, 400), ({"Memory": "1"}, 400), ({"CpusetCpus": "0"}, 501),
                              ({"RestartPolicy": {"Name": "maybe"}}, 400)):  # fmt: skip
            assert (await do(s, "POST", "a/update", wrong)).status == status, wrong


async def test_top(template: Path) -> None:
    async with served(template) as s:
        await make(s)
        answer = await do(s, "GET", "a/top")
        assert (answer.status, "is not running" in answer.json["message"]) == (409, True)
        await do(s, "POST", "a/start")
        for arguments, titles in (
            ("", ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
            ("aux", ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]),
            ("-o pid,comm", ["PID", "COMMAND"]),
            ("-eo pid=NUMBER,pid,etime", ["NUMBER", "PID", "ELAPSED"]),
        ):
            found = (await do(s, "GET", f"a/top?ps_args={quote(arguments)}")).json
            assert found["Titles"] == titles and all(len(row) == len(titles) for row in found["Processes"])
            assert found["Processes"]
        for wrong in ("-o user", "-o nope,pid", "--forest"):
            assert (await do(s, "GET", f"a/top?ps_args={quote(wrong)}")).status == 400


async def test_changes_and_export(template: Path) -> None:
    async with served(template) as s:
        await make(s)
        await do(s, "POST", "a/start")
        assert {x["Kind"] for x in (await do(s, "GET", "a/changes")).json or []} <= {0, 1, 2}
        answer = await do(s, "GET", "a/export")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
        for path in ("x/changes", "x/export", "x/top"):
            assert (await do(s, "GET", path)).json == {"message": "No such container: x"}


def program(s: Served, name: str = "a") -> Any:
    """The main process in the guest."""
    guest = s.stage.guest(s.stage.machine(name))
    return next(p for p in guest.processes.values() if p.main)


async def test_another_signal_for_a_stop(template: Path) -> None:
    """Its own else; and who ends by the one that is asked for needs no KILL."""
    async with served(template) as s:
        await make(s, StopSignal="SIGUSR2")
        for query, number in (("t=0", 9), ("signal=SIGUSR1&t=1", 10), ("t=1", 12)):
            await do(s, "POST", "a/start")
            process = program(s)
            assert (await do(s, "POST", f"a/stop?{query}")).status == 204
            assert process.signals[0] == number
        for verb, status in (("stop", 200), ("restart", 204)):  # the same over REST
            await do(s, "POST", "a/start")
            process = program(s)
            assert (await s.ask("POST", f"/v1/containers/a/{verb}?signal=HUP&timeout=1")).status == status
            assert process.signals[0] == 1
        answer = await do(s, "POST", "a/stop?signal=SIGNOPE")
        assert (answer.status, "SIGNOPE" in answer.json["message"]) == (400, True)


async def test_the_size_of_its_terminal(template: Path) -> None:
    async with served(template) as s:
        await make(s, Tty=True, host={"ConsoleSize": [33, 77]})
        await do(s, "POST", "a/start")
        assert program(s).size == (33, 77)
        assert (await look(s))["HostConfig"]["ConsoleSize"] == [33, 77]


async def test_a_domain_name(template: Path) -> None:
    async with served(template) as s:
        id_ = await make(s, Hostname="web", Domainname="example.org")
        await do(s, "POST", "a/start")
        files = s.stage.guest(s.stage.machine("a")).containers[id_[:12]].files
        assert b"\tweb.example.org\tweb\n" in files["/etc/hosts"] and files["/etc/hostname"] == b"web\n"
        assert (await look(s))["Config"]["Domainname"] == "example.org"


async def test_a_directory_of_this_host_is_made_for_a_bind(template: Path, tmp_path: Path) -> None:
    async with served(template, virtiofs=True) as s:
        made, missing = tmp_path / "made/here", tmp_path / "missing"
        await make(s, host={"Binds": [f"{made}:/data"]})
        assert made.is_dir()
        body = {"Image": "box", "HostConfig": {"Mounts": [{"Type": "bind", "Source": str(missing), "Target": "/x"}]}}
        answer = await do(s, "POST", "create?name=b", body)
        assert answer.status == 400 and not missing.exists()
        (tmp_path / "file").write_text("x")
        answer = await do(s, "POST", "create?name=b",
                          {"Image": "box", "HostConfig": {"Binds": [f"{tmp_path}/file/x:/data"]}})  # fmt: skip
        assert answer.status == 400 and "cannot make the directory" in answer.json["message"]


async def test_volumes_of_another_and_its_address(template: Path) -> None:
    async with served(template, network="bridge") as s:
        await make(s, "db", host={"Binds": ["vol:/data", "cfg:/etc/db:ro"]})
        await make(s, host={"VolumesFrom": ["db:ro"], "Binds": ["own:/data"], "Links": ["/db:base"]})
        found = await look(s)
        assert {m["Destination"]: (m["Name"], m["RW"]) for m in found["Mounts"]} == {
            "/data": ("own", True), "/etc/db": ("cfg", False),
        }  # fmt: skip
        assert found["HostConfig"]["VolumesFrom"] == ["db:ro"] and found["HostConfig"]["Links"] == ["/db:/a/base"]
        (host,) = s.stage.engine.registry.container("a").spec.hosts
        assert host.names == ["base", "db"]
        assert [e.ip for e in s.stage.engine.registry.pod(s.stage.engine.registry.container("db").pod).attachments] == [
            host.ip
        ]


async def test_commit(template: Path) -> None:
    async with served(template, own_images=True) as s:
        await make(s)
        for query, status in (("container=x&repo=new", 404), ("container=a&tag=1", 400)):
            assert (await s.ask("POST", f"/v1.51/commit?{query}", docker=True)).status == status


async def test_its_image_when_the_name_is_another_by_now(template: Path) -> None:
    async with served(template, own_images=True) as s:
        await s.stage.engine.images.pull("builtin:busybox")[1]
        await make(s)
        (listed,) = (await do(s, "GET", "json?all=1")).json
        assert listed["Image"] == "box" and listed["ImageID"].startswith("sha256:")
        assert (await s.ask("POST", "/v1.51/images/busybox/tag?repo=box&tag=latest", docker=True)).status == 201
        (now,) = (await do(s, "GET", "json?all=1")).json
        assert now["Image"] == now["ImageID"] == listed["ImageID"]
        assert (await look(s))["Config"]["Image"] == "box"


async def test_processes_that_are_executed_in_it(template: Path) -> None:
    async with served(template) as s:
        await make(s)
        await do(s, "POST", "a/start")
        assert (await look(s))["ExecIDs"] is None
        made = (await do(s, "POST", "a/exec", {"Cmd": ["sleep", "9"]})).json
        assert (await look(s))["ExecIDs"] == [made["Id"]]
