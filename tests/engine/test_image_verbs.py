# SPDX-License-Identifier: Apache-2.0
"""Images, disk usage and prunes over REST, and what the command line makes of them."""

from __future__ import annotations

import json
import subprocess
import tarfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hypercontainer.images.layout import Layout
from hypercontainer.images.manifests import CONFIG, LAYER, MANIFEST, Descriptor
from hypercontainer.model.specs import ContainerSpec
from tests.registry import serving

from . import hyperctl
from .served import Served, served
from .stage import IMAGE


def put(s: Served, name: str, created: str, labels: dict[str, str] | None = None, **more: Any) -> str:
    """An image that is there; its id."""
    layout = Layout(s.stage.paths.images)
    layer = layout.blobs.add(f"layer of {more.get('layer', name)}".encode())
    more.pop("layer", None)
    document = {"architecture": "amd64", "os": "linux", "created": created, "config": {"Labels": labels or {}},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]}, "name": name, **more}  # fmt: skip
    config = layout.blobs.add(json.dumps(document).encode())
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": f"{LAYER}+gzip", "digest": layer.digest, "size": layer.size}],
    }  # fmt: skip
    stored = layout.blobs.add(json.dumps(manifest).encode())
    entry = Descriptor(media_type=MANIFEST, digest=stored.digest, size=stored.size)
    layout.set_name(name or entry.digest, entry, config.digest)
    return config.digest


def stock(s: Served) -> dict[str, str]:
    return {
        "old": put(s, "example.org/team/app:1", "2020-01-01T00:00:00Z", {"stage": "test", "x": "1"}),
        "mid": put(s, "example.org/team/app:2", "2021-01-01T00:00:00Z", {"stage": "live"}),
        "new": put(s, "docker.io/library/tool:latest", "2022-01-01T00:00:00Z"),
        "bare": put(s, "", "2021-06-01T00:00:00Z"),
    }


async def ctl(s: Served, *args: str, status: int = 0) -> str:
    """hyperctl's stdout; with another status its stderr."""
    found, out, err = await hyperctl.call("-H", str(s.path), *args)
    assert found == status, (args, out, err)
    return (err if status else out).decode()


async def listed(s: Served, **filters: list[str]) -> list[str]:
    got = await s.ask("GET", f"/v1/images?filters={quote(json.dumps(filters))}")
    assert got.status == 200, got.body
    return [i["id"] for i in got.json]


