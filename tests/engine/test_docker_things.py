# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API: images, volumes, networks, the daemon itself."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hypercontainer.model import architectures
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.specs import Mount
from tests.registry import Registry, serving

from .served import Answer, Served, served
from .stage import IMAGE
from .test_image_verbs import put, stock


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


async def ask(s: Served, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
    """The document that comes back."""
    answer = await s.ask(method, f"/v1.51{path}", body, docker=True, **more)
    assert answer.status == status, answer.body
    return answer.json if answer.body else None


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dechunked(answer).splitlines() if line]


def dechunked(answer: Answer) -> bytes:
    if answer.headers.get("transfer-encoding") != "chunked":
        return answer.body
    found, rest = b"", answer.body
    while rest:
        length, _, rest = rest.partition(b"\r\n")
        found, rest = found + rest[: int(length, 16)], rest[int(length, 16) + 2 :]
    return found


async def test_images_as_docker_lists_and_inspects_them(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        found = await ask(s, "GET", "/images/json")
        by_id = {i["Id"]: i for i in found}
        assert set(ids.values()) < set(by_id)
        old = by_id[ids["old"]]
        assert (old["RepoTags"], old["Labels"], old["Created"]) == (
            ["example.org/team/app:1"], {"stage": "test", "x": "1"}, 1577836800,
        )  # fmt: skip
        assert (old["Containers"], old["SharedSize"], old["ParentId"]) == (-1, -1, "")
        assert "VirtualSize" not in old
        assert by_id[ids["bare"]]["RepoTags"] == []
        assert found[0]["Id"] == ids["new"], "newest first"

        filters = quote(json.dumps({"reference": {"example.org/team/app": True}, "label": ["stage=live"]}))
        assert [i["Id"] for i in await ask(s, "GET", f"/images/json?filters={filters}")] == [ids["mid"]]
        await ask(s, "POST", "/images/tool/tag?repo=other&tag=x", status=201)
        found = await ask(s, "GET", "/images/json?filters=" + quote('{"reference": ["other"]}'))
        assert [i["RepoTags"] for i in found] == [["other:x"]], "the names that were asked for"
        one = await ask(s, "GET", "/images/example.org/team/app:2/json")
        assert (one["Id"], one["Os"], one["Architecture"]) == (ids["mid"], "linux", "amd64")
        assert one["Config"] == {"Labels": {"stage": "live"}}
        assert one["RootFS"] == {"Type": "layers", "Layers": ["sha256:" + "1" * 64]}
        assert "No such image: nope:latest" in (await ask(s, "GET", "/images/nope/json", status=404))["message"]


async def test_old_clients_see_images_as_they_know_them(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        found = (await s.ask("GET", "/v1.41/images/json", docker=True)).json
        bare = next(i for i in found if i["Id"] == ids["bare"])
        assert bare["RepoTags"] == ["<none>:<none>"]
        assert bare["VirtualSize"] == bare["Size"]
        one = (await s.ask("GET", "/v1.41/images/tool/json", docker=True)).json
        assert one["ContainerConfig"]["Cmd"] is None
        assert (one["Config"]["Hostname"], one["Config"]["Tty"]) == ("", False)


async def test_a_pull_tells_its_progress(template: Path, registry: Registry) -> None:
    async with served(template, own_images=True) as s:
        name = f"{registry.address}/team/box"
        await s.stage.engine.images.pull("builtin:busybox")[1]
        s.stage.engine.images.tag("builtin:busybox", f"{name}:one")
        assert (await s.ask("POST", f"/v1/images/push?name={quote(name)}:one")).status == 200
        await s.ask("DELETE", f"/v1/images?name={quote(name)}:one")
        await s.ask("DELETE", "/v1/images?name=busybox")

        empty = {"X-Registry-Auth": base64.urlsafe_b64encode(b"{}").decode()}
        target = f"/v1.51/images/create?fromImage={quote(name, safe='')}"
        told = lines(await s.ask("POST", f"{target}&tag=one", docker=True, headers=empty))
        layers = [t for t in told if "progressDetail" in t]
        assert told[0] == {"status": "Pulling from team/box", "id": "one"}
        assert layers[0]["status"] == "Pulling fs layer"
        assert layers[-1]["status"] == "Pull complete"
        assert {len(t["id"]) for t in layers} == {12}
        assert told[-2]["status"].startswith("Digest: sha256:")
        assert told[-1] == {"status": f"Status: Downloaded newer image for {name}:one"}
        told = lines(await s.ask("POST", target, docker=True))  # all tags
        assert told[-1] == {"status": f"Status: Image is up to date for {name}:one"}
        assert [t["status"] for t in told if "progressDetail" in t] == ["Already exists"]
        by_digest = told[-2]["status"].removeprefix("Digest: ")
        told = lines(await s.ask("POST", f"{target}&tag={by_digest}", docker=True))
        assert told[0]["id"] == by_digest


async def test_a_pull_that_fails_has_a_status(template: Path, registry: Registry) -> None:
    async with served(template, own_images=True) as s:
        for query, status, message in (
            (f"fromImage={registry.address}/team/none&tag=x", 404, "team/none"),
            (f"fromImage={registry.address}/team/none", 404, "team/none"),
            ("fromImage=Not%20A%20Name&tag=x", 400, "invalid image reference"),
            ("fromImage=localhost:1/x&tag=y", 503, "localhost:1/x"),
            ("tag=x", 400, "fromImage or fromSrc is missing"),
            ("fromSrc=http://example.org/x.tar", 400, "send the archive itself"),
        ):
            assert message in (await ask(s, "POST", f"/images/create?{query}", status=status))["message"]
        bad = {"X-Registry-Auth": "!!!"}
        target = f"/images/create?fromImage={registry.address}/team/none&tag=x"
        assert "X-Registry-Auth" in (await ask(s, "POST", target, status=400, headers=bad))["message"]


async def test_history_tag_remove_and_prune(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        assert (await ask(s, "GET", "/images/tool/history"))[0]["Id"] == ids["new"]
        await ask(s, "POST", "/images/tool/tag?repo=localhost:1/other&tag=two", status=201)
        await ask(s, "POST", "/images/tool/tag?repo=localhost:1/other", status=201)
        one = await ask(s, "GET", "/images/localhost:1/other:two/json")
        assert sorted(one["RepoTags"]) == ["localhost:1/other:latest", "localhost:1/other:two", "tool:latest"]
        assert "is missing" in (await ask(s, "POST", "/images/tool/tag", status=400))["message"]
        assert "bad tag" in (await ask(s, "POST", "/images/tool/tag?repo=x&tag=%20", status=400))["message"]

        assert await ask(s, "DELETE", "/images/localhost:1/other:two") == [{"Untagged": "localhost:1/other:two"}]
        assert "has 2 names" in (await ask(s, "DELETE", f"/images/{ids['new'][7:19]}", status=409))["message"]
        gone = await ask(s, "DELETE", f"/images/{ids['new'][7:19]}?force=1")
        assert {"Untagged": "tool:latest"} in gone and gone[-1] == {"Deleted": ids["new"]}
        await ask(s, "DELETE", "/images/tool", status=404)

        labels = quote(json.dumps({"label!": ["stage"], "dangling": ["true"]}))
        pruned = await ask(s, "POST", f"/images/prune?filters={labels}")
        assert pruned["ImagesDeleted"] == [{"Deleted": ids["bare"]}] and pruned["SpaceReclaimed"] > 0
        assert (await ask(s, "POST", "/images/prune"))["ImagesDeleted"] is None
        every = quote(json.dumps({"dangling": {"false": True}, "label": ["stage=test"]}))
        pruned = await ask(s, "POST", f"/images/prune?filters={every}")
        assert pruned["ImagesDeleted"] == [{"Untagged": "example.org/team/app:1"}, {"Deleted": ids["old"]}]
        assert "no search" in (await ask(s, "GET", "/images/search?term=x", status=501))["message"]
        assert "invalid filter" in (await ask(s, "POST", "/images/prune?filters={%22x%22:[]}", status=400))["message"]


async def test_a_forced_removal_takes_names_of_an_image_in_use(template: Path) -> None:
    async with served(template, own_images=True) as s:
        id_ = await s.stage.create("one")
        image = s.stage.engine.images.find(IMAGE).id
        assert "in use by container one" in (await ask(s, "DELETE", "/images/box", status=409))["message"]
        assert await ask(s, "DELETE", "/images/box?force=1") == [{"Untagged": "box:latest"}]
        assert [(i["Id"], i["RepoTags"]) for i in await ask(s, "GET", "/images/json")] == [(image, [])]
        assert (await ask(s, "POST", "/images/prune"))["ImagesDeleted"] is None
        await s.stage.engine.containers.start(id_)
        await ask(s, "DELETE", f"/images/{image}?force=1", status=409)
        await s.stage.engine.containers.remove(id_, force=True)
        assert (await ask(s, "POST", "/images/prune"))["ImagesDeleted"] == [{"Deleted": image}]


async def test_sizes_that_images_share(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = {
            name: put(s, name, "2020-01-01T00:00:00Z", layer="same") for name in ("docker.io/library/a:1", "b.c/d:1")
        }
        found = {i["Id"]: i["SharedSize"] for i in await ask(s, "GET", "/images/json?shared-size=1")}
        assert {found[id_] for id_ in ids.values()} == {len(b"layer of same")}


async def test_archives(template: Path) -> None:
    async with served(template, own_images=True) as s:
        await s.stage.engine.images.pull("builtin:busybox")[1]
        id_ = s.stage.engine.images.find("busybox").id
        await ask(s, "POST", "/images/busybox/tag?repo=second&tag=x", status=201)
        saved = dechunked(await s.ask("GET", "/v1.51/images/get?names=busybox&names=second:x", docker=True))
        only = dechunked(await s.ask("GET", "/v1.51/images/busybox/get", docker=True))
        for name in ("busybox", "second:x"):
            await ask(s, "DELETE", f"/images/{name}")

        told = lines(await s.ask("POST", "/v1.51/images/load", saved, docker=True))
        assert [t["stream"] for t in told] == ["Loaded image: busybox:latest\n", "Loaded image: second:x\n"]
        told = lines(await s.ask("POST", "/v1.51/images/load?quiet=0", only, docker=True))
        assert told[0]["status"] == "Loaded layer" and len(told[0]["id"]) == 12
        assert s.stage.engine.images.find("busybox").id == id_
        platform = quote(json.dumps({"os": "linux", "architecture": "s390x"}))
        assert "s390x" in (await ask(s, "GET", f"/images/busybox/get?platform={platform}", status=404))["message"]
        assert "invalid platform" in (await ask(s, "GET", "/images/busybox/get?platform=x", status=400))["message"]
        assert "no image is named" in (await ask(s, "GET", "/images/get", status=400))["message"]
        assert "archive" in (await ask(s, "POST", "/images/load", b"nonsense", status=400))["message"]


async def test_import(template: Path) -> None:
    async with served(template, own_images=True) as s:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo("hello")
            info.size = 2
            tar.addfile(info, io.BytesIO(b"hi"))
        query = "fromSrc=-&repo=made&tag=here&message=by%20hand&changes=CMD%20%2Fhello&changes=ENV%20A%3Db"
        told = lines(await s.ask("POST", f"/v1.51/images/create?{query}", archive.getvalue(), docker=True))
        made = await ask(s, "GET", "/images/made:here/json")
        assert told == [{"status": made["Id"]}]
        assert made["Config"] == {"Cmd": ["/bin/sh", "-c", "/hello"], "Env": ["A=b"]}
        assert made["Comment"] == "by hand"
        wrong = await ask(s, "POST", "/images/create?fromSrc=-&changes=RUN%20x", archive.getvalue(), status=400)
        assert "invalid change" in wrong["message"]


async def test_a_push_tells_its_progress(template: Path, registry: Registry) -> None:
    async with served(template, own_images=True) as s:
        await s.stage.engine.images.pull("builtin:busybox")[1]
        name = f"{registry.address}/team/pushed"
        for tagged in ("a", "b"):
            await ask(s, "POST", f"/images/busybox/tag?repo={quote(name)}&tag={tagged}", status=201)
        told = lines(await s.ask("POST", f"/v1.51/images/{quote(name)}/push?tag=a", docker=True))
        assert told[0] == {"status": f"The push refers to repository [{name}]"}
        last = [t["status"] for t in told if t.get("id")][-1]
        assert last == "Pushed" or last.startswith("Mounted from ")  # another test has pushed the same
        aux = told[-1]["aux"]
        assert (aux["Tag"], told[-2]["status"]) == ("a", f"a: digest: {aux['Digest']} size: {aux['Size']}")
        told = lines(await s.ask("POST", f"/v1.51/images/{quote(name)}/push", docker=True))  # all
        assert [t["aux"]["Tag"] for t in told if "aux" in t] == ["a", "b"]
        assert sorted(json.loads(registry.get("team/pushed/tags/list"))["tags"]) == ["a", "b"]

        found = await ask(s, "GET", f"/distribution/{name}:a/json")
        assert (found["Descriptor"]["digest"], found["Descriptor"]["size"]) == (aux["Digest"], aux["Size"])
        assert [(p["os"], p["architecture"]) for p in found["Platforms"]] == [("linux", architectures.host())]
        await ask(s, "GET", f"/distribution/{name}:none/json", status=404)
        nothing = (await ask(s, "POST", "/images/localhost:1/none/push", status=404))["message"]
        assert nothing == "An image does not exist locally with the tag: localhost:1/none"

        await ask(s, "POST", "/images/busybox/tag?repo=localhost:1/nobody", status=201)
        told = lines(await s.ask("POST", "/v1.51/images/localhost:1/nobody/push", docker=True))
        assert told[-1]["errorDetail"]["message"] == told[-1]["error"]
        assert "nothing answers" in told[-1]["error"]


async def test_login(template: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt  # goes with Python 3.13; what makes htpasswd files is not installed everywhere
    (tmp_path / "users").write_text(
        "me:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n"
    )
    users = f"auth: {{htpasswd: {{realm: r, path: {tmp_path / 'users'}}}}}\n"
    with serving(tmp_path, users) as registry:
        async with served(template, own_images=True) as s:
            known = {"username": "me", "password": "secret", "serveraddress": f"http://{registry.address}"}
            assert await ask(s, "POST", "/auth", known) == {"Status": "Login Succeeded", "IdentityToken": ""}
            wrong = await ask(s, "POST", "/auth", known | {"password": "other"}, status=401)
            assert "refused the credentials" in wrong["message"]

            await s.stage.engine.images.pull("builtin:busybox")[1]
            await ask(s, "POST", f"/images/busybox/tag?repo={registry.address}/mine", status=201)
            target = f"/v1.51/images/{registry.address}/mine/push"
            assert "refused the credentials" in lines(await s.ask("POST", target, docker=True))[-1]["error"]
            header = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(known).encode()).decode()}
            assert "aux" in lines(await s.ask("POST", target, docker=True, headers=header))[-1]
            query = f"fromImage={registry.address}/mine&tag=latest"
            told = lines(await s.ask("POST", f"/v1.51/images/create?{query}", docker=True, headers=header))
            assert "up to date" in told[-1]["status"]
            await ask(s, "POST", f"/images/create?{query}", status=401)


async def test_volumes(template: Path) -> None:
    async with served(template) as s:
        assert await ask(s, "GET", "/volumes") == {"Volumes": [], "Warnings": None}
        asked = {"Name": "data", "Driver": "local", "DriverOpts": {"type": "directory"}, "Labels": {"a": "b"}}
        made = await ask(s, "POST", "/volumes/create", asked, status=201)
        assert (made["Name"], made["Driver"], made["Scope"], made["Labels"]) == ("data", "local", "local", {"a": "b"})
        assert made["Options"] == {"type": "directory"}
        assert made["Mountpoint"].endswith("/volumes/data/_data")
        assert made == await ask(s, "POST", "/volumes/create", asked, status=201)
        assert made == await ask(s, "GET", "/volumes/data")
        assert (await ask(s, "GET", "/volumes"))["Volumes"] == [made]
        await ask(s, "DELETE", "/volumes/data", status=204)
        await ask(s, "DELETE", "/volumes/data?force=1", status=204)
        assert "get data: no such volume" in (await ask(s, "DELETE", "/volumes/data", status=404))["message"]
        for wrong, status, message in (
            ({"Driver": "nfs"}, 404, 'error looking up volume plugin nfs: plugin "nfs" not found'),
            ({"DriverOpts": {"o": "bind"}}, 400, 'invalid option: "o" (not o=bind'),
            ({"Name": "../x"}, 400, "includes invalid characters for a local volume name"),
            ({"ClusterVolumeSpec": {}}, 501, "no cluster volumes"),
        ):
            assert message in (await ask(s, "POST", "/volumes/create", wrong, status=status))["message"]


async def test_networks(template: Path) -> None:
    async with served(template) as s:
        found = {n["Name"]: n for n in await ask(s, "GET", "/networks")}
        assert {k: n["Driver"] for k, n in found.items()} == {"bridge": "bridge", "host": "host", "none": "null"}
        assert found["bridge"]["IPAM"]["Config"] == [{"Subnet": "10.0.2.0/24", "Gateway": "10.0.2.2"}]
        assert (await ask(s, "GET", f"/networks/{found['none']['Id'][:12]}"))["Name"] == "none"

        asked = {
            "Name": "lan", "CheckDuplicate": True, "Driver": "bridge", "Attachable": True, "Labels": {"a": "b"},
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.9"}]},
            "Options": {"com.docker.network.driver.mtu": "1400"},
        }  # fmt: skip
        made = await ask(s, "POST", "/networks/create", asked, status=201)
        lan = await ask(s, "GET", "/networks/lan")
        assert lan["Id"] == made["Id"]
        assert lan["IPAM"]["Config"] == [{"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.9"}]
        assert (lan["Labels"], lan["Options"]["com.docker.network.driver.mtu"]) == ({"a": "b"}, "1400")
        assert "already exists" in (await ask(s, "POST", "/networks/create", asked, status=409))["message"]

        id_ = await s.stage.run("web", networks=[NetworkRequest(name="lan")])
        member = (await ask(s, "GET", "/networks/lan"))["Containers"][id_]
        assert (member["Name"], member["IPv4Address"], member["IPv6Address"]) == ("web", "10.99.0.1/24", "")
        assert "in use" in (await ask(s, "DELETE", "/networks/lan", status=409))["message"]
        await s.stage.engine.containers.remove(id_, force=True)
        await ask(s, "DELETE", f"/networks/{made['Id'][:12]}", status=204)
        assert (await ask(s, "GET", "/networks/lan", status=404))["message"] == "network lan not found"


async def test_what_is_not_asked_for_is_null_as_with_docker(template: Path) -> None:
    async with served(template) as s:
        for name in ("lan", "wan"):
            await ask(s, "POST", "/networks/create", {"Name": name}, status=201)
        check = {"Test": ["CMD", "true"], "Retries": 3}
        asked = {
            "Image": "box", "Healthcheck": check, "NetworkingConfig": {"EndpointsConfig": {"wan": {}, "lan": {}}},
            "HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/t"}], "Dns": [], "Binds": []},
        }  # fmt: skip
        await ask(s, "POST", "/containers/create?name=web", asked, status=201)
        found = await ask(s, "GET", "/containers/web/json")
        assert set(found["NetworkSettings"]["Networks"]) == {"lan", "wan"}, "the default one is for who names none"
        host = found["HostConfig"]
        told = {k: host[k] for k in ("Dns", "DnsSearch", "Binds", "PortBindings", "Devices", "Ulimits")}
        assert told == {"Dns": [], "DnsSearch": None, "Binds": [], "PortBindings": None, "Devices": None,
                        "Ulimits": None}  # fmt: skip
        assert "Tmpfs" not in host, "it was asked for as a mount"
        assert "/proc/kcore" in host["MaskedPaths"] and "/proc/sys" in host["ReadonlyPaths"]
        assert found["Config"]["Healthcheck"] == check and found["LogPath"] == ""

        bodies = {"box": {"HostConfig": {"Privileged": True}}, "two": {"HostConfig": {"Tmpfs": {"/t": ""}}}}
        for name, body in bodies.items():
            await ask(s, "POST", f"/containers/create?name={name}", {"Image": "box", **body}, status=201)
        assert (await ask(s, "GET", "/containers/box/json"))["HostConfig"]["MaskedPaths"] is None
        two = await ask(s, "GET", "/containers/two/json")
        assert (two["HostConfig"]["Tmpfs"], two["Mounts"]) == ({"/t": ""}, [])
        assert await ask(s, "GET", "/containers/two/changes") is None


