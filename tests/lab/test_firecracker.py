# SPDX-License-Identifier: Apache-2.0
"""Containers on Firecracker, with KVM: `make test-kvm TESTS=tests/lab/test_firecracker.py`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from hypercontainer.engine.factory.pool import private_memory
from hypercontainer.errors import InvalidState, Unsupported
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.images import builtin
from hypercontainer.model.pods import PodPlan, PodSpec
from hypercontainer.model.specs import ContainerSpec, ContainerUpdate, Mount
from hypercontainer.model.status import ContainerStatus
from tests.vm.conftest import DEADLINE, Lab
from tests.vm.test_factory import until
from tests.vm.test_jail import make_it_call
from tests.vm.test_kernel import test_clock_processors_and_health
from tests.vm.test_shares import test_directories_are_added_to_a_pod_that_runs

from .servers import a_server_goes_on

__all__ = ["test_clock_processors_and_health", "test_directories_are_added_to_a_pod_that_runs"]

_MKDIR = 83  # number of mkdir(2), which no thread of Firecracker makes


def taps() -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith("ht")}


async def test_what_a_container_prints_and_how_it_ends(lab: Lab) -> None:
    done = await lab.run("sh", "-c", "cat; echo to the other side >&2; exit 7", stdin=b"hi\n", network="none")
    assert (done.code, done.out, done.err) == (7, "hi\n", "to the other side\n")


async def test_a_server_goes_on_without_its_hyperd(lab: Lab, config: Config) -> None:
    id_ = await a_server_goes_on(lab, config, ("firecracker", "kvm"), taken=taps, left=taps)
    pod = lab.engine.registry.pod(id_)
    assert (pod.spec.driver, pod.driver_reason) == ("firecracker", "it is the default")


async def test_a_tap_goes_with_its_machine(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    assert len(taps()) == 1
    machine = lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine
    os.kill(machine.pid, signal.SIGKILL)  # nobody tidies up after it
    await asyncio.wait_for(machine.wait(), DEADLINE)
    assert taps() == set()


async def test_it_is_in_a_jail(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000", network="none")
    await lab.engine.containers.start(id_)
    machine = lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine
    there = Path(f"/proc/{machine.pid}")
    about = dict(line.split(":\t", 1) for line in (there / "status").read_text().splitlines() if ":\t" in line)
    assert "0" not in about["Uid"].split() and about["NoNewPrivs"] == "1" and about["Seccomp"] == "2"
    assert int(about["CapEff"], 16) == int(about["CapBnd"], 16) == 2  # CAP_DAC_OVERRIDE
    found = sorted(p.name for p in (there / "root").iterdir() if p.name not in ("lab", "usr"))  # its binary's directory
    assert found == ["dev", "disks", "machine", "proc"]
    assert sorted(p.name for p in (there / "root/dev").iterdir()) == ["kvm", "null", "urandom"]


async def test_every_promise_of_its_jail_holds(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000", network="none")
    await lab.engine.containers.start(id_)
    checks = await lab.engine.monitor.jail(id_)
    assert len(checks) >= 11
    assert [c for c in checks if c.status != "ok"] == []


async def test_a_forbidden_call_ends_the_pod(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000", network="none")
    await lab.engine.containers.start(id_)
    container = lab.engine.registry.container(id_)
    make_it_call(lab.engine.containers.runtime(container).machine.pid, _MKDIR)
    await asyncio.wait_for(lab.engine.containers.supervisor(container).stopped.wait(), DEADLINE)
    state = lab.engine.registry.container(id_).state
    assert state.status is ContainerStatus.EXITED
    assert "Firecracker made a system call that its jail forbids: mkdir (83), and was ended" in state.error


async def test_pause(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "while :; do date +%s; sleep 0.2; done", network="none")
    await lab.engine.containers.start(id_)
    await lab.engine.containers.pause(id_)
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.PAUSED
    await lab.engine.containers.unpause(id_)
    assert (await lab.exec(id_, "echo", "on")).out == "on\n"


@pytest.mark.parametrize("kind", ["fresh", "default"])
async def test_memory_that_update_takes_away_goes_back(lab: Lab, kind: str) -> None:
    """Of a machine that booted, and of one from a template, whose memory is a private mapping of a file."""
    if kind == "default":
        await lab.run("true", network="none")
        await until(lambda: bool(lab.engine.factory.templates.all()), "a template")
    id_ = await lab.create("sleep", "1000", network="none", isolation=kind)
    await lab.engine.containers.start(id_)
    assert (await lab.exec(id_, "sh", "-c", "head -c 60000000 /dev/zero >/dev/shm/f; rm /dev/shm/f")).code == 0
    machine = lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine
    before = private_memory(machine.pid)
    await lab.engine.updates.update(id_, ContainerUpdate(memory=32 << 20))
    await until(lambda: private_memory(machine.pid) < before - (40 << 20), "memory that goes back")
    await lab.engine.updates.update(id_, ContainerUpdate(memory=0))
    assert (await lab.exec(id_, "sh", "-c", "head -c 60000000 /dev/zero >/dev/shm/f")).code == 0


@pytest.fixture
def limited(config: Config) -> None:
    """Use before `lab`."""
    config.io_rate = "64m"


async def test_with_a_limit_of_its_disks_rate(limited: None, lab: Lab) -> None:
    """Firecracker has its own limiter for each; one that it does not understand would end it."""
    done = await lab.sh("head -c 1000000 /dev/zero >/f; sync; wc -c </f", network="none")
    assert (done.out, done.err) == ("1000000\n", "")


async def test_what_it_lacks(lab: Lab) -> None:
    with pytest.raises(Unsupported) as refused:
        await lab.create("true", network="user")
    assert re.search("the user-mode network|a user-mode network of its own", str(refused.value))
    assert lab.engine.registry.containers() == []


async def test_a_directory_of_this_host(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("of the host\n")
    mounts = [Mount(type="bind", source=str(tmp_path), target="/x")]
    done = await lab.sh("cat /x/word; echo of the guest >/x/other", mounts=mounts, network="none")
    assert (done.out, (tmp_path / "other").read_text()) == ("of the host\n", "of the guest\n")


async def test_containers_come_and_go_while_their_pod_runs(lab: Lab, config: Config) -> None:
    """Seven have a place at a time, whose drives the next ones get; the next hyperd knows which are free."""
    plan = PodPlan(name="p", memory=192 << 20, vcpus=1, spec=PodSpec(exit_policy="continue"))
    pod = await lab.engine.pods.create(plan)
    await lab.engine.pods.start(pod.id)

    async def one(word: str) -> str:
        id_ = await lab.create("sh", "-c", f"echo {word} >/own; cat /own; exec sleep 1000", pod=pod.id)
        await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
        await lab.printed(id_, word)
        return id_

    made = [await one(f"first-{n}") for n in range(7)]
    late = await lab.create("true", pod=pod.id)
    with pytest.raises(InvalidState, match="no place for one more disk"):
        await lab.engine.containers.start(late)
    await lab.engine.containers.remove(late, force=True)
    for id_ in made[2:5]:
        await lab.engine.containers.remove(id_, force=True)
    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    for n in range(3):
        await one(f"second-{n}")
    assert (await lab.exec(made[0], "cat", "/own")).out == "first-0\n"
    await lab.engine.pods.remove(pod.id, force=True)


async def test_a_bundle_with_an_image_as_a_volume(lab: Lab, tmp_path: Path) -> None:
    """Its root is a directory of this host, which comes by a stream; the image is a disk for reading."""
    programs = tmp_path / "root/bin"
    programs.mkdir(parents=True)
    shutil.copy(builtin._find_busybox(), programs / "busybox")
    for name in ("sh", "mkdir", "ls", "sleep", "cat"):
        (programs / name).symlink_to("busybox")
    pod = await lab.engine.pods.create(PodPlan(name="p", memory=192 << 20, vcpus=1, spec=PodSpec(network="none")))
    script = "/m/bin/busybox touch /m/x; mkdir /own; ls /m/bin/busybox >/own/word; exec sleep 1000"
    made = ContainerSpec(
        image="", pod=pod.id, rootfs=str(tmp_path / "root"), entrypoint=["/bin/sh", "-c", script],
        mounts=[Mount(target="/m", type="image", source="busybox")], env=["PATH=/bin"],
    )  # fmt: skip
    id_ = (await lab.engine.containers.create(made)).id
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await lab.printed(id_, "/m/x: Read-only file system")
    await until((tmp_path / "root/own/word").exists, "what it wrote")
    assert (await lab.exec(id_, "/bin/cat", "/own/word")).out == "/m/bin/busybox\n"
    await lab.engine.containers.remove(id_, force=True)
    assert not lab.engine.registry.pod(pod.id).volumes
    await lab.engine.pods.remove(pod.id, force=True)
