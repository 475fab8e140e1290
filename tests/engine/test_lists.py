# SPDX-License-Identifier: Apache-2.0
"""Lists of containers, volumes and networks: Docker's filters over REST, and what the command line makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.model.network import Network, NetworkInfo
from hypercontainer.model.status import Volume, VolumeInfo
from hypercontainer.model.thing_filters import select_networks, select_volumes

from .served import Served, served
from .stage import IMAGE
from .test_image_verbs import ctl


async def named(s: Served, route: str, **filters: list[str]) -> list[str]:
    got = await s.ask("GET", f"/v1{route}{'&' if '?' in route else '?'}filters={quote(json.dumps(filters))}")
    assert got.status == 200, got.body
    return [(x.get("volume") or x.get("network") or x)["name"] for x in got.json]


async def test_containers(template: Path) -> None:
    async with served(template) as s:
        await ctl(s, "run", "-d", "--name", "web1", "-l", "tier=front", "-v", "data:/d", IMAGE)
        await ctl(s, "create", "--name", "web2", "-l", "tier=back", "--expose", "90", IMAGE)
        await ctl(s, "run", "-d", "--name", "done", "-p", "8080:80", IMAGE, "exit", "3")
        await ctl(s, "wait", "done")
        assert await named(s, "/containers") == ["web1"]
        assert await named(s, "/containers?all=1") == ["done", "web2", "web1"]
        assert await named(s, "/containers?limit=2") == ["done", "web2"]
        for filters, names in (
            ({"name": ["^/web"]}, ["web2", "web1"]),
            ({"name": ["^web1$", "done"]}, ["done", "web1"]),
            ({"status": ["created", "exited"]}, ["done", "web2"]),
            ({"exited": ["3"]}, ["done"]),
            ({"label": ["tier"]}, ["web2", "web1"]),
            ({"label": ["tier=back"]}, ["web2"]),
            ({"label": ["!tier"]}, ["done"]),
            ({"ancestor": ["box"]}, ["done", "web2", "web1"]),
            ({"ancestor": ["other"]}, []),
            ({"before": ["done"]}, ["web2", "web1"]),
            ({"since": ["web2"]}, ["done"]),
            ({"volume": ["data"]}, ["web1"]),
            ({"volume": ["/d"]}, ["web1"]),
            ({"network": ["bridge"]}, ["done", "web2", "web1"]),
            ({"network": ["none"]}, []),
            ({"expose": ["90"]}, ["web2"]),
            ({"health": ["none"]}, ["done", "web2", "web1"]),
            ({"is-task": ["true"]}, []),
        ):
            assert await named(s, "/containers?all=1", **filters) == names, filters
        assert (await ctl(s, "ps", "-q", "-f", "exited=3")).strip() == (
            await ctl(s, "ps", "-aq", "-f", "name=done")
        ).strip()
        assert (await ctl(s, "ps", "-l", "--format", "{{.Names}}")) == "done\n"
        assert (await ctl(s, "ps", "-n", "2", "--format", "{{.Names}}")) == "done\nweb2\n"
        line = '{{.Names}} {{.Mounts}} {{.LocalVolumes}} {{.Label "tier"}} {{.Command}} {{.Networks}}'
        assert await ctl(s, "ps", "--format", line) == 'web1 data 1 front "sleep 100000" bridge\n'
        whole = json.loads(await ctl(s, "ps", "--no-trunc", "--format", "json"))[0]
        assert len(whole["id"]) == 64 and whole["labels"] == "tier=front" and whole["size"] == ""
        head, row = (await ctl(s, "ps", "-s")).splitlines()
        assert head.endswith("SIZE") and "(virtual " in row
        assert "(virtual " in await ctl(s, "ps", "--format", "{{.Size}}")
        for wrong, says in (
            ("colour=red", "invalid filter 'colour=red': use one of ancestor, before"),
            ("status=odd", "invalid filter 'status=odd': use one of created"),
            ("before=none", "No such container: none"),
            ("publish=x", "write PORT[-PORT][/tcp|udp]"),
        ):
            assert says in await ctl(s, "ps", "-f", wrong, status=1)


async def test_volumes_and_networks(template: Path) -> None:
    async with served(template, network="bridge") as s:
        await ctl(s, "volume", "create", "-l", "keep=1", "one")
        await ctl(s, "volume", "create", "-d", "directory", "two")
        await ctl(s, "create", "--name", "a", "-v", "two:/d", IMAGE)
        assert await named(s, "/volumes", dangling=["true"]) == ["one"]
        assert await named(s, "/volumes", driver=["local"], name=["^o", "^t"]) == ["one", "two"]
        assert (await ctl(s, "volume", "ls", "-q", "-f", "driver=directory")) == "two\n"
        shown = '{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Label "keep"}} {{.Links}}'
        assert await ctl(s, "volume", "ls", "-f", "label=keep", "--format", shown) == "one block local keep=1 1 0\n"
        assert "invalid filter 'size=1'" in await ctl(s, "volume", "ls", "-f", "size=1", status=1)
        assert "one" not in await ctl(s, "volume", "prune", "-f", "-a", "--filter", "label!=keep")
        assert "one" in await ctl(s, "volume", "prune", "-f", "--filter", "all=true")
        await ctl(s, "network", "create", "--label", "x=1", "mine")
        await ctl(s, "network", "create", "--internal", "other")
        assert await named(s, "/networks", type=["custom"]) == ["mine", "other"]
        assert "bridge" in await named(s, "/networks", type=["builtin"])
        line = "{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Labels}}"
        assert await ctl(s, "network", "ls", "-f", "label=x=1", "--format", line) == "mine bridge local false x=1\n"
        (id_,) = (await ctl(s, "network", "ls", "--no-trunc", "-f", "name=^mine$", "--format", "{{.ID}}")).split()
        assert await named(s, "/networks", id=[id_[:8]]) == ["mine"]
        assert (await ctl(s, "network", "ls", "-q", "-f", "name=^mine$")).strip() == id_[:12]
        assert "invalid filter 'type=odd'" in await ctl(s, "network", "ls", "-f", "type=odd", status=1)
        assert (await ctl(s, "network", "prune", "-f", "--filter", "label=x")).strip() == "mine"
        assert (await ctl(s, "network", "prune", "-f", "--filter", "until=2001-01-01T00:00:00Z")) == ""
        assert "other" in (await ctl(s, "network", "prune", "-f")).split()


async def test_templates_of_diff_top_and_stats(template: Path) -> None:
    async with served(template) as s:
        await ctl(s, "run", "-d", "--name", "a", IMAGE)
        container = s.stage.guest(s.stage.machine("a")).containers[s.stage.engine.registry.container("a").id[:12]]
        container.changes = ["A /x", "D /y"]
        assert await ctl(s, "diff", "--format", "{{.Type}}:{{.Path}}", "a") == "A:/x\nD:/y\n"
        assert json.loads(await ctl(s, "diff", "--format", "json", "a"))[0]["path"] == "/x"
        assert (await ctl(s, "top", "--format", "{{.Command}}", "a")).strip() == "sleep 100000"
        told = await ctl(
            s, "stats", "--no-stream", "--no-trunc", "--format", "table {{.ID}}\\t{{.PIDs}}\\t{{.CPUPerc}}", "a"
        )
        head, row = told.splitlines()
        assert head.split() == ["ID", "PIDS", "CPUPERC"] and len(row.split()[0]) == 64


def volume(name: str, **more: Any) -> VolumeInfo:
    used = more.pop("used", [])
    return VolumeInfo(
        volume=Volume(name=name, created_at="2020-01-01T00:00:00Z", driver="block", path="/v", **more),
        used_by=used, disk_usage=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["a", "b"]),
        ({"dangling": ["1"]}, ["b"]),
        ({"dangling": ["false"]}, ["a"]),
        ({"name": ["("]}, []),
        ({"name": ["a", "b"]}, ["a", "b"]),
        ({"driver": ["nfs"]}, []),
        ({"label": ["x=1"]}, ["a"]),
        ({"label": ["!x"]}, ["b"]),
        ({"dangling": ["maybe"]}, None),
    ],
)
def test_filters_of_volumes(filters: dict[str, list[str]], names: list[str] | None) -> None:
    found = [volume("a", used=["p"], labels={"x": "1"}), volume("b")]
    if names is None:
        with pytest.raises(HyperError, match="give true or false"):
            select_volumes(found, filters)
        return
    assert [v.volume.name for v in select_volumes(found, filters)] == names


def test_filters_of_networks() -> None:
    bare = Network(id="abc", name="bridge", created_at="2020-01-01T00:00:00Z", bridge="b", subnet="", gateway="")
    found = [NetworkInfo(network=bare, pods={"p": []})]
    for filters, there in (
        ({"scope": ["local"]}, True), ({"scope": ["swarm"]}, False), ({"driver": ["bridge", "x"]}, True),
        ({"driver": ["overlay"]}, False), ({"dangling": ["true"]}, False), ({"type": ["builtin"]}, True),
        ({"id": ["^ab"]}, True),
    ):  # fmt: skip
        assert bool(select_networks(found, filters)) is there, filters
