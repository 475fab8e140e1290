# SPDX-License-Identifier: Apache-2.0
"""What a process finds in its container: namespaces, mounts, identity, limits."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from hypercontainer.errors import Conflict, InvalidState, StartFailed
from hypercontainer.model.specs import ExecSpec, Resources, Ulimit
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab


async def test_runs_with_a_kernel_of_its_own(lab: Lab) -> None:
    result = await lab.run("uname", "-r")
    assert result.code == 0
    assert result.out.strip() == lab.engine.kernel.version != os.uname().release  # type: ignore[union-attr]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_exit_code(lab: Lab, code: int) -> None:
    assert (await lab.sh(f"exit {code}")).code == code


async def test_death_by_signal(lab: Lab) -> None:
    """Of a process that is not process 1, which does not end by a signal of its own container's."""
    assert (await lab.sh("kill -KILL $$", pid="pod")).code == 128 + signal.SIGKILL
    assert (await lab.sh("kill -TERM $$", pid="pod")).code == 128 + signal.SIGTERM


async def test_streams_are_apart_and_stdin_ends(lab: Lab) -> None:
    result = await lab.sh("cat; echo err >&2", stdin=b"from stdin\n")
    assert (result.out, result.err) == ("from stdin\n", "err\n")


async def test_ten_megabytes_there_and_back(lab: Lab) -> None:
    payload = os.urandom(10 << 20)
    import hashlib

    result = await lab.run("sha256sum", stdin=payload)
    assert result.out.split()[0] == hashlib.sha256(payload).hexdigest()


async def test_missing_and_unfit_programs(lab: Lab) -> None:
    for program, status in (("nosuch", 127), ("/nosuch", 127), ("/etc/passwd", 126), ("/etc", 126)):
        with pytest.raises(StartFailed) as caught:
            await lab.run(program)
        assert caught.value.exit_status == status, program


async def test_devices_and_mounts(lab: Lab) -> None:
    result = await lab.sh(
        "set -e; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c;"
        "test -c /dev/full; test -c /dev/tty; test -L /dev/fd; test -d /dev/shm; echo shm > /dev/shm/x;"
        "grep -q 'mqueue /dev/mqueue' /proc/mounts; grep -q 'devpts /dev/pts' /proc/mounts;"
        "grep -q 'cgroup2' /proc/mounts;"
        "grep -q '^overlay / ' /proc/mounts; cat /proc/self/cgroup"
    )
    assert result.code == 0, result.err
    assert result.out.split() == ["4", "4", "0::/"]


async def test_masked_and_read_only_paths(lab: Lab) -> None:
    result = await lab.sh(
        "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/printk; echo 1 > /sys/power/state"
    )
    assert result.out.split() == ["0", "0"]
    assert (
        result.err.count("Read-only file system") + result.err.count("nonexistent") + result.err.count("Permission")
        >= 1
    )
    assert "/proc/sys/kernel/printk: Read-only" in result.err


async def test_docker_capabilities(lab: Lab) -> None:
    async def bits(**how: object) -> int:
        found = re.search(r"CapEff:\s+(\w+)", (await lab.run("cat", "/proc/self/status", **how)).out)
        assert found
        return int(found[1], 16)

    assert await bits() == 0xA80425FB
    assert await bits(cap_drop=["ALL"]) == 0
    assert await bits(cap_add=["SYS_TIME"]) == 0xA80425FB | 1 << 25
    assert await bits(user="nobody") == 0


async def test_no_new_privileges(lab: Lab) -> None:
    assert "NoNewPrivs:\t1" in (await lab.run("cat", "/proc/self/status", no_new_privileges=True)).out
    assert "NoNewPrivs:\t0" in (await lab.run("cat", "/proc/self/status")).out


async def test_users_and_groups(lab: Lab) -> None:
    assert (await lab.run("id", user="nobody")).out.startswith("uid=65534(nobody) gid=65534(nobody)")
    assert (await lab.run("id", user="1234:5678")).out.strip() == "uid=1234 gid=5678 groups=5678"
    groups = (await lab.run("id", "-G", user="nobody", groups=["users", "5"])).out.split()
    assert sorted(groups) == ["100", "5", "65534"]
    with pytest.raises(StartFailed, match="unable to find user ghost"):
        await lab.run("id", user="ghost")


async def test_environment_directory_and_names(lab: Lab) -> None:
    result = await lab.sh(
        "pwd; hostname; echo $A $HOME; cat /etc/hostname; grep -c myhost /etc/hosts",
        workdir="/made/new",
        hostname="myhost",
        env=["A=b c"],
    )
    assert result.out == "/made/new\nmyhost\nb c /root\nmyhost\n1\n"


async def test_read_only_root(lab: Lab) -> None:
    result = await lab.sh(
        "touch /x || echo refused; touch /dev/shm/ok && echo ok; cat /etc/hostname | wc -l", read_only=True
    )
    assert result.out == "refused\nok\n1\n"


