# SPDX-License-Identifier: Apache-2.0
"""commit: over REST and by the command line, with machines that are objects; and the configuration of what is made."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.container_config import container_config, merged
from hypercontainer.errors import GuestError, HyperError, InvalidArgument, Unsupported
from hypercontainer.images.layout import Layout
from hypercontainer.model.images import CommitRequest
from hypercontainer.model.specs import ContainerSpec, HealthCheck, Mount, PortMapping
from hypercontainer.model.status import Container, Process
from hypercontainer.protocol.constants import Builtin, Capability, Type
from hypercontainer.sdk import AsyncSandbox

from .served import Served, served
from .test_image_verbs import ctl


async def start(s: Served, directory: Path, *flags: str) -> Any:
    """A container of an image with one layer; the guest's idea of it."""
    (directory / "base").write_text("below")
    subprocess.run(["tar", "-C", str(directory), "-cf", str(directory / "base.tar"), "base"], check=True)
    changes = ["-c", 'CMD ["sleep", "100000"]', "-c", "ENV A=1 B=2", "-c", "EXPOSE 80", "-c", "LABEL of=base"]
    await ctl(s, "import", *changes, str(directory / "base.tar"), "base:1")
    await ctl(s, "run", "-d", "--name", "a", *flags, "base:1", "sleep", "100000")
    guest = s.stage.guest(s.stage.machine("a"))
    found = guest.containers[s.stage.engine.registry.container("a").id[:12]]
    found.files["/srv/new"] = b"content"
    return found


def stored(s: Served, name: str) -> dict[str, Any]:
    """The raw configuration of an image."""
    image = s.stage.engine.images.find(name)
    document: dict[str, Any] = json.loads(Layout(s.stage.paths.images).blobs.read(image.id))
    return document


