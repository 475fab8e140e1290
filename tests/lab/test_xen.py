# SPDX-License-Identifier: Apache-2.0
"""Containers on Xen, by xl and by libvirt: `python -m tests.lab --xen tests/lab/test_xen.py`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable, Unsupported
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.hypervisor.xen import tools
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.specs import ContainerSpec, Mount, Resources
from hypercontainer.model.status import ContainerStatus
from hypercontainer.podfile import strict
from tests.contract.conftest import libvirtd_of_dom0
from tests.vm.conftest import DEADLINE, Lab
from tests.vm.test_factory import until

from .servers import a_server_goes_on


def domains() -> list[str]:
    """Names of ours."""
    return [line.split()[0] for line in listed() if line.startswith("hyper-")]


def listed() -> list[str]:
    """Of all: name, number, memory, processors, state, time."""
    return subprocess.run(["xl", "list"], capture_output=True, text=True, check=True).stdout.splitlines()


def left() -> list[str]:
    """What a domain has of dom0: loop devices and network interfaces."""
    loops = [p.parent.parent.name for p in Path("/sys/block").glob("loop*/loop/backing_file")]
    logs = [path.name for place in ("xen", "libvirt/libxl") for path in Path("/var/log", place).glob("*hyper-*")]
    return loops + logs + interfaces()


def interfaces() -> list[str]:
    """Those in dom0 that lead to a guest."""
    return [name for _, name in socket.if_nameindex() if name.startswith(("ht", "vif"))]


async def seen(lab: Lab, container: str, directory: str, *names: str) -> None:
    """Sooner or later the guest has these there, and no other: what it loses goes when its kernel comes to it."""
    async with asyncio.timeout(DEADLINE):
        while (await lab.exec(container, "ls", directory)).out.split() != list(names):
            pass


@pytest.fixture(params=["xen", "libvirt"])
def config(request: pytest.FixtureRequest, root: Path, run_dir: Path) -> Iterator[Config]:
    if not tools.is_dom0():
        pytest.skip("it takes the lab with Xen: python -m tests.lab --xen tests/lab/test_xen.py")
    uri = libvirtd_of_dom0().uri if request.param == "libvirt" else ""
    yield Config(
        root=str(root), run=str(run_dir), driver=request.param, libvirt_uri=uri, network="bridge",
        boot_timeout=DEADLINE,
    )  # fmt: skip
    assert domains() == []


async def test_what_a_container_prints_and_how_it_ends(lab: Lab) -> None:
    done = await lab.run("sh", "-c", "cat; echo to the other side >&2; exit 7", stdin=b"hi\n", network="none")
    assert (done.code, done.out, done.err) == (7, "hi\n", "to the other side\n")


async def test_clock_processors_and_health(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processors are there, without ACPI to name them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # the lab has one
    script = "cat /proc/sys/kernel/tainted; nproc; cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
    done = await lab.sh(script, resources=Resources(cpus=2), network="none")
    assert done.out.split() in (["0", "2", "xen"], ["0", "2", "tsc"])


async def test_all_of_much_output_arrives(lab: Lab) -> None:
    """More than QEMU would keep for a reader that is slow, by a channel of 2 KiB."""
    done = await lab.run("sh", "-c", "seq 1 300000 | md5sum; seq 1 300000", network="none")
    lines = done.out.splitlines()
    assert len(lines) == 300001 and lines[1] == "1" and lines[-1] == "300000"


async def test_a_server_goes_on_without_its_hyperd(lab: Lab, config: Config) -> None:
    await a_server_goes_on(lab, config, (config.driver, "xen"), taken=domains, left=lambda: [*domains(), *left()])


async def test_a_domain_goes_with_its_process(lab: Lab) -> None:
    """Its xl, or the QEMU that has its channel."""
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    container = lab.engine.registry.container(id_)
    os.kill(lab.engine.containers.runtime(container).machine.pid, signal.SIGKILL)  # nobody tidies up after it
    await asyncio.wait_for(lab.engine.containers.supervisor(container).stopped.wait(), DEADLINE)
    await until(lambda: domains() == [], "its end, which on a slow host comes when nobody waits for it any more")


@pytest.mark.parametrize("config", ["libvirt"], indirect=True)
async def test_a_domain_goes_on_and_ends_without_libvirtd(lab: Lab) -> None:
    pod = await a_pod(lab)
    daemon = libvirtd_of_dom0()
    await asyncio.to_thread(daemon.end, signal.SIGKILL)
    try:
        assert (await lab.exec("a", "echo", "on")).out == "on\n"
        with pytest.raises(Unavailable, match="libvirt"):
            await lab.engine.pods.pause(pod)
        await lab.engine.pods.remove(pod, force=True)
        await until(lambda: domains() == [], "its end")
    finally:
        await asyncio.to_thread(daemon.start)


async def a_pod(lab: Lab) -> str:
    """One that runs, with a container "a"."""
    podfile = {"exitPolicy": "continue", "containers": [{"name": "a", "image": "busybox", "command": ["sleep", "999"]}]}
    pod = (await lab.engine.create_pod(strict.decode(podfile))).pod.id
    await asyncio.wait_for(lab.engine.pods.start(pod), DEADLINE)
    return pod


async def test_pause(lab: Lab) -> None:
    """Of a container, which the guest does, and of a pod, which is the domain's."""
    pod = await a_pod(lab)
    await lab.engine.containers.pause("a")
    assert lab.engine.registry.container("a").state.status is ContainerStatus.PAUSED
    await lab.engine.containers.unpause("a")
    await lab.engine.pods.pause(pod)
    (line,) = [line for line in listed() if line.startswith("hyper-")]
    assert "p" in line.split()[4]
    await lab.engine.pods.unpause(pod)
    assert (await lab.exec("a", "echo", "on")).out == "on\n"
    await lab.engine.pods.remove(pod, force=True)