async def test_sysctls_and_ulimits(lab: Lab) -> None:
    result = await lab.sh(
        "cat /proc/sys/net/core/somaxconn; ulimit -n; ulimit -Hn; ulimit -c",
        sysctls={"net.core.somaxconn": "77"},
        ulimits=[Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=-1, hard=-1)],
    )
    assert result.out.split() == ["77", "100", "200", "unlimited"]


async def test_memory_limit_kills_and_says_so(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "tail /dev/zero", resources=Resources(memory=32 << 20))
    await lab.engine.containers.start(id_)
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 137
    await lab.engine.containers.stop(id_)
    state = lab.engine.registry.container(id_).state
    assert state.oom_killed and state.exit_code == 137


async def test_without_a_limit_the_machine_is_the_limit(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "tail /dev/zero")
    await lab.engine.containers.start(id_)
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 137
    assert lab.engine.registry.container(id_).state.oom_killed


async def test_limits_are_in_the_control_group(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # the lab has one
    result = await lab.sh(
        "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; nproc",
        resources=Resources(memory=64 << 20, cpus=1.5, pids=50),
    )
    assert result.out.split() == [str(64 << 20), "150000", "100000", "50", "2"]


async def test_orphans_are_reaped_and_the_rest_is_killed(lab: Lab) -> None:
    orphan = (
        "(sh -c 'sleep 0.1 & echo $! > /pid' &); while [ ! -s /pid ] || [ -e /proc/$(cat /pid) ]; do sleep 0.1; done"
    )
    await asyncio.wait_for(lab.sh(orphan), DEADLINE)
    result = await lab.sh("sleep 1000 & sleep 1000 & exit 4")
    assert result.code == 4


async def test_host_processes_cannot_be_seen(lab: Lab) -> None:
    result = await lab.sh("ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; true")
    count, init = result.out.split()
    assert int(count) < 10 and init == "sh"


async def test_files_last_from_start_to_start(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "cat /root/count 2>/dev/null; echo x >> /root/count")
    for _ in range(3):
        await lab.engine.containers.start(id_)
        await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE)
    batches = [b async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False)]
    assert "".join(r.log for r in batches[0]) == "x\n" + "x\nx\n"


async def test_life(lab: Lab) -> None:
    containers = lab.engine.containers
    id_ = await lab.create("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done", name="life")
    with pytest.raises(InvalidState, match="is not running"):
        await containers.kill(id_, "TERM")
    assert await containers.start(id_) is True
    assert await containers.start(id_) is False
    await lab.printed(id_, "ready")
    with pytest.raises(Conflict, match="is running"):
        await containers.remove(id_)
    await containers.pause(id_)
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.PAUSED
    with pytest.raises(InvalidState, match="is paused"):
        lab.engine.execs.create(id_, ExecSpec(command=["true"]))
    await containers.unpause(id_)
    assert (await lab.exec(id_, "sh", "-c", "echo $HOSTNAME; exit 5")).code == 5
    assert any("sleep 0.1" in p.command for p in await lab.engine.monitor.top(id_))
    stats = await lab.engine.monitor.stats(id_)
    assert stats.pids >= 1 and 0 < stats.memory < stats.memory_limit
    assert [i.name for i in stats.interfaces] == ["eth0"] and "anon" in stats.memory_details
    await asyncio.wait_for(containers.stop(id_), DEADLINE)
    state = lab.engine.registry.container(id_).state
    assert (state.status, state.exit_code) == (ContainerStatus.EXITED, 3)


async def test_stop_kills_what_ignores_the_signal(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "ready")
    await asyncio.wait_for(lab.engine.containers.stop(id_, timeout=0), DEADLINE)
    assert lab.engine.registry.container(id_).state.exit_code == 137


async def test_a_killed_machine_is_noticed(lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    container = lab.engine.registry.container(id_)
    os.kill(lab.engine.containers.runtime(container).machine.pid, signal.SIGKILL)
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 255
    assert "ended unexpectedly" in lab.engine.registry.container(id_).state.error
    assert await lab.engine.containers.start(id_)  # and can be started again


async def test_kernel_features_that_containers_expect(lab: Lab) -> None:
    """What hyperkernel promises, asked of the running kernel."""
    result = await lab.sh(
        "zcat /proc/config.gz; cat /proc/filesystems; ls /proc/self/ns; cat /sys/fs/cgroup/cgroup.controllers"
    )
    for option in (
        "USER_NS",
        "TIME_NS",
        "IO_URING",
        "INOTIFY_USER",
        "POSIX_MQUEUE",
        "BPF_SYSCALL",
        "SECCOMP_FILTER",
        "VETH",
        "TUN",
        "BRIDGE",
        "NF_TABLES",
        "NFT_NAT",
        "VSOCKETS",
        "VIRTIO_PCI",
        "VIRTIO_FS",
        "IPV6",
    ):
        assert f"CONFIG_{option}=y" in result.out, option
    for name in ("overlay", "ext4", "squashfs", "erofs", "9p", "virtiofs", "fuse"):
        assert re.search(rf"\b{name}$", result.out, re.M), name
    for controller in ("cpu", "cpuset", "io", "memory", "pids"):
        assert controller in result.out.splitlines()[-1].split(), controller
