# SPDX-License-Identifier: Apache-2.0
"""Every route, asked by another project: what it has not is answered as what is not there, and no list tells of it.

A route for which nothing is said here fails the test.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hypercontainer.api.app import ROUTES
from hypercontainer.docker.app import ROUTES as DOCKER
from hypercontainer.images.layout import Layout
from hypercontainer.network.floating import FipSettings
from hypercontainer.sys import clock

from .served import Answer
from .stage import IMAGE, put_image
from .test_tenancy import Cloud, cloud

FIPS = FipSettings((ip_network("203.0.113.0/28"),))
MARK = "zulu"  # in the names of all that the other project has, and in what is in it
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
EXEC = {"command": ["true"]}
_ANSWERED_ANYWAY = ("date", "hyper-request-id", "content-length")


@dataclass(frozen=True)
class Case:
    """How a route is asked; `KEY` in its query and body is what names a thing of this kind."""

    kind: str
    query: str = ""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 404  # of what is not there; 0 is any


# Routes without an id in them.
REST: dict[str, Case] = {
    **{f"GET {p}": Case("list") for p in ("/ping", "/version", "/info", "/system/df", "/podfile/schema", "/containers",
                                          "/pods", "/snapshots", "/volumes", "/networks", "/images", "/tokens",
                                          "/organisations", "/projects", "/sizes", "/quota", "/billing/prices",
                                          "/usage/metrics", "/crons", "/security-groups", "/fips",
                                          "/deployments", "/volume-snapshots")},
    "GET /usage": Case("organisation", "organisation=KEY"), "GET /usage/check": Case("host"),
    "GET /usage/entries": Case("host"), "GET /cluster/nodes": Case("host"), "GET /cluster/pods": Case("none"),
    "GET /billing/account": Case("organisation", "organisation=KEY"),
    "GET /backup": Case("host"),
    "GET /billing/invoice": Case("organisation", "organisation=KEY"),
    "POST /billing/prices": Case("host", body={"name": "x", "currency": "USD", "validFrom": "2023-01-01"}),
    "GET /containers": Case("list", "all=1&system=1"),
    "GET /events": Case("list", "past=1"),
    **{r: Case("host") for r in ("GET /doctor", "GET /factory", "POST /factory/drain")},
    "POST /factory/warm": Case("host", body={"memory": 1 << 28, "cpus": 1}),
    **{f"POST /{kind}/prune": Case("prune", "all=1") for kind in ("containers", "volumes", "networks", "images")},
    "POST /build": Case("none"), "POST /build/session": Case("none"), "POST /build/prune": Case("none"),
    "POST /build/stop": Case("none"),
    "POST /containers": Case("image", body={"image": "KEY"}),
    "POST /pods": Case("image", body={"id": "mine", "containers": [{"name": "c", "image": "KEY"}]}),
    "POST /pods/plan": Case("none", body={"id": "mine", "containers": [{"name": "c", "image": IMAGE}]}),
    "POST /fips": Case("none", body={"name": "mine"}),
    "POST /crons": Case("none", body={"name": "mine", "schedule": "@daily", "container": {"image": "none"}}),
    "POST /security-groups": Case("none", body={"name": "mine"}),
    "POST /deployments": Case("none", body={"name": "mine", "container": {"image": "none"}, "replicas": 0}),
    "POST /volume-snapshots": Case("volume", body={"volume": "KEY"}),
    "POST /snapshots": Case("pod", body={"pod": "KEY"}),
    "POST /snapshots/import": Case("host"),
    "POST /volumes": Case("volume snapshot", body={"name": "mine", "snapshot": "KEY"}),
    "POST /networks": Case("none", body={"name": "mine"}),
    "POST /tokens": Case("none", body={"name": "mine", "scopes": ["read"]}),
    "POST /images/pull": Case("none", "name=builtin:nothing"), "GET /images/tags": Case("none", "name=127.0.0.1:1/x"),
    "POST /images/push": Case("image", "name=KEY"), "GET /images/save": Case("image", "names=[%22KEY%22]"),
    "POST /images/load": Case("none"), "POST /images/import": Case("none"),
    "GET /images/inspect": Case("image", "name=KEY"), "GET /images/history": Case("image", "name=KEY"),
    "POST /images/tag": Case("image", "name=KEY&new=mine:1"), "DELETE /images": Case("image", "name=KEY&force=1"),
    "POST /organisations": Case("host", body={"name": "x"}), "GET /users": Case("host"),
    "POST /users": Case("host", body={"name": "x"}),
    "POST /login/device": Case("none"), "POST /login/token": Case("none", body={"handle": "x"}),
    "DELETE /login": Case("none"), "GET /audit": Case("none"),
    "POST /projects": Case("organisation", body={"name": "x", "organisation": "KEY"}),
}  # fmt: skip
# What routes with an id take beside it.
WITH: dict[str, Case] = {
    "POST /containers/{id}/rename": Case("", "name=other"), "POST /containers/{id}/update": Case("", body={}),
    "POST /containers/{id}/attach": Case("", headers=UPGRADE), "POST /containers/{id}/exec": Case("", body=EXEC),
    "POST /containers/{id}/commit": Case("", body={}),
    "POST /containers/{id}/kill": Case("", "signal=KILL"), "POST /containers/{id}/resize": Case("", "rows=1&columns=1"),
    "POST /execs/{id}/start": Case("", headers=UPGRADE), "POST /execs/{id}/attach": Case("", headers=UPGRADE),
    "GET /containers/{id}/archive": Case("", "path=/"), "PUT /containers/{id}/archive": Case("", "path=/"),
    "GET /containers/{id}/archive/stat": Case("", "path=/"), "GET /containers/{id}/files": Case("", "path=/"),
    "DELETE /containers/{id}/files": Case("", "path=/x"), "GET /containers/{id}/files/watch": Case("", "path=/"),
    "POST /containers/{id}/files/rename": Case("", "path=/x&to=/y"),
    "POST /crons/{id}/update": Case("", body={}),
    "POST /security-groups/{id}/update": Case("", body={}),
    "POST /security-groups/{id}/attach": Case("", body={"pod": "mine"}),
    "POST /security-groups/{id}/detach": Case("", body={"pod": "mine"}),
    "POST /fips/{id}/attach": Case("", body={"pod": "none"}), "POST /fips/{id}/name": Case("", body={"name": "mine"}),
    "POST /deployments/{id}/update": Case("", body={}),
    "POST /pods/{id}/labels": Case("", body={}), "POST /pods/{id}/ports": Case("", body=[]),
    "DELETE /pods/{id}/ports": Case("", body=[]), "POST /pods/{id}/services": Case("", body=[]),
    "PUT /pods/{id}/services": Case("", body=[]), "POST /pods/{id}/networks": Case("", body={"name": "bridge"}),
    "DELETE /pods/{id}/services": Case("", "address=10.0.0.1&port=1"),
    "DELETE /pods/{id}/networks": Case("", "network=x"), "POST /pods/{id}/lifetime": Case("", body={}),
    "POST /pods/{id}/connect": Case("", "port=1", headers=UPGRADE), "POST /pods/{id}/fork": Case("", body={}),
    "POST /pods/{id}/egress": Case("", body={"hosts": []}), "POST /snapshots/{id}/restore": Case("", body={}),
    "POST /pods/{id}/update": Case("", body={}),
    "PUT /organisations/{id}/members": Case("", body={"user": "u", "role": "viewer"}),
    "POST /projects/{id}/rename": Case("", "name=other"),
    **{r: Case("", status=403) for r in ("DELETE /set-aside/{id}", "DELETE /organisations/{id}", "GET /users/{id}",
                                         "POST /users/{id}/update", "DELETE /users/{id}")},
    "POST /organisations/{id}/rename": Case("", "name=x", status=403),
    "DELETE /cluster/pods/{id}": Case("none"), "GET /cluster/pods/{id}/logs": Case("none"),
    "PUT /billing/accounts/{id}": Case("", body={}),
    "POST /billing/accounts/{id}/credits": Case("", body={"amount": 1}, status=403),
    **{f"PUT /projects/{{id}}/{what}": Case("", body={}, status=403) for what in ("quota", "policy")},
}  # fmt: skip
CONTAINER = {"Image": "KEY", "Cmd": ["true"]}
OF_DOCKER: dict[str, Case] = {
    **{f"{m} {p}": Case("list") for m, p in (
        ("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/version"), ("GET", "/info"), ("GET", "/system/df"),
        ("GET", "/volumes"), ("GET", "/networks"), ("GET", "/plugins"),
    )},
    "GET /images/json": Case("list", "all=1"), "GET /containers/json": Case("list", "all=1&size=1"),
    "GET /events": Case("list", "since=1&until=NOW"),
    "POST /images/create": Case("none", "fromImage=builtin:nothing"), "GET /images/search": Case("none", "term=zulu"),
    "GET /images/get": Case("image", "names=KEY"), "POST /images/load": Case("none"),
    **{f"POST /{kind}/prune": Case("prune") for kind in ("containers", "volumes", "networks", "images")},
    "POST /auth": Case("none", body={"serveraddress": "127.0.0.1:1", "username": "a", "password": "b"}),
    "POST /volumes/create": Case("none", body={"Name": "mine"}),
    "POST /networks/create": Case("none", body={"Name": "mine-too"}),
    "POST /commit": Case("container", "container=KEY"),
    **{f"POST /{p}": Case("none") for p in ("build", "build/cancel", "build/prune", "grpc", "session")},
    "POST /containers/create": Case("image", body=CONTAINER),
}  # fmt: skip
DOCKER_WITH: dict[str, Case] = {
    "POST /images/{name:.+}/push": Case("", status=0),  # with a tag, what is wrong comes in the stream
    "POST /images/{name:.+}/tag": Case("", "repo=mine&tag=1"), "DELETE /images/{name:.+}": Case("", "force=1"),
    "GET /distribution/{name:.+}/json": Case("none"), "GET /plugins/{name:.+}/json": Case("none"),
    "PUT /volumes/{name}": Case("none", body={}),
    "POST /networks/{name}/connect": Case("", body={"Container": "x"}),
    "POST /networks/{name}/disconnect": Case("", body={"Container": "x"}),
    "POST /containers/{name}/rename": Case("", "name=other"), "POST /containers/{name}/update": Case("", body={}),
    **{f"{m} /containers/{{name}}/archive": Case("", "path=/") for m in ("HEAD", "GET", "PUT")},
    "POST /containers/{name}/resize": Case("", "h=1&w=1"), "POST /exec/{name}/resize": Case("", "h=1&w=1"),
    "POST /containers/{name}/exec": Case("", body={"Cmd": ["true"]}), "POST /exec/{name}/start": Case("", body={}),
    "GET /containers/{name}/logs": Case("", "stdout=1"), "GET /containers/{name}/stats": Case("", "stream=0"),
    "GET /containers/{name}/attach/ws": Case("", headers={
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }),
}  # fmt: skip
# What is asked for nothing: its words are the same for everybody.
_NEVER = ("swarm", "services", "tasks", "nodes", "secrets", "configs", "plugins")
KINDS = {
    "containers": "container", "pods": "pod", "execs": "exec", "exec": "exec", "snapshots": "snapshot",
    "volumes": "volume", "networks": "network", "tokens": "token", "organisations": "organisation",
    "projects": "project", "users": "user", "images": "image", "set-aside": "container",
    "billing": "organisation", "crons": "cron", "security-groups": "security group", "fips": "fip",
    "deployments": "deployment", "volume-snapshots": "volume snapshot",
}  # fmt: skip


def case_of(docker: bool, method: str, path: str) -> Case:
    """:raise KeyError: nothing is said of the route."""
    plain, beside = (OF_DOCKER, DOCKER_WITH) if docker else (REST, WITH)
    name, first = f"{method} {path}", path.split("/")[1]
    if docker and (first in _NEVER or "checkpoints" in path):
        return Case("none")
    if "{" not in path:
        return plain[name]
    found = beside.get(name, Case(""))
    return Case(found.kind or KINDS[first], found.query, found.body, found.headers, found.status)


@dataclass
class Things:
    """Of the other project: for each kind by what it may be called, and all ids."""

    keys: dict[str, list[str]]
    ids: list[str]


async def fill(c: Cloud) -> Things:
    """The project `blue/web` has one of each."""
    web = "blue/web"

    async def made(path: str, body: Any) -> dict[str, Any]:
        got = await c.ask("POST", path, body, project=web)
        assert got.status == 201, got.body
        found: dict[str, Any] = got.json
        return found

    tenant = await c.project_id(web)
    layout = Layout(c.s.stage.paths.images, lambda: tenant)
    image = put_image(layout, Cmd=["sleep", "100000"], Labels={"is": MARK})
    layout.set_name("docker.io/library/zulu-app:1", layout.names()[IMAGE])
    layout.remove_names([IMAGE])
    network = await made("/networks", {"name": "zulu-net", "labels": {"is": MARK}})
    await made("/volumes", {"name": "zulu-data", "labels": {"is": MARK}})
    copied = await made("/volume-snapshots", {"volume": "zulu-data", "name": "zulu-copy", "labels": {"is": MARK}})
    mounts = [{"type": "volume", "source": "zulu-data", "target": "/d"}]
    box = await made("/containers", {"image": "zulu-app:1", "name": "zulu-box", "mounts": mounts, "env": [f"A={MARK}"]})
    assert (await c.ask("POST", "/containers/zulu-box/start", project=web)).status == 200
    pod = await made("/pods", {"id": "zulu-pod", "containers": [{"name": "zulu-part", "image": "zulu-app:1"}]})
    exec_ = await made("/containers/zulu-box/exec", EXEC)
    snapshot = await made("/snapshots", {"pod": "zulu-box", "name": "zulu-shot"})
    token = (await made("/tokens", {"name": "zulu-token", "scopes": ["read"]}))["token"]
    job = {"schedule": "0 0 1 1 *", "container": {"image": "zulu-app:1", "env": [f"A={MARK}"]}}
    cron = await made("/crons", {"name": "zulu-job", **job})
    group = await made("/security-groups", {"name": "zulu-group", "description": MARK})
    fip = await made("/fips", {"name": "zulu-fip"})
    fleet = {"container": {"image": "zulu-app:1", "env": [f"A={MARK}"]}, "replicas": 0, "network": "zulu-net"}
    deployment = await made("/deployments", {"name": "zulu-set", **fleet})
    user = (await c.ask("GET", "/users/zulu-user")).json
    pod_id = pod["pod"]["id"]
    keys = {
        "container": _named(box["id"], "zulu-box"), "pod": [*_named(pod_id, "zulu-pod"), *_named(box["id"])],
        "network": _named(network["id"], "zulu-net"), "volume": ["zulu-data"], "exec": [exec_["id"]],
        "snapshot": _named(snapshot["id"], "zulu-shot"), "token": [token["id"], "zulu-token"],
        "image": [image.id, image.id.removeprefix("sha256:")[:12], "zulu-app:1", "zulu-app", image.digest,
                  f"zulu-app@{image.digest}"],
        "cron": _named(cron["id"], "zulu-job"), "security group": _named(group["id"], "zulu-group"),
        "fip": [*_named(fip["id"], "zulu-fip"), fip["address"]],
        "deployment": _named(deployment["id"], "zulu-set"), "volume snapshot": _named(copied["id"], "zulu-copy"),
        "organisation": [(await c.ask("GET", "/organisations/blue")).json["id"], "blue"],
        "project": [tenant, "blue/web"], "user": [user["id"], "zulu-user"],
    }  # fmt: skip
    ids = [
        box["id"],
        pod_id,
        network["id"],
        exec_["id"],
        snapshot["id"],
        token["id"],
        tenant,
        user["id"],
        cron["id"],
        group["id"],
        fip["id"],
        deployment["id"],
        copied["id"],
    ]
    return Things(keys, [*ids, image.id.removeprefix("sha256:"), image.digest.removeprefix("sha256:")])


def _named(id_: str, *names: str) -> list[str]:
    return [id_, id_[:12], id_[:4], *names]


def absent(key: str) -> str:
    """What looks the same, and is nothing."""
    made = hashlib.sha256(f"none {key}".encode()).hexdigest()
    return (
        re.sub(r"(?<![a-z])[0-9a-f]{4,}", lambda m: made[: len(m[0])], key)
        .replace("zulu", "none")
        .replace("blue", "grey")
    )


def asked(path: str, case: Case, key: str) -> tuple[str, bytes]:
    """The target and the body."""
    where = re.sub(r"\{[^}]*\}", lambda _: quote(key, safe="") if "KEY" not in case.query else "x", path)
    query = case.query.replace("KEY", quote(key, safe="")).replace("NOW", str(clock.now_ns() // 10**9))
    body = b"" if case.body is None else json.dumps(case.body).replace("KEY", key).encode()
    return where + (f"?{query}" if query else ""), body


def told(got: Answer, key: str) -> tuple[int, dict[str, str], str]:
    """All that an answer says but what was asked for."""
    text = got.body.decode(errors="replace")
    headers = {k: v for k, v in got.headers.items() if k not in _ANSWERED_ANYWAY}
    repository = key.partition("@")[0].partition(":")[0]
    for form in (quote(key, safe=""), key, repository):
        text = text.replace(form, "KEY")
    return got.status, headers, text


def walk() -> Iterator[tuple[bool, str, str]]:
    for route in ROUTES:
        yield False, route.method, route.path
    for other in DOCKER:
        yield True, other.method, other.path


def test_something_is_said_of_every_route() -> None:
    unsaid = []
    for docker, method, path in walk():
        try:
            case_of(docker, method, path)
        except KeyError:
            unsaid.append(f"{'docker: ' if docker else ''}{method} {path}")
    assert unsaid == []


@pytest.mark.parametrize("docker", [False, True], ids=["rest", "docker"])
async def test_nothing_of_another_project_is_told_by_any_route(template: Path, docker: bool) -> None:
    async with cloud(template, own_images=True, factory=True, fips=FIPS) as c:
        await c.made("/users", name="zulu-user")
        await c.member("blue", "zulu-user", "owner")
        things = await fill(c)
        await c.give_image("red/web")
        token = await c.token("red/web", "operate", "manage", "audit")
        before = await everything(c)
        wrong: list[str] = []

        async def ask(method: str, path: str, case: Case, key: str) -> Answer:
            target, body = asked(path, case, key)
            if not docker:
                target = f"/v1{target}"
            return await c.s.ask(method, target, body, token=token, docker=docker, headers=case.headers)

        for of_docker, method, path in walk():
            if of_docker is not docker:
                continue
            case = case_of(docker, method, path)
            for key in things.keys.get(case.kind, [""]):
                got = await ask(method, path, case, key)
                trouble = judge(case, got, key, things)
                if case.kind in things.keys:
                    other = absent(key)
                    nothing = await ask(method, path, case, other)
                    if told(got, key) != told(nothing, other):
                        trouble = f"not as for what is not there: {told(got, key)} and {told(nothing, other)}"
                if trouble:
                    wrong.append(f"{method} {path} {key}: {trouble}")
        assert not wrong, "\n".join(wrong)
        assert await everything(c) == before


def judge(case: Case, got: Answer, key: str, things: Things) -> str:
    """What is wrong with an answer to who may not know; "" for nothing."""
    text = told(got, key)[2] if key else got.body.decode(errors="replace")
    if case.kind in things.keys and case.status and got.status != case.status:
        return f"status {got.status}: {text[:300]}"
    if case.kind == "host" and got.status != 403:
        return f"status {got.status}: {text[:300]}"
    if case.kind in ("list", "prune") and got.status not in (200, 201):
        return f"status {got.status}: {text[:300]}"
    if got.status >= 500 and case.kind != "none":
        return f"status {got.status}: {text[:300]}"
    leaks = [x for x in [*things.ids, MARK] if x[:12] in text and "term=" not in case.query]
    return f"tells of {leaks}: {text[:300]}" if leaks else ""


async def everything(c: Cloud) -> list[Any]:
    """What the other project has, as it sees it."""
    paths = (
        "/containers?all=1",
        "/pods",
        "/volumes",
        "/networks",
        "/images",
        "/snapshots",
        "/crons",
        "/security-groups",
        "/fips",
        "/deployments",
        "/volume-snapshots",
        "/tokens",
    )
    found = [(await c.ask("GET", path, project="blue/web")).json for path in paths]
    for token in found[-1]:
        token.pop("lastUsedAt")
    return found


async def test_names_of_another_project_are_free(template: Path) -> None:
    """Nor does anything of the same name get in the way of the other one."""
    async with cloud(template, own_images=True, factory=True, fips=FIPS) as c:
        await c.made("/users", name="zulu-user")
        await fill(c)
        await c.give_image("red/web")
        before = await everything(c)
        mounts = [{"type": "volume", "source": "zulu-data", "target": "/d"}]
        made: list[tuple[str, Any]] = [
            ("/networks", {"name": "zulu-net"}),
            ("/volumes", {"name": "zulu-data"}),
            ("/containers", {"image": IMAGE, "name": "zulu-box", "mounts": mounts, "network": "zulu-net"}),
            ("/pods", {"id": "zulu-pod", "containers": [{"name": "zulu-part", "image": IMAGE}]}),
            ("/tokens", {"name": "zulu-token", "scopes": ["read"]}),
        ]
        for path, body in made:
            assert (await c.ask("POST", path, body, project="red/web")).status == 201, path
        for verb in ("start", "stop"):
            assert (await c.ask("POST", f"/containers/zulu-box/{verb}", project="red/web")).status == 200
        assert (await c.ask("GET", "/containers/zulu-box", project="blue/web")).json["state"]["status"] == "running"
        for path in ("/containers/zulu-box", "/pods/zulu-pod", "/volumes/zulu-data", "/networks/zulu-net"):
            assert (await c.ask("DELETE", f"{path}?force=1", project="red/web")).status in (200, 204), path
        assert (await c.ask("DELETE", "/projects/red%2Fweb")).status == 200
        assert await everything(c) == before
        places = [p.name for p in (c.s.stage.paths.volumes).iterdir()]
        assert places == [f".project-{await c.project_id('blue/web')}"]


async def test_specifications_do_not_reach_into_another_project(template: Path) -> None:
    async with cloud(template, own_images=True, factory=True, fips=FIPS) as c:
        await c.made("/users", name="zulu-user")
        things = await fill(c)
        await c.give_image("red/web")
        places: dict[str, list[dict[str, Any]]] = {
            "container": [{"volumesFrom": ["KEY"]}, {"links": ["KEY:x"]}, {"base": "KEY"}, {"pid": "container:KEY"}],
            "pod": [{"pod": "KEY"}],
            "network": [{"network": "KEY"}, {"networks": [{"name": "KEY"}]}],
        }
        for kind, specs in places.items():
            for spec in specs:
                for key in things.keys[kind]:
                    said = []
                    for name in (key, absent(key)):
                        body = json.loads(json.dumps({"image": IMAGE, **spec}).replace("KEY", name))
                        said.append(told(await c.ask("POST", "/containers", body, project="red/web"), name))
                    assert said[0] == said[1] and said[0][0] >= 400, (spec, said)
        assert (await c.ask("GET", "/containers?all=1", project="red/web")).json == []


async def test_a_projects_pods_have_a_network_of_their_own(template: Path) -> None:
    async with cloud(template, own_images=True, network="bridge") as c:
        bridges = set()
        for project in ("blue/web", "red/web", ""):
            if project:
                await c.give_image(project)
            assert (await c.ask("POST", "/containers", {"image": IMAGE, "name": "a"}, project=project)).status == 201
            (found,) = (await c.ask("GET", "/networks", project=project)).json
            assert found["network"]["name"] == "bridge" and list(found["pods"]) == ["a"]
            bridges.add((found["network"]["bridge"], found["network"]["subnet"]))
        assert len(bridges) == 3 == len({name for name, _ in bridges}) == len({subnet for _, subnet in bridges})


async def test_an_image_that_only_another_project_has_is_fetched_and_stays_theirs(template: Path) -> None:
    async with cloud(template, own_images=True) as c:
        for project in ("blue/web", "red/web"):
            got = await c.ask("POST", "/images/pull?name=builtin:busybox", project=project)
            assert b"Downloaded newer image" in got.body, got.body
        gone = await c.ask("DELETE", "/images?name=busybox", project="red/web")
        assert gone.status == 200 and gone.json["freed"] == 0
        assert (await c.ask("GET", "/images/inspect?name=busybox", project="red/web")).status == 404
        assert (await c.ask("GET", "/images/inspect?name=busybox", project="blue/web")).status == 200
        assert (await c.ask("GET", "/info", project="red/web")).json["images"] == 0