async def test_filters_of_images(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        box = (await s.ask("GET", f"/v1/images/inspect?name={IMAGE}")).json["id"]
        mine = set(ids.values())

        async def found(**filters: list[str]) -> set[str]:
            return {name for name, id_ in ids.items() if id_ in await listed(s, **filters)}

        assert set(await listed(s)) == mine | {box}
        assert await found(dangling=["true"]) == {"bare"}
        assert await found(dangling=["false"]) == {"old", "mid", "new"}
        assert await found(reference=["example.org/team/app"]) == {"old", "mid"}
        assert await found(reference=["example.org/*/app:2", "to?l"]) == {"mid", "new"}
        assert await found(reference=["example.org/*"]) == set(), "a star stops at a slash"
        assert await found(reference=["docker.io/library/[s-u]ool:*"]) == {"new"}
        assert await found(before=["example.org/team/app:2"]) == {"old"}
        assert await found(since=["example.org/team/app:2"], until=["2021-12-31T00:00:00Z"]) == {"bare"}
        assert await found(label=["stage"]) == {"old", "mid"}
        assert await found(label=["stage=test", "x=1"]) == {"old"}
        assert await found(label=["stage", "!x"]) == {"mid"}
        for wrong, why in (
            ({"colour": ["red"]}, "invalid filter 'colour'"),
            ({"dangling": ["perhaps"]}, "invalid filter 'dangling=perhaps'"),
            ({"before": ["none"]}, "no such image: none"),
            ({"until": ["soon"]}, "invalid time 'soon'"),
            ({"label": "x"}, "are not understood"),
        ):
            got = await s.ask("GET", f"/v1/images?filters={quote(json.dumps(wrong))}")
            assert got.status in (400, 404) and why in got.json["message"], got.body


async def test_history_and_inspect(template: Path) -> None:
    steps = [
        {"created": "2020-01-01T00:00:00Z", "created_by": "ADD   file in /", "comment": "first"},
        {"created": "2020-01-02T00:00:00Z", "created_by": "CMD " + "x" * 60, "empty_layer": True},
    ]
    async with served(template, own_images=True) as s:
        name = "example.org/app:1"
        id_ = put(s, name, "2020-01-02T00:00:00Z", history=steps, author="me", variant="v2")
        put(s, "docker.io/library/same:1", "2020-01-02T00:00:00Z")
        got = (await s.ask("GET", f"/v1/images/inspect?name={name}")).json
        assert got["repoTags"] == [name] and got["repoDigests"] == [f"example.org/app@{got['digest']}"]
        assert got["rootFS"] == {"type": "layers", "layers": ["sha256:" + "1" * 64]} and got["author"] == "me"
        assert got["platforms"] == ["linux/amd64/v2"] and got["graphDriver"]["name"] == "erofs"
        lines = (await ctl(s, "history", name)).splitlines()
        assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
        assert lines[1].startswith(id_[7:19]) and "CMD " + "x" * 40 + "…" in lines[1] and " 0B" in lines[1]
        assert lines[2].startswith("<missing>") and "ADD file in /" in lines[2] and lines[2].endswith("first")
        assert await ctl(s, "history", "-q", "--no-trunc", name) == f"{id_}\n<missing>\n"
        plain = await ctl(s, "image", "history", "--human=false", "--format", "{{.CreatedSince}} {{.Size}}", name)
        assert plain.splitlines() == ["2020-01-02T00:00:00Z 0", "2020-01-01T00:00:00Z 26"]
        heads = await ctl(s, "history", "--format", "table {{.ID}}\\t{{.CreatedBy}}", "--no-trunc", name)
        assert heads.splitlines()[0].split() == ["IMAGE", "CREATED", "BY"]
        assert json.loads(await ctl(s, "image", "inspect", name))[0]["id"] == id_
        assert (
            await ctl(s, "image", "inspect", "-f", "{{index .RepoTags 0}} {{.RootFS.Type}}", name) == f"{name} layers\n"
        )
        assert "no such image: nope" in await ctl(s, "history", "nope", status=1)
        without = await ctl(s, "history", "--format", "{{.ID}}|{{.CreatedBy}}", "same:1")
        assert without.endswith("|\n") and len(without.splitlines()) == 1


async def test_the_list_of_images(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        lines = (await ctl(s, "images", "--filter", "reference=example.org/team/app")).splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [
            ["example.org/team/app", "2", ids["mid"][7:19]], ["example.org/team/app", "1", ids["old"][7:19]],
        ]  # fmt: skip
        assert (await ctl(s, "image", "ls", "-q", "tool")).split() == [ids["new"][7:19]]
        assert (await ctl(s, "images", "-q", "--no-trunc", "example.org/team/app:1")).split() == [ids["old"]]
        assert (await ctl(s, "images", "-aq", "-f", "dangling=true")).split() == [ids["bare"][7:19]]
        table = await ctl(s, "images", "--format", "table {{.ID}}\t{{.Repository}}\t{{.CreatedSince}}", "tool")
        assert table.splitlines()[0].split() == ["IMAGE", "ID", "REPOSITORY", "CREATED"]
        digests = await ctl(s, "images", "--digests", "--format", "{{.Repository}}@{{.Digest}}", "tool")
        assert digests.startswith("tool@sha256:")
        assert "invalid filter 'such=1'" in await ctl(s, "images", "-f", "such=1", status=1)


async def test_tag_and_rmi(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        await ctl(s, "image", "tag", "tool", "example.org/further:1")
        assert "has 2 names" in await ctl(s, "rmi", ids["new"][7:19], status=1)
        assert await ctl(s, "rmi", "tool") == "Untagged: tool:latest\n"
        assert await ctl(s, "image", "rm", "--no-prune", "example.org/further:1") == (
            f"Untagged: example.org/further:1\nDeleted: {ids['new']}\n"
        )


async def test_prunes_take_what_their_filters_let_through(template: Path) -> None:
    async with served(template, own_images=True) as s:
        ids = stock(s)
        engine = s.stage.engine
        await engine.containers.create(ContainerSpec(image=IMAGE, name="kept", command=["x"], labels={"keep": "1"}))
        await engine.containers.create(ContainerSpec(image=IMAGE, name="gone", command=["x"]))
        await engine.containers.create(
            ContainerSpec(image=IMAGE, name="runs", command=["sleep", "100000"], stop_timeout=0)
        )
        await engine.containers.start("runs")
        assert "no terminal to ask on" in await ctl(s, "container", "prune", status=1)
        assert "no terminal to ask on" in await ctl(s, "system", "prune", status=1)
        out = await ctl(s, "container", "prune", "-f", "--filter", "label!=keep")
        assert out.startswith("Deleted Containers:\n") and "Total reclaimed space: " in out
        assert {c.name for c in engine.registry.containers()} == {"kept", "runs"}
        await ctl(s, "container", "prune", "-f", "--filter", "until=1h")
        assert len(engine.registry.containers()) == 2, "it is not an hour old"

        out = await ctl(s, "image", "prune", "-af", "--filter", "label=stage=test", "--filter", "until=24h")
        assert f"Untagged: example.org/team/app:1\nDeleted: {ids['old']}\n" in out
        out = await ctl(s, "image-prune", "-f")
        assert f"Deleted: {ids['bare']}\n" in out
        out = await ctl(s, "system", "prune", "-af")
        assert "Deleted Containers:\n" in out and "untagged: tool:latest\n" in out
        assert [i.names for i in engine.images.describe_all()] == [[IMAGE]]
        assert {c.name for c in engine.registry.containers()} == {"runs"}


async def test_system_df(template: Path) -> None:
    async with served(template, own_images=True) as s:
        before = (await s.ask("GET", "/v1/system/df")).json
        put(s, "example.org/a:1", "2020-01-01T00:00:00Z", layer="one")
        put(s, "example.org/b:1", "2020-01-01T00:00:00Z", layer="one")
        await s.stage.engine.containers.create(ContainerSpec(image=IMAGE, name="box", command=["x"]))
        got = (await s.ask("GET", "/v1/system/df")).json
        shared = {i["image"]["names"][0]: i for i in got["images"] if i["image"]["names"][0].startswith("example")}
        assert [i["sharedSize"] for i in shared.values()] == [len("layer of one")] * 2
        added = sum(i["size"] for i in shared.values()) - len("layer of one")
        assert got["layersSize"] == before["layersSize"] + added and got["imagesReclaimable"] == added
        assert [(c["name"], c["running"]) for c in got["containers"]] == [("box", False)]
        lines = (await ctl(s, "system", "df")).splitlines()
        assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
        assert [line.split()[:3] for line in lines[1:3]] == [["Images", "3", "1"], ["Containers", "1", "0"]]
        assert lines[3].startswith("Local Volumes   0")
        assert await ctl(s, "system", "df", "--format", "{{.Type}} {{.TotalCount}}") == (
            "Images 3\nContainers 1\nLocal Volumes 0\nBuild Cache 0\n"
        )
        verbose = await ctl(s, "system", "df", "-v")
        for words in (
            "Images space usage:",
            "SHARED SIZE",
            "example.org/a",
            "Containers space usage:",
            "VOLUME NAME",
            "Build cache",
        ):
            assert words in verbose
        assert json.loads(await ctl(s, "system", "df", "--format", "json"))[0]["type"] == "Images"


@pytest.mark.parametrize("group", ["container", "image", "system"])
async def test_groups_say_what_they_have(template: Path, group: str) -> None:
    async with served(template) as s:
        assert "prune" in await ctl(s, group, "--help")
        assert "unknown command 'such'" in await ctl(s, group, "such", status=2)


async def test_the_group_of_containers_is_their_verbs(template: Path) -> None:
    async with served(template) as s:
        made = await ctl(s, "container", "create", "--name", "box", IMAGE, "x")
        assert (await ctl(s, "container", "ls", "-aq", "--no-trunc")).strip() == made.strip()
        assert await ctl(s, "container", "inspect", "-f", "{{.Name}}", "box") == "box\n"
        assert "no such image" in await ctl(s, "container", "run", "--pull", "never", "none:1", status=125)
        assert await ctl(s, "container", "rm", "box") == "box\n"


async def test_save_load_and_import(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        id_ = await imported(s, tmp_path)
        path = tmp_path / "saved.tar"
        await ctl(s, "save", "-o", str(path), "made:1")
        assert list(tmp_path.glob("*.part")) == []
        assert "Deleted: " in await ctl(s, "rmi", "made:1")
        assert await ctl(s, "load", "-q", "-i", str(path)) == "Loaded image: made:1\n"
        assert (await ctl(s, "images", "-q", "--no-trunc", "made")).strip() == id_
        assert (await ctl(s, "image", "load", "-q", "-i", str(path))) == "Loaded image: made:1\n"
        assert "no such image: none" in await ctl(s, "save", "-o", str(path), "none", status=1)
        assert path.exists(), "what was there before stays"
        assert "cannot read /nonexistent" in await ctl(s, "load", "-i", "/nonexistent", status=1)
        assert "the archive is empty" in await ctl(s, "load", status=1)
        (tmp_path / "garbage").write_bytes(b"x" * 2000)
        assert "is not an archive of images" in await ctl(s, "load", "-i", str(tmp_path / "garbage"), status=1)
        assert "is not fetched" in await ctl(s, "import", "http://localhost/x.tar", status=1)
        told = await ctl(s, "events", "--since", "0", "--until", "0s", "--format", "{{.Action}}")
        assert {"import", "load"} <= set(told.split())


async def test_a_name_without_a_tag_saves_all_of_them(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        await imported(s, tmp_path)
        await ctl(s, "tag", "made:1", "made:2")
        await ctl(s, "tag", "made:1", "made-other:1")
        path = tmp_path / "all.tar"
        await ctl(s, "save", "-o", str(path), "made")
        with tarfile.open(path) as tar:
            (found,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert found["RepoTags"] == ["made:1", "made:2"]
        await ctl(s, "save", "--platform", "linux/amd64", "-o", str(path), "made:1")
        assert "not for linux/arm64" in await ctl(
            s, "save", "--platform", "linux/arm64", "-o", str(path), "made:1", status=1
        )
        assert "what registries speak has no search" in await ctl(s, "search", "--limit", "3", "web", status=1)


async def imported(s: Served, directory: Path) -> str:
    tar = directory / "files.tar"
    subprocess.run(["tar", "-C", str(Path(__file__).parent), "-cf", str(tar), "__init__.py"], check=True)
    id_ = (await ctl(s, "import", "-c", 'CMD ["x"]', "-m", "by hand", str(tar), "made:1")).strip()
    assert (await ctl(s, "inspect", "-f", "{{json .Config.Cmd}} {{.Comment}}", "made:1")) == '["x"] by hand\n'
    return id_


async def test_push_and_pull_of_all_tags(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With credentials, which login keeps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import crypt
    salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)  # each request costs the registry as many
    (tmp_path / "htpasswd").write_text("user:" + crypt.crypt("secret", salt) + "\n")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    users = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    with serving(tmp_path, users) as registry:
        async with served(template, own_images=True) as s:
            repository = f"{registry.address}/team/app"
            await imported(s, tmp_path)
            for tag in ("1", "2"):
                await ctl(s, "tag", "made:1", f"{repository}:{tag}")
            assert "refused the credentials: log in with `hyperctl login" in await ctl(
                s, "push", f"{repository}:1", status=1
            )
            await ctl(s, "login", "-u", "user", "-p", "secret", registry.address)
            assert await ctl(s, "push", "-q", f"{repository}:1") == f"{repository}:1\n"
            pushed = await ctl(s, "image", "push", "--all-tags", repository)
            assert sorted(pushed.split()) == [f"{repository}:1", f"{repository}:2"]
            assert "without a tag" in await ctl(s, "push", "-a", f"{repository}:1", status=1)
            assert "no such image" in await ctl(s, "push", "-a", f"{registry.address}/none", status=1)
            await ctl(s, "rmi", f"{repository}:1", f"{repository}:2")
            pulled = await ctl(s, "pull", "-a", repository)
            assert sorted(pulled.split()) == [f"{repository}:1", f"{repository}:2"]
            assert (await ctl(s, "images", "-q", repository)).split() == (await ctl(s, "images", "-q", "made")).split()
            assert "without a tag" in await ctl(s, "pull", "-a", f"{repository}:1", status=1)
            assert "no such image or tag" in await ctl(s, "pull", "-a", f"{registry.address}/none", status=1)
