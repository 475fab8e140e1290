# SPDX-License-Identifier: Apache-2.0
"""Containers of an image for another processor than this host's, in machines that emulate it."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.architectures import MACHINES
from hypercontainer.model.specs import ContainerSpec, Mount, PortMapping
from hypercontainer.model.status import ContainerStatus
from hypercontainer.podfile import strict
from tests import arm64
from tests.arm64 import OTHER

from .calls import build
from .conftest import DEADLINE, Lab, machines
from .test_confinement import FAMILY_VSOCK, NEWUSER, probe
from .test_factory import IDENTITY, until
from .test_pod_network import free_port


@pytest.fixture
async def image(lab: Lab) -> str:
    """Its ID."""
    arm64.require()
    return (await lab.engine.pull(arm64.image(), platform=f"linux/{OTHER}")[1]).id


async def made(lab: Lab, image: str, script: str, **how: object) -> str:
    spec = ContainerSpec(image=image, command=["sh", "-c", script], **how)  # type: ignore[arg-type]
    id_ = (await lab.engine.containers.create(spec)).id
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    return id_


async def test_it_runs_on_the_processor_that_it_is_for(lab: Lab, image: str) -> None:
    id_ = await made(lab, image, "uname -m; free -m | head -2; exit 7")
    await lab.printed(id_, MACHINES[OTHER])
    life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
    await asyncio.wait_for(life.stopped.wait(), DEADLINE)
    assert lab.engine.registry.container(id_).state.exit_code == 7


async def test_a_life(lab: Lab, image: str, run_dir: Path, tmp_path: Path, config: Config) -> None:
    """Published port, volume, directory of this host, exec, statistics, pause, and another daemon; in its jail."""
    port = free_port()
    (tmp_path / "here").write_text("of this host\n")
    id_ = await made(
        lab, image, "cat /dir/here >/vol/kept; httpd -f -p 80 -h /vol", name="a",
        ports=[PortMapping(container_port=80, host_port=port)],
        mounts=[Mount(target="/vol", source="v"), Mount(target="/dir", type="bind", source=str(tmp_path))],
    )  # fmt: skip
    script = "until netstat -ltn | grep -q :80; do :; done; wget -q -O - 127.0.0.1/kept; uname -m; exit 3"
    result = await lab.exec(id_, "sh", "-c", script)
    assert (result.code, result.out) == (3, f"of this host\n{MACHINES[OTHER]}\n"), result.err
    page = (await asyncio.to_thread(fetch, port)).splitlines()
    assert (page[0].split()[1], page[-1]) == ("200", "of this host")
    (qemu,) = machines(run_dir)
    status = dict(re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{qemu}/status").read_text(), re.M))
    assert status["Seccomp"] == "2" and "0" not in status["Uid"].split() and int(status["CapEff"], 16) == 0
    await lab.engine.containers.pause(id_)
    await lab.engine.containers.unpause(id_)

    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert machines(run_dir) == [qemu]
    assert (await lab.exec(id_, "cat", "/vol/kept")).out == "of this host\n"
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.RUNNING
    stats = await lab.engine.monitor.stats(id_)
    assert stats.memory > 0
    await asyncio.wait_for(lab.engine.containers.stop(id_), DEADLINE)
    assert machines(run_dir) == []


def fetch(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(b"GET /kept HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(4096), b"")).decode()


@pytest.mark.slow
async def test_it_comes_from_a_template_and_from_the_pool(lab: Lab, image: str) -> None:
    """Of this host's own processors there is none by that; two machines have nothing in common that is their own."""

    async def identity() -> list[str]:
        id_ = await made(lab, image, f"{IDENTITY}; uname -m; echo END")
        await lab.printed(id_, "END")
        batches = lab.engine.logs(id_, tail=None, since="", until="", follow=False)
        found = "".join([r.log async for batch in batches for r in batch]).split()
        await lab.engine.containers.remove(id_, force=True)
        return found

    factory = lab.engine.factory
    await identity()
    await until(lambda: any(OTHER in t.shape for t in factory.status().templates), "a template")
    await until(lambda: any(p.waiting and OTHER in p.shape for p in factory.status().pool), "a machine that waits")
    found, before = [], dict(factory.started)
    for _ in range(2):
        found.append(await identity())
        await until(lambda: any(p.waiting for p in factory.status().pool), "a machine that waits")
    assert factory.started["cold"] == before["cold"] and factory.started["pool"] > before["pool"]
    assert found[0][-2:] == found[1][-2:] == [MACHINES[OTHER], "END"]
    assert [a for a, b in zip(*found, strict=True) if a == b and a != "-"] == [MACHINES[OTHER], "END"]


# Of Docker's profile by the numbers of 64-bit Arm (asm-generic/unistd.h): number, arguments -> errno.
CALLS = {
    "40,0,0,0": errno.EPERM,  # mount
    f"97,{NEWUSER}": errno.EPERM,  # unshare
    f"220,{NEWUSER}": errno.EPERM,  # clone
    "435,0,0": errno.ENOSYS,  # clone3
    "219,0": errno.EPERM,  # keyctl
    "425,1,0": errno.EPERM,  # io_uring_setup
    "282,0": errno.EPERM,  # userfaultfd
    "280,0": errno.EPERM,  # bpf
    "104,0": errno.EPERM,  # kexec_load
    "92,0x40000": errno.EPERM,  # personality
    f"198,{FAMILY_VSOCK},1": errno.EPERM,
    "480,0": errno.ENOSYS,
    "172": 0,  # getpid
    "92,0xffffffff": 0,
    "198,2,1": 0,
}


@pytest.mark.slow  # the first time a C library is compiled for it
@pytest.mark.skipif(OTHER != "arm64", reason="the numbers are those of arm64")
async def test_its_system_calls_are_filtered_by_its_own_numbers(lab: Lab, image: str) -> None:
    id_ = await made(lab, image, "exec sleep 1000", files=probe(build("aarch64").read_bytes()))
    result = await lab.exec(id_, "/calls", *CALLS)
    assert dict(zip(CALLS, map(int, result.out.split()), strict=True)) == CALLS, result.err


async def test_a_pod_with_processors(lab: Lab, image: str) -> None:
    """Two containers of one architecture, one of which is added while it runs; another one does not fit."""
    container = {"name": "one", "image": image, "command": ["sleep", "1000"]}
    macs = ["52:54:00:aa:bb:cc", "52:54:00:00:11:22", "52:54:00:00:11:21"]
    podfile = {"id": "p", "containers": [container], "resource": {"vcpu": 2}, "interfaces": [{"mac": m} for m in macs]}
    pod = (await lab.engine.create_pod(strict.decode(podfile))).pod
    await asyncio.wait_for(lab.engine.pods.start(pod.id), DEADLINE)
    assert (await lab.exec("one", "nproc")).out == "2\n"
    addresses = "/sys/class/net/eth0/address /sys/class/net/eth1/address /sys/class/net/eth2/address"
    assert (await lab.exec("one", "cat", *addresses.split())).out.split() == macs  # each is where its network leads
    second = await lab.engine.containers.create(ContainerSpec(image=image, pod="p", command=["sleep", "1000"]))
    await asyncio.wait_for(lab.engine.containers.start(second.id), DEADLINE)
    assert (await lab.exec(second.id, "uname", "-m")).out == f"{MACHINES[OTHER]}\n"
    with pytest.raises(InvalidArgument, match=f"pod p has processors of {OTHER}"):
        await lab.engine.containers.create(ContainerSpec(image="busybox", pod="p"))
    await lab.engine.pods.remove(pod.id, force=True)
