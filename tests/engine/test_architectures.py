# SPDX-License-Identifier: Apache-2.0
"""Images for another processor than this host's: which machine they get, what is said of it, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable
from hypercontainer.hypervisor.fake import FakeDriver
from hypercontainer.model import architectures
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.specs import ContainerSpec
from tests.registry import serving
from tests.unit.test_references import index
from tests.unit.test_references import put as upload

from . import hyperctl
from .served import Served, served
from .test_image_verbs import put

OTHER = next(name for name in architectures.MACHINES if name != architectures.host())
TOLD = f"this host is {architectures.host()}: linux/{OTHER} runs emulated, several times slower"
_DIFF = "sha256:" + hashlib.sha256(b"tar").hexdigest()  # of the image that the stage has a disk of


def have(s: Served, name: str, architecture: str, **more: Any) -> str:
    """An image for an architecture, which can be started."""
    rootfs = {"type": "layers", "diff_ids": [_DIFF]}
    return put(s, f"docker.io/library/{name}:latest", "2020-01-01T00:00:00Z", rootfs=rootfs,
               config={"Cmd": ["sleep", "100"]}, architecture=architecture, **more)  # fmt: skip


async def ctl(s: Served, *args: str) -> tuple[int, str, str]:
    status, out, err = await hyperctl.call("-H", str(s.path), *args)
    return status, out.decode(), err.decode()


def machine_of(s: Served, name: str) -> Any:
    """What the driver was asked for."""
    engine = s.stage.engine
    pod = engine.registry.pod(engine.registry.container(name).pod)
    assert pod.vm
    return s.stage.host.machines[pod.vm.pid].config


async def test_the_machine_is_of_the_images_architecture(template: Path) -> None:
    async with served(template, own_images=True) as s:
        have(s, "other", OTHER)
        for name, image in (("a", "other"), ("b", "box")):
            await s.stage.engine.containers.create(ContainerSpec(image=image, name=name, command=["sleep", "100"]))
            await s.stage.engine.containers.start(name)
        assert machine_of(s, "a").architecture == OTHER
        assert machine_of(s, "b").architecture in ("", architectures.host())
        found = await s.ask("GET", "/v1/pods/a")
        assert (found.json["pod"]["architecture"], found.json["warnings"]) == (OTHER, [TOLD])


async def test_it_is_told_that_it_is_emulated(template: Path) -> None:
    """By each way in which a container is made, once; of the host's own there is nothing to tell."""
    async with served(template, own_images=True) as s:
        have(s, "other", OTHER)
        told = f"hyperctl: warning: {TOLD}\n"
        quick = await ctl(s, "run", "--rm", "other", "echo", "hi")
        assert quick == (0, "hi\n", told)
        slow = await ctl(s, "run", "--rm", "--platform", f"linux/{OTHER}", "other", "echo", "hi")
        assert slow == (0, "hi\n", told)
        status, id_, err = await ctl(s, "run", "-d", "other", "sleep", "100")
        assert (status, err) == (0, told) and await ctl(s, "rm", "-f", id_.strip())
        assert (await ctl(s, "create", "other"))[2] == told
        assert await ctl(s, "run", "--rm", "box", "echo", "hi") == (0, "hi\n", "")
        body = {"Image": "other", "Cmd": ["true"]}
        for query in ("", f"?platform=linux/{OTHER}"):
            made = await s.ask("POST", f"/v1.51/containers/create{query}", body, docker=True)
            assert (made.status, made.json["Warnings"]) == (201, [TOLD])


async def test_another_platform_than_the_image_has_is_no_match(template: Path) -> None:
    async with served(template, own_images=True) as s:
        have(s, "other", OTHER)
        status, _, err = await ctl(s, "create", "--pull", "never", "--platform", f"linux/{OTHER}", "box")
        assert status == 1 and f"image box is for linux/{architectures.host()}, not for linux/{OTHER}" in err
        status, _, err = await ctl(s, "create", "--platform", "linux/s390x", "nothing-of-that-name")
        assert status == 1 and "Unable to find image" not in err  # nothing is pulled that could not run
        assert "images for linux/s390x cannot be run: virtual machines run images for linux/amd64, linux/arm64" in err