async def test_the_daemons_own_network_has_an_id_and_options(template: Path) -> None:
    async with served(template, network="bridge") as s:
        found = await ask(s, "GET", "/networks/bridge")
        assert len(found["Id"]) == 64 and found["Id"] != "0" * 64
        assert found["Options"]["com.docker.network.bridge.default_bridge"] == "true"
        assert (await ask(s, "GET", f"/networks/{found['Id'][:12]}"))["Name"] == "bridge"
        for name in ("none", "host"):
            assert (await ask(s, "GET", f"/networks/{name}"))["IPAM"]["Config"] is None
        id_ = await s.stage.run("web")
        seen = (await ask(s, "GET", "/containers/web/json"))["NetworkSettings"]["Networks"]["bridge"]
        assert (seen["NetworkID"], seen["DNSNames"]) == (found["Id"], None)
        assert list((await ask(s, "GET", "/networks/bridge"))["Containers"]) == [id_]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
        ({"Name": ""}, 400, "no name"),
        ({"Name": "x", "Driver": "overlay"}, 501, "network driver 'overlay'"),
        ({"Name": "x", "Driver": "macvlan"}, 501, "network driver 'macvlan'"),
        ({"Name": "x", "Scope": "swarm"}, 501, "swarm"),
        ({"Name": "x", "ConfigOnly": True}, 501, "configurations"),
        ({"Name": "x", "EnableIPv4": False}, 501, "without IPv4"),
        ({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}, 400, "needs its subnet"),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}, 400, "nonsense"),
        ({"Name": "x", "Options": {"com.docker.network.bridge.name": "br0"}}, 501, "network option"),
        ({"Name": "x", "Options": {"com.docker.network.driver.mtu": "big"}}, 400, "not a whole number"),
        ({"Name": 3}, 400, "invalid JSON"),
    ],
)
async def test_networks_that_cannot_be(template: Path, body: Any, status: int, message: str) -> None:
    async with served(template) as s:
        assert message in (await ask(s, "POST", "/networks/create", body, status=status))["message"]