async def test_containers_come_and_go_in_a_pod_that_runs(lab: Lab, config: Config) -> None:
    """Their disks with them; the next daemon knows where they are."""
    pod = await a_pod(lab)
    try:
        for name in ("late", "later"):
            spec = ContainerSpec(image="busybox", name=name, pod=pod, command=["sh", "-c", "echo here; exec sleep 99"])
            await lab.engine.containers.create(spec)
            await lab.engine.containers.start(name)
            await lab.printed(name, "here")
            assert (await lab.exec(name, "sh", "-c", f"echo {name} >/file; cat /file")).out == f"{name}\n"
            await lab.engine.close(keep_running=True)
            lab.engine = build_engine(config)
            await lab.engine.open()
            assert (await lab.exec(name, "cat", "/file")).out == f"{name}\n"
            await lab.engine.containers.remove(name, force=True)
        await seen(lab, "a", "/sys/block", "xvda", "xvdb")
    finally:
        await lab.engine.pods.remove(pod, force=True)


async def test_a_container_that_runs_joins_and_leaves_a_network(lab: Lab, config: Config) -> None:
    """Its interface comes and goes; the next daemon knows of it."""
    away = await lab.engine.networks.create(NetworkSpec(name="away"))
    id_ = await lab.create("sleep", "1000")
    try:
        await lab.engine.containers.start(id_)
        for _ in range(2):
            await lab.engine.connect(id_, NetworkRequest(name="away"))
            assert " 0% packet loss" in (await lab.exec(id_, "ping", "-c", "1", "-W", "60", away.gateway)).out
            await lab.engine.close(keep_running=True)
            lab.engine = build_engine(config)
            await lab.engine.open()
            assert " 0% packet loss" in (await lab.exec(id_, "ping", "-c", "1", "-W", "60", away.gateway)).out
            await lab.engine.disconnect(id_, "away")
            assert len(interfaces()) == 1
            await seen(lab, id_, "/sys/class/net", "eth0", "lo")
    finally:
        await lab.engine.containers.remove(id_, force=True)
        await lab.engine.networks.remove("away")


async def test_what_it_lacks(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as refused:
        await lab.create("true", mounts=[Mount(type="bind", source=str(tmp_path), target="/x")])
    assert str(refused.value).endswith("directories of the host: the driver 'qemu' does: use --driver qemu")
    assert lab.engine.registry.containers() == []