async def test_an_image_of_a_container(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        await start(s, tmp_path, "-e", "A=9", "-e", "C=3", "-l", "mine=1", "-w", "/srv", "-u", "7:8")
        guest = s.stage.guest(s.stage.machine("a"))
        change = ["-c", "ENV D=4", "--change", 'ENTRYPOINT ["/init"]']
        made = (await ctl(s, "commit", "-a", "me", "-m", "words", *change, "a", "example.org/x:2")).strip()
        assert guest.asked.count(Type.CONTAINER_FREEZE) == 2 and s.stage.status("a") == "running"
        document, base = stored(s, "example.org/x:2"), stored(s, "base:1")
        config = document["config"]
        assert config["Env"] == ["A=9", "C=3", "B=2", "D=4"] and config["Labels"] == {"of": "base", "mine": "1"}
        assert (config["User"], config["WorkingDir"], config["Entrypoint"]) == ("7:8", "/srv", ["/init"])
        assert config["Cmd"] == ["sleep", "100000"] and config["ExposedPorts"] == {"80/tcp": {}}
        assert document["author"] == "me" and document["history"][:1] == base["history"]
        last = document["history"][1]
        assert (last["author"], last["comment"], last["created_by"]) == ("me", "words", "sleep 100000")
        assert document["rootfs"]["diff_ids"][:1] == base["rootfs"]["diff_ids"]
        layout = Layout(s.stage.paths.images)
        with tarfile.open(fileobj=io.BytesIO(layout.blobs.read(document["rootfs"]["diff_ids"][1]))) as layer:
            assert layer.getnames() == ["srv/new"]
        assert made == (await ctl(s, "images", "-q", "--no-trunc", "example.org/x")).strip()
        told = await ctl(s, "events", "--since", "0", "--until", "0s", "--format", "{{.Action}} {{json .Attributes}}")
        (line,) = [x for x in told.splitlines() if x.startswith("commit ")]
        assert json.loads(line.partition(" ")[2])["imageRef"] == "example.org/x:2"
        await ctl(s, "run", "-d", "--name", "b", "--entrypoint", "sleep", "example.org/x:2", "100000")


async def test_an_image_of_a_sandbox_is_none_itself(template: Path, tmp_path: Path) -> None:
    """Nor is who runs an image that says so."""
    async with served(template, own_images=True) as s:
        await start(
            s, tmp_path, "-l", "mine=1", "-l", "io.hypercontainer.sandbox=sdk", "-l", "io.hypercontainer.e2b={}",
            "-l", "hypercontainer.deployment=1", "-l", "hypercontainer.cron.run=2",
        )  # fmt: skip
        await ctl(s, "commit", "a", "x")
        assert stored(s, "x")["config"]["Labels"] == {"of": "base", "mine": "1"}
        await ctl(s, "commit", "-c", "LABEL io.hypercontainer.sandbox=sdk", "a", "y")
        await ctl(s, "run", "-d", "--name", "b", "y", "sleep", "100000")
        assert [line.split()[1] for line in (await ctl(s, "sandbox", "ls")).splitlines()[1:]] == ["a"]
        assert [sandbox.name for sandbox in await AsyncSandbox.list(host=str(s.path))] == ["a"]


async def test_the_name_goes_to_the_last_one(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        inside = await start(s, tmp_path)
        await ctl(s, "container", "commit", "a", "mine")
        first = s.stage.engine.images.find("mine").id
        inside.files["/srv/more"] = b"x"
        got = await s.ask("POST", "/v1/containers/a/commit", {"reference": "mine", "pause": False})
        assert got.status == 201 and got.json["names"] == ["mine:latest"], got.body
        assert got.json["replaced"] == {"docker.io/library/mine:latest": first}
        nameless = (await ctl(s, "commit", "a")).strip()
        assert s.stage.engine.images.find(nameless).id == nameless


async def test_it_need_not_stand_still(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        await start(s, tmp_path)
        guest = s.stage.guest(s.stage.machine("a"))
        await ctl(s, "commit", "--pause=false", "a", "x")
        assert Type.CONTAINER_FREEZE not in guest.asked
        await ctl(s, "pause", "a")
        await ctl(s, "commit", "a", "y")
        assert s.stage.status("a") == "paused", "who was paused stays so"
        await ctl(s, "rm", "-f", "a")


async def test_one_that_does_not_run(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        await start(s, tmp_path)
        await ctl(s, "stop", "-t", "0", "a")
        await ctl(s, "commit", "a", "x")
        assert s.stage.status("a") == "exited" and not s.stage.host.machines
        document = stored(s, "x")
        assert document["history"][-1]["empty_layer"] is True, "a fake guest that is new has no files"
        assert document["rootfs"] == stored(s, "base:1")["rootfs"]


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (CommitRequest(reference="UPPER"), InvalidArgument, "UPPER"),
        (CommitRequest(reference="x@sha256:" + "1" * 64), InvalidArgument, "a tag has no digest"),
        (CommitRequest(changes=["FROM x"]), InvalidArgument, "invalid change 'FROM x'"),
        (CommitRequest(reference="x"), GuestError, "copying / failed: usr/.wh.x: no"),
    ],
)
async def test_what_fails_leaves_nothing(
    template: Path, tmp_path: Path, request_: CommitRequest, error: type[HyperError], says: str
) -> None:
    async with served(template, own_images=True) as s:
        await start(s, tmp_path)
        s.stage.failing[Builtin.LAYER] = (1, "usr/.wh.x: no\n")
        blobs = {p.name for p in (s.stage.paths.images / "blobs/sha256").iterdir()}
        with pytest.raises(error, match=says):
            await s.stage.engine.commits.commit("a", request_)
        assert {p.name for p in (s.stage.paths.images / "blobs/sha256").iterdir()} == blobs
        assert not list((s.stage.paths.images / "staging").iterdir()) and s.stage.status("a") == "running"


async def test_a_prune_meanwhile_takes_nothing_of_it(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        await start(s, tmp_path)
        engine = s.stage.engine
        began, go = asyncio.Event(), asyncio.Event()
        plain = engine.archives.layer

        async def slow(key: str) -> AsyncIterator[bytes]:
            async for piece in plain(key):
                yield piece
                began.set()
                await go.wait()

        engine.archives.layer = slow  # type: ignore[method-assign, assignment]
        making = asyncio.create_task(engine.commits.commit("a", CommitRequest(reference="x")))
        await asyncio.wait_for(began.wait(), 10)
        await engine.images.prune(everything=True)
        assert s.stage.status("a") == "paused"
        go.set()
        made = await asyncio.wait_for(making, 30)
        assert engine.images.find("x").id == made.image.id and s.stage.status("a") == "running"
        assert all((s.stage.paths.images / "blobs/sha256" / d[7:]).exists() for d in made.image.manifest.blobs())


async def test_a_guest_that_is_older(template: Path, tmp_path: Path) -> None:
    async with served(template, own_images=True) as s:
        made = s.stage._guest

        def older(config: Any) -> Any:
            found = made(config)
            found.capabilities = Capability.FREEZE
            return found

        s.stage.host._guest = older
        await start(s, tmp_path)
        with pytest.raises(Unsupported, match="does not support making a layer of a container"):
            await s.stage.engine.commits.commit("a", CommitRequest(reference="x"))
        assert s.stage.status("a") == "running"


# -- Docker's rules of configurations ---------------------------------------------------------

_IMAGE = {
    "Env": ["PATH=/bin", "X=image"], "Cmd": ["from", "image"], "Entrypoint": ["/entry"], "User": "web",
    "WorkingDir": "/work", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "Labels": {"a": "1"},
    "StopSignal": "SIGINT", "Healthcheck": {"Test": ["CMD", "ok"], "Interval": 5}, "OnBuild": ["RUN x"],
}  # fmt: skip


_S = 10**9  # nanoseconds
_CHECKED = {
    "Test": ["CMD-SHELL", "x"], "Interval": 2 * _S, "Timeout": 30 * _S, "StartInterval": 5 * _S, "Retries": 3
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        ({}, {}),
        ({"command": ["c"]}, {"Cmd": ["c"]}),
        ({"entrypoint": ["e"]}, {"Entrypoint": ["e"], "Cmd": None}),
        ({"entrypoint": [""], "command": ["c"]}, {"Entrypoint": None, "Cmd": ["c"]}),
        ({"env": ["X=mine", "Y=1"]}, {"Env": ["X=mine", "Y=1", "PATH=/bin"]}),
        ({"env": ["IP="], "env_fields": {"IP": "podIP"}}, {}),
        ({"labels": {"a": "2", "b": "3"}}, {"Labels": {"a": "2", "b": "3"}}),
        ({"user": "0", "workdir": "/w"}, {"User": "0", "WorkingDir": "/w"}),
        ({"stop_signal": "KILL"}, {"StopSignal": "KILL"}),
        (
            {"expose": ["90/udp"], "ports": [PortMapping(container_port=70)]},
            {"ExposedPorts": {"80/tcp": {}, "90/udp": {}, "70/tcp": {}}},
        ),
        (
            {"mounts": [Mount(target="/own"), Mount(target="/n", source="name"), Mount(target="/t", type="tmpfs")]},
            {"Volumes": {"/v": {}, "/own": {}}},
        ),
        ({"no_health": True}, {"Healthcheck": {"Test": ["NONE"], "Interval": 5}}),
        (
            {"health": HealthCheck(command=["/bin/sh", "-c", "x"], interval=2)},
            {"Healthcheck": _CHECKED},
        ),
    ],
)
def test_the_configuration_of_a_container(how: dict[str, Any], changed: dict[str, Any]) -> None:
    container = Container(
        id="1", name="a", pod="1", created_at="", image="x", image_id="y", hostname="h",
        process=Process(args=["x"], env=["HOSTNAME=h"], cwd="/", user="", stop_signal=15),
        spec=ContainerSpec(image="x", **how),
    )  # fmt: skip
    expected = {k: v for k, v in (_IMAGE | changed).items() if v is not None}
    assert container_config(container, _IMAGE) == expected


def test_a_configuration_over_none() -> None:
    assert merged({"Env": ["A=1"], "Cmd": ["x"], "Entrypoint": None, "Labels": {}}, {}) == {
        "Env": ["A=1"],
        "Cmd": ["x"],
    }