async def test_predefined_networks_stay(template: Path) -> None:
    async with served(template) as s:
        for name in ("bridge", "host", "none"):
            answer = await ask(s, "DELETE", f"/networks/{name}", status=403)
            assert answer["message"] == f"{name} is a pre-defined network and cannot be removed"


async def test_info(template: Path) -> None:
    async with served(template) as s:
        await s.stage.run("one")
        await s.stage.create("two")
        found = await ask(s, "GET", "/info")
        assert (found["Containers"], found["ContainersRunning"], found["ContainersStopped"]) == (2, 1, 1)
        assert (found["Images"], found["OSType"], found["Swarm"]["LocalNodeState"]) == (1, "linux", "inactive")
        assert found["IndexServerAddress"] == "https://index.docker.io/v1/"
        assert found["DockerRootDir"] == str(s.stage.paths.root)
        assert found["Plugins"]["Volume"] == ["local"]
        assert IMAGE.endswith("box:latest")


async def test_filters_and_prune_of_volumes(template: Path) -> None:
    async with served(template) as s:
        for name, labels in (("one", {"keep": ""}), ("two", {}), ("", {})):
            made = {"Name": name, "Labels": labels, "DriverOpts": {"type": "directory"}}
            bare = (await ask(s, "POST", "/volumes/create", made, status=201))["Name"]
        await s.stage.create("user", mounts=[Mount(source="two", target="/data")])

        async def names(**filters: list[str]) -> set[str]:
            found = await ask(s, "GET", f"/volumes?filters={quote(json.dumps(filters))}")
            return {v["Name"] for v in found["Volumes"]}

        assert await names(name=["w"], driver=["local"]) == {"two"}
        assert await names(dangling=["true"]) == {"one", bare}
        assert await names(dangling=["0"]) == {"two"}
        assert await names(label=["keep"]) == {"one"}
        assert await names(driver=["nfs"]) == set()
        assert "invalid filter" in (await ask(s, "GET", "/volumes?filters={%22x%22:[]}", status=400))["message"]
        pruned = await ask(s, "POST", "/volumes/prune")
        assert pruned["VolumesDeleted"] == [bare]
        filters = quote(json.dumps({"all": ["1"], "label!": ["keep"]}))
        assert (await ask(s, "POST", f"/volumes/prune?filters={filters}"))["VolumesDeleted"] == []
        assert (await s.ask("POST", "/v1.41/volumes/prune", docker=True)).json["VolumesDeleted"] == ["one"]
        assert "in use" in (await ask(s, "DELETE", "/volumes/two", status=409))["message"]
        assert "no cluster volumes" in (await ask(s, "PUT", "/volumes/two", {}, status=501))["message"]


