# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: volumes that nobody named, and those that several containers want."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypercontainer.engine.containers import WaitFor

from .served import Served, served


async def ask(s: Served, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
    answer = await s.ask(method, f"/v1.51{path}", body, docker=True)
    assert answer.status == status, answer.body
    return answer.json if answer.body else None


async def make(s: Served, name: str, *, host: Any = None, **how: Any) -> str:
    """A container that sleeps; its id."""
    body = {"Image": "box", "Cmd": ["sleep", "100000"], "HostConfig": host or {}, **how}
    id_: str = (await ask(s, "POST", f"/containers/create?name={name}", body, status=201))["Id"]
    return id_


async def mounted(s: Served, name: str) -> dict[str, str]:
    """The names of its volumes, by where they are."""
    found = (await ask(s, "GET", f"/containers/{name}/json"))["Mounts"]
    return {m["Destination"]: m["Name"] for m in found}


async def volumes(s: Served, **filters: list[str]) -> set[str]:
    found = await ask(s, "GET", f"/volumes?filters={quote(json.dumps(filters))}")
    return {v["Name"] for v in found["Volumes"]}


async def test_a_volume_of_no_name_outlives_its_container(template: Path) -> None:
    async with served(template) as s:
        await make(s, "a", Volumes={"/d": {}}, host={"Mounts": [{"Type": "volume", "Target": "/e"}]})
        names = await mounted(s, "a")
        assert list(names) == ["/e", "/d"] and all(re.fullmatch("[0-9a-f]{64}", n) for n in names.values())
        shown = await ask(s, "GET", f"/volumes/{names['/d']}")
        assert shown["Labels"] == {"com.docker.volume.anonymous": ""} and Path(shown["Mountpoint"]).exists()
        assert (await ask(s, "GET", "/containers/a/json"))["Config"]["Volumes"] == {"/d": {}, "/e": {}}
        assert await volumes(s, dangling=["true"]) == set()
        await ask(s, "POST", "/containers/a/start", status=204)
        await ask(s, "DELETE", "/containers/a?force=1", status=204)
        assert await volumes(s, dangling=["true"]) == set(names.values())
        await ask(s, "DELETE", f"/volumes/{names['/e']}", status=204)
        assert (await ask(s, "POST", "/volumes/prune"))["VolumesDeleted"] == [names["/d"]]


async def test_a_volume_of_no_name_goes_where_that_is_asked_for(template: Path) -> None:
    async with served(template) as s:
        await make(s, "a", Volumes={"/d": {}})
        await make(s, "b", host={"VolumesFrom": ["a"]})
        await make(s, "c", Volumes={"/d": {}}, host={"Binds": ["kept:/k"]})
        shared = (await mounted(s, "a"))["/d"]
        assert await mounted(s, "b") == {"/d": shared}
        for name in ("a", "c"):
            await ask(s, "DELETE", f"/containers/{name}?v=1", status=204)
        assert await volumes(s) == {shared, "kept"}, "another one has it"
        await ask(s, "DELETE", "/containers/b?v=1", status=204)
        assert await volumes(s) == {shared, "kept"}, "there it had a name"


async def test_a_volume_of_no_name_goes_with_rm(template: Path) -> None:
    async with served(template) as s:
        id_ = await make(s, "a", Volumes={"/d": {}}, host={"AutoRemove": True, "Binds": ["kept:/k"]})
        await ask(s, "POST", "/containers/a/start", status=204)
        gone = s.stage.engine.containers.await_end(id_, WaitFor.REMOVED)
        await ask(s, "POST", "/containers/a/kill", status=204)
        await gone()
        assert await volumes(s) == {"kept"}


async def test_nothing_is_left_of_a_container_that_is_refused(template: Path) -> None:
    async with served(template) as s:
        missing = {"Type": "bind", "Source": "/nowhere/at/all", "Target": "/y"}
        mounts = [{"Type": "volume", "Target": "/d"}, missing]
        body = {"Image": "box", "HostConfig": {"Mounts": mounts}}
        await ask(s, "POST", "/containers/create", body, status=400)
        assert await volumes(s) == set()


async def test_a_disk_that_two_want_says_how_they_share_it(template: Path) -> None:
    async with served(template) as s:
        for name in ("app", "web"):
            await make(s, name, host={"Binds": ["page:/srv"]})
        await ask(s, "POST", "/containers/app/start", status=204)
        refused = (await ask(s, "POST", "/containers/web/start", status=409))["message"]
        assert "volume page is in use by the running pod app" in refused
        assert "`docker volume create -o type=directory page`" in refused


async def test_the_daemon_says_what_named_volumes_are(template: Path) -> None:
    async with served(template, volume_type="directory") as s:

        async def kind(**asked: Any) -> str:
            made = await ask(s, "POST", "/volumes/create", asked, status=201)
            return Path(made["Mountpoint"]).name

        assert await kind(Name="plain") == "_data" and await kind(Name="plain") == "_data"
        assert await kind(Name="sized", DriverOpts={"size": "1g"}) == "volume.img"
        assert await kind(Name="disk", DriverOpts={"type": "block"}) == "volume.img"
        assert await kind(Name="ext4", DriverOpts={"type": "ext4"}) == "volume.img"
        await make(s, "a", host={"Binds": ["named:/srv"]}, Volumes={"/d": {}})
        found = (await ask(s, "GET", "/containers/a/json"))["Mounts"]
        assert {m["Destination"]: Path(m["Source"]).name for m in found} == {"/srv": "_data", "/d": "volume.img"}


async def test_a_volume_begins_as_a_snapshot_of_another(template: Path) -> None:
    async with served(template, volume_type="directory") as s:
        await ask(s, "POST", "/volumes/create", {"Name": "first", "DriverOpts": {"size": "32m"}}, status=201)
        taken = await s.ask("POST", "/v1/volume-snapshots", {"volume": "first", "name": "shot"})
        assert taken.status == 201, taken.body
        made = await ask(s, "POST", "/volumes/create", {"Name": "n", "DriverOpts": {"snapshot": "shot"}}, status=201)
        assert Path(made["Mountpoint"]).name == "volume.img" and made["Options"] == {"snapshot": "shot"}
        for options, says in (
            ({"snapshot": "none"}, "no such snapshot of a volume: none"),
            ({"snapshot": ""}, 'invalid option: "snapshot"'),
            ({"snapshot": "shot", "type": "directory"}, "a volume that is a directory has no snapshot"),
            ({"snapshot": "shot", "size": "1g"}, "the snapshot shot has another size"),
        ):  # fmt: skip
            status = 404 if options == {"snapshot": "none"} else 400
            refused = await ask(s, "POST", "/volumes/create", {"Name": "x", "DriverOpts": options}, status=status)
            assert says in refused["message"], refused