async def test_the_image_of_a_platform_is_pulled_where_another_one_is_there(template: Path, tmp_path: Path) -> None:
    make, _ = index(tmp_path / "layout", *architectures.MACHINES)
    with serving(tmp_path) as registry:
        name = f"{registry.address}/multi:1"
        upload(f"oci:{make.root}:test", f"docker://{name}", "--all")
        async with served(template, own_images=True) as s:
            assert (await ctl(s, "pull", "-q", name))[0] == 0
            status, out, err = await ctl(s, "run", "--rm", "--platform", f"linux/{OTHER}", name)
            assert (status, out) == (0, f"{OTHER}\n") and f"warning: {TOLD}" in err
            again = await ctl(s, "run", "--rm", "--platform", f"linux/{OTHER}", name)
            assert again == (0, f"{OTHER}\n", f"hyperctl: warning: {TOLD}\n")  # it is there now
            assert (await ctl(s, "run", "--rm", "--platform", f"linux/{architectures.host()}", name))[2] == ""


@pytest.mark.parametrize("architecture", ["riscv64", "arm", "s390x"])
async def test_what_no_machine_runs_is_refused(template: Path, architecture: str) -> None:
    async with served(template, own_images=True) as s:
        have(s, "strange", architecture, variant="v7" if architecture == "arm" else "")
        status, _, err = await ctl(s, "run", "strange")
        called = f"linux/{architecture}" + ("/v7" if architecture == "arm" else "")
        assert status == 125 and f"images for {called} cannot be run: virtual machines run images for" in err
        assert s.stage.engine.registry.containers() == []


async def test_programs_of_32_bits_run_on_the_larger_machine(template: Path) -> None:
    async with served(template, own_images=True) as s:
        have(s, "small", "386")
        await s.stage.engine.containers.create(ContainerSpec(image="small", name="a"))
        assert s.stage.engine.registry.pods()[0].architecture == "amd64"


async def test_a_pod_has_one_architecture(template: Path) -> None:
    async with served(template, own_images=True) as s:
        have(s, "other", OTHER)
        engine, host = s.stage.engine, architectures.host()
        both = [ContainerSpec(image="box", name="a"), ContainerSpec(image="other", name="b")]
        with pytest.raises(InvalidArgument, match=f"image box is for {host}, and image other for {OTHER}"):
            await engine.pods.create(PodPlan(name="p", containers=both))
        assert engine.registry.pods() == [] and engine.registry.containers() == []
        pod = await engine.pods.create(PodPlan(name="p", containers=both[1:]))
        assert pod.architecture == OTHER
        with pytest.raises(InvalidArgument, match=f"pod p has processors of {OTHER}, and image box is for {host}"):
            await engine.containers.create(ContainerSpec(image="box", pod="p"))
        empty = await engine.pods.create(PodPlan(name="q"))
        with pytest.raises(InvalidArgument, match=f"pod q has processors of {host}"):
            await engine.containers.create(ContainerSpec(image="other", pod=empty.name))


async def test_what_emulates_it_is_not_there(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is made, with what to do; info and doctor say it, too."""
    monkeypatch.setattr(FakeDriver, "no_emulation", "qemu-system-vax is not installed")
    async with served(template, own_images=True) as s:
        have(s, "other", OTHER)
        with pytest.raises(Unavailable, match=f"images for {OTHER} cannot be run: qemu-system-vax is not installed"):
            await s.stage.engine.containers.create(ContainerSpec(image="other"))
        assert s.stage.engine.registry.containers() == []
        _, out, _ = await ctl(s, "info")
        assert f"Images for {OTHER}:   not usable: qemu-system-vax is not installed" in out
        lines = out.splitlines()
        below = [after.split()[0] for line, after in zip(lines, lines[1:], strict=False) if line.startswith("Driver ")]
        assert below and set(below) == {"can"} and out.count(" can ") == len(below)  # each driver's, below it
        checks = {c.name: c for c in await asyncio.wait_for(s.stage.engine.doctor(), 60)}
        assert checks[f"images for {OTHER}"].found == "not in use: qemu-system-vax is not installed"
        assert checks[f"images for {OTHER}"].status == "ok"