async def test_filters_and_prune_of_networks(template: Path) -> None:
    async with served(template) as s:
        for name, labels in (("front", {"keep": "1"}), ("back", {}), ("busy", {})):
            await ask(s, "POST", "/networks/create", {"Name": name, "Labels": labels}, status=201)
        await s.stage.create("user", networks=[NetworkRequest(name="busy")])

        async def names(**filters: list[str]) -> set[str]:
            found = await ask(s, "GET", f"/networks?filters={quote(json.dumps(filters))}")
            return {n["Name"] for n in found}

        assert await names(type=["builtin"]) == {"bridge", "host", "none"}
        assert await names(type=["custom"], name=["^b"]) == {"back", "busy"}
        assert await names(driver=["null"]) == {"none"}
        assert await names(scope=["swarm"]) == set()
        assert await names(label=["keep=1"]) == {"front"}
        assert await names(dangling=["true"]) == {"front", "back"}
        id_ = (await ask(s, "GET", "/networks/back"))["Id"]
        assert await names(id=[id_[:12]]) == {"back"}
        filters = quote(json.dumps({"label!": ["keep"]}))
        assert await ask(s, "POST", f"/networks/prune?filters={filters}") == {"NetworksDeleted": ["back"]}
        assert await ask(s, "POST", f"/networks/prune?filters={filters}") == {"NetworksDeleted": None}


