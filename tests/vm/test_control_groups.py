# SPDX-License-Identifier: Apache-2.0
"""A virtual machine's control group on this host holds it, whatever its guest does."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from hypercontainer.hyperd.config import Config
from hypercontainer.jail.host_groups import HostGroups
from hypercontainer.model.specs import ContainerUpdate, Mount, Resources
from hypercontainer.model.status import ContainerStatus
from hypercontainer.network.choice import finds_passt
from hypercontainer.protocol.messages import Limits
from hypercontainer.volumes.share import find_virtiofsd

from .conftest import DEADLINE, Lab

MIB = 1 << 20


@pytest.fixture
def config(config: Config) -> Config:
    config.network = "none"
    config.user_network = "auto"
    if os.geteuid() != 0 or (made := HostGroups(config.run_path)).troubles:
        pytest.skip("hyperd has no control groups here")
    asyncio.run(made.close())
    return config


class Machine:
    """A running container's, by what the host's kernel says of its group."""

    def __init__(self, lab: Lab, id_: str) -> None:
        runtime = lab.engine.containers.runtime(lab.engine.registry.container(id_))
        self.agent, self.pid = runtime.agent, runtime.machine.pid
        self._directories = runtime.allotment.group.directories

    def read(self, *names: str) -> str:
        return next((d / n).read_text() for d in self._directories for n in names if (d / n).exists())

    @property
    def members(self) -> dict[int, int]:
        """Threads of each process in it; KVM's kernel puts a thread of its own there until the machine has ended."""
        pids = self.read("cgroup.procs").split()
        return {int(pid): len(os.listdir(f"/proc/{pid}/task")) for pid in pids}

    @property
    def programs(self) -> list[int]:
        """Of these what is no thread of the kernel's."""
        return [pid for pid in self.members if Path(f"/proc/{pid}/cmdline").read_bytes()]

    @property
    def processors(self) -> float:
        """Seconds that it has used."""
        for directory in self._directories:
            if (directory / "cpuacct.usage").exists():
                return int((directory / "cpuacct.usage").read_text()) / 1e9
        return int(self.read("cpu.stat").split()[1]) / 1e6


async def started(lab: Lab, *command: str, **how: object) -> tuple[str, Machine]:
    id_ = await lab.create(*command, **how)
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    return id_, Machine(lab, id_)


@pytest.mark.parametrize("isolation", ["fresh", "default"])
async def test_a_guest_without_its_own_limit_stays_within_its_cpus(lab: Lab, isolation: str) -> None:
    """Its guest's kernel is told to limit nothing any more, as by who has taken it over."""
    how = {"privileged": True, "resources": Resources(cpus=0.25), "isolation": isolation}
    id_, machine = await started(lab, "sh", "-c", "while :; do :; done", **how)
    assert machine.read("cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert machine.read("cpu.shares", "cpu.weight").strip() in ("256", "25")
    await machine.agent.update_limits(id_[:12], Limits(cpu_max=0))  # type: ignore[attr-defined]
    begun, used = time.monotonic(), machine.processors
    while machine.processors - used < 1.0:
        assert time.monotonic() - begun < DEADLINE
        await asyncio.sleep(0.02)
    within = (machine.processors - used) / (time.monotonic() - begun)
    assert within < 0.5 * 1.15  # its 0.25 and the allowance of as much, in whole periods of 0.1 s
    await lab.engine.updates.update(id_, ContainerUpdate(cpus=1))
    assert machine.read("cpu.cfs_quota_us", "cpu.max").split()[0] == "125000"
    assert machine.read("cpu.shares", "cpu.weight").strip() in ("1024", "100")


async def test_limits_of_memory_and_processes(lab: Lab) -> None:
    """A machine fits into its group, whose limits are what the documentation says."""
    filled = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60; dd if=/dev/zero of=/y bs=1M count=64; echo done; sleep 1000"
    id_, machine = await started(lab, "sh", "-c", filled, resources=Resources(memory=192 * MIB), privileged=True)
    pod = lab.engine.registry.pod(lab.engine.registry.container(id_).pod)
    limit = int(machine.read("memory.limit_in_bytes", "memory.max"))
    assert limit in [2 * pod.memory + pod.memory // 64 + overhead * MIB for overhead in (128, 192)]
    assert int(machine.read("pids.max")) == pod.vcpus + 192
    await lab.printed(id_, "done")
    assert int(machine.read("memory.max_usage_in_bytes", "memory.peak")) <= limit
    assert int(machine.read("pids.current")) == sum(machine.members.values())
    assert machine.programs == [machine.pid]


async def test_a_machine_that_reaches_the_hosts_limit_of_memory(lab: Lab) -> None:
    """As when the overhead is more than is known: the limit is lowered to what it has."""
    id_, machine = await started(lab, "sh", "-c", "read x; dd if=/dev/zero of=/dev/shm/x bs=1M count=200", stdin=True)
    life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
    runtime = lab.engine.containers.runtime(lab.engine.registry.container(id_))
    for directory in runtime.allotment.group.directories:
        for used, limit in (("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")):
            if (directory / used).exists():
                (directory / limit).write_text(str(int((directory / used).read_text()) + 8 * MIB))
    assert life.fan_out.handle
    await life.fan_out.handle.write_stdin(b"\n")
    await asyncio.wait_for(life.stopped.wait(), DEADLINE)
    state = lab.engine.registry.container(id_).state
    assert state.status is ContainerStatus.EXITED
    assert "reached this host's limit of memory for its virtual machine" in state.error
    assert not Path(f"/proc/{machine.pid}").exists()


@pytest.mark.parametrize("isolation", ["fresh", "default"])
async def test_helpers_are_in_it_too(lab: Lab, config: Config, tmp_path: Path, isolation: str) -> None:
    """passt and virtiofsd; a machine that waited in the pool gets its passt when it is taken."""
    network = "user" if finds_passt() else "none"
    mounts = (
        [Mount(type="bind", source=str(tmp_path), target="/d")] if find_virtiofsd() and isolation == "fresh" else []
    )
    for _ in range(2 if isolation == "default" else 1):
        id_, machine = await started(lab, "sleep", "1000", network=network, isolation=isolation, mounts=mounts)
    pids = machine.programs
    names = sorted(Path(f"/proc/{p}/comm").read_text().strip()[:6] for p in pids)
    wanted = ["hyper-", *(["passt."] if network == "user" else []), *(["virtio"] if mounts else [])]
    assert sorted({n[:5] for n in names}) == sorted(w[:5] for w in wanted)
    uids = {n: Path(f"/proc/{p}").stat().st_uid for n, p in zip(names, pids, strict=True)}
    checks = await lab.engine.monitor.jail(id_)
    assert [c.name for c in checks if c.name in ("jail: user", "jail: control group") and c.status != "ok"] == [], uids