async def test_a_container_joins_and_leaves_networks(template: Path) -> None:
    async with served(template) as s:
        for name, subnet in (("first", "10.98.0.0/24"), ("second", "10.99.0.0/24")):
            asked = {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}}
            await ask(s, "POST", "/networks/create", asked, status=201)
        id_ = await s.stage.create("web", networks=[NetworkRequest(name="first")])
        endpoint = {"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.99.0.7"}, "Links": None, "DriverOpts": {}}
        await ask(s, "POST", "/networks/second/connect", {"Container": "web", "EndpointConfig": endpoint})
        assert (await ask(s, "GET", "/networks/second"))["Containers"] == {}, "it does not run"
        await s.stage.engine.containers.start(id_)
        member = (await ask(s, "GET", "/networks/second"))["Containers"][id_]
        assert (member["Name"], member["IPv4Address"]) == ("web", "10.99.0.7/24")
        assert s.stage.engine.registry.pod(id_).attachments[1].aliases == ["www"]
        again = await ask(s, "POST", "/networks/second/connect", {"Container": "web"}, status=403)
        assert again["message"] == "endpoint with name web already exists in network second"
        await s.stage.engine.containers.kill(id_, "KILL")
        await s.stage.engine.containers.wait(id_)
        await ask(s, "POST", "/networks/second/disconnect", {"Container": id_[:12], "Force": True})
        assert (await ask(s, "GET", "/networks/second"))["Containers"] == {}
        for verb, network, body, status, message in (
            ("disconnect", "second", {"Container": "web"}, 403, "is not connected to network second"),
            ("connect", "host", {"Container": "web"}, 501, "network host"),
            ("connect", "nowhere", {"Container": "web"}, 404, "network nowhere not found"),
            ("connect", "second", {"Container": "nobody"}, 404, "no such container"),
            ("connect", "second", {"Container": 3}, 400, "invalid JSON"),
            ("connect", "second", {"EndpointConfig": {}}, 400, "ontainer"),
        ):
            answer = await ask(s, "POST", f"/networks/{network}/{verb}", body, status=status)
            assert message in answer["message"].replace("No such", "no such")


async def test_disk_usage(template: Path) -> None:
    async with served(template) as s:
        id_ = await s.stage.create("one")
        await ask(s, "POST", "/volumes/create", {"Name": "v", "DriverOpts": {"type": "directory"}}, status=201)
        found = await ask(s, "GET", "/system/df")
        assert [(i["RepoTags"], i["Containers"]) for i in found["Images"]] == [(["box:latest"], 1)]
        assert found["LayersSize"] == found["Images"][0]["Size"] > 0
        assert [c["Id"] for c in found["Containers"]] == [id_]
        assert found["Containers"][0]["SizeRootFs"] >= found["Containers"][0]["SizeRw"] > 0
        assert found["Volumes"][0]["UsageData"]["RefCount"] == 0
        assert found["BuildCache"] == []
        only = await ask(s, "GET", "/system/df?type=volume")
        assert (only["Images"], only["Containers"], len(only["Volumes"])) == (None, None, 1)
        assert await ask(s, "POST", "/build/prune") == {"CachesDeleted": None, "SpaceReclaimed": 0}
        assert "unknown object type" in (await ask(s, "GET", "/system/df?type=x", status=400))["message"]
