# SPDX-License-Identifier: Apache-2.0
"""PID namespaces: whose processes a container sees, what is process 1 there, and what that means."""

from __future__ import annotations

import asyncio
import re

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.hyperctl.pods import _tree
from hypercontainer.model.specs import ContainerSpec, Mount
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab
from .test_factory import fresh_ones, ready, started  # noqa: F401 - a fixture
from .test_pods import Pods, pods  # noqa: F401 - a fixture

SLEEP = ["sleep", "1000"]
NUMBERS = "cd /proc; echo [0-9]*"  # of all processes that are seen, by the shell itself
# What loses its parent dies then below a program that never waits for anybody.
ORPHANS = "for i in 1 2 3; do sh -c 'sleep 0.3 &'; done; exec sleep 1000"


async def running(lab: Lab, *command: str, **how: object) -> str:
    id_ = await lab.create(*command, **how)
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    return id_


async def test_a_container_is_process_1_and_sees_its_own_only(lab: Lab) -> None:
    result = await lab.sh(f"echo $$ $PPID; cat /proc/1/comm; {NUMBERS}; grep NSpid /proc/1/status")
    assert result.out.splitlines() == ["1 0", "sh", "1", "NSpid:\t1"]


async def test_its_processes_are_left_to_it(lab: Lab) -> None:
    """As in Docker: a shell that never waits keeps the dead, and an orphan's parent is process 1."""
    script = "sh -c 'sleep 1000 & echo $! > /orphan'; grep PPid /proc/$(cat /orphan)/status"
    assert (await lab.sh(script)).out.split() == ["PPid:", "1"]
    result = await lab.sh("sleep 1000 & sleep 1000 & exit 4")
    assert result.code == 4


async def test_exec_is_in_the_same_namespace(lab: Lab) -> None:
    id_ = await running(lab, *SLEEP)
    seen = (await lab.exec(id_, "sh", "-c", f"echo $$; cat /proc/1/comm; readlink /proc/self; {NUMBERS}")).out.split()
    own, first, self_, *numbers = seen
    assert first == "sleep" and own != "1" and own in numbers and "1" in numbers and int(self_) > int(own)
    listed = await lab.engine.monitor.top(id_)
    assert [(p.pid, p.ppid, p.command) for p in listed] == [(1, 0, "sleep 1000")]
    assert lab.engine.registry.container(id_).state.pid == 1
    assert "lo\n" in (await lab.exec(id_, "ls", "/sys/class/net", privileged=True)).out
    assert (await lab.exec(id_, "sh", "-c", "kill -0 1 && echo there", privileged=True)).out == "there\n"


async def test_what_docker_hides_of_proc_is_hidden(lab: Lab) -> None:
    id_ = await running(lab, *SLEEP)
    for _ in range(2):  # from start to start
        result = await lab.exec(
            id_, "sh", "-c", "cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/printk; grep -c ' /proc ' /proc/mounts"
        )
        assert result.out.split() == ["0", "1"] and "Read-only" in result.err
        assert (await lab.exec(id_, "umount", "/proc")).code != 0
        await lab.engine.containers.restart(id_, 0)


async def test_what_is_mounted_below_proc_stays(lab: Lab) -> None:
    mount = Mount(type="tmpfs", target="/proc/fs", size=4096)
    for mode in ("", "pod"):
        result = await lab.sh(
            "grep ' /proc/fs ' /proc/mounts | cut -d' ' -f1", mounts=[mount], privileged=True, pid=mode
        )
        assert result.out.split() == ["tmpfs"], mode


async def test_process_1_ignores_what_it_does_not_handle(lab: Lab) -> None:
    """The kernel's rule for process 1, which images know from Docker."""
    assert (await lab.sh("kill -KILL $$; kill -TERM $$; echo alive; exit 3")).out == "alive\n"
    id_ = await running(lab, "sh", "-c", "sleep 1000; true")
    containers = lab.engine.containers
    await containers.kill(id_, "TERM")
    await containers.kill(id_, "INT")
    assert (await lab.exec(id_, "cat", "/proc/1/comm")).out == "sh\n"
    await containers.kill(id_, "STOP")
    assert "State:\tT" in (await lab.exec(id_, "cat", "/proc/1/status")).out
    await containers.kill(id_, "CONT")
    assert "State:\tT" not in (await lab.exec(id_, "cat", "/proc/1/status")).out
    await asyncio.wait_for(containers.stop(id_, 1), DEADLINE)
    assert lab.engine.registry.container(id_).state.exit_code == 137


async def test_its_end_is_that_of_all(lab: Lab) -> None:
    id_ = await running(lab, "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done")
    await lab.printed(id_, "ready")
    further = asyncio.create_task(lab.exec(id_, "sh", "-c", "echo begun > /begun; exec sleep 1000"))
    while (await lab.exec(id_, "test", "-e", "/begun")).code:
        await asyncio.sleep(0.05)
    await asyncio.wait_for(lab.engine.containers.stop(id_), DEADLINE)
    assert (await asyncio.wait_for(further, DEADLINE)).code in (137, 255)  # 255: its machine was gone first
    assert lab.engine.registry.container(id_).state.exit_code == 6


async def test_each_run_has_a_namespace_of_its_own(pods: Pods) -> None:  # noqa: F811
    """In one machine that goes on, restarts by policy included; and whoever asks later joins the run of then."""
    script = "echo $$ >> /runs; [ $(wc -l < /runs) -ge 3 ] || exit 1; echo third; sleep 1000; true"
    await pods.run(
        id="p",
        pid="container",
        containers=[
            {"name": "a", "command": ["sh", "-c", script], "restartPolicy": "always"},
            {"name": "b", "command": SLEEP},
        ],
    )
    await pods.lab.printed("a", "third")
    assert (await pods.exec("a", "cat /runs; cat /proc/1/comm; grep -c ' /proc ' /proc/mounts")).split() == (
        ["1", "1", "1", "sh", "1"]
    )


async def test_a_pod_shares_unless_it_is_told_otherwise(pods: Pods) -> None:  # noqa: F811
    id_ = await pods.run(
        id="p",
        containers=[
            {"name": "a", "command": ["sleep", "1001"]},
            {"name": "b", "command": ["sleep", "1002"]},
            {"name": "c", "command": ["sleep", "1003"], "pid": "container"},
            {"name": "d", "command": ["sleep", "1004"], "pid": "container"},
        ],
    )
    assert await pods.exec("a", "cat /proc/1/comm") == "pod-init"
    for name, others in (("a", "1001 1002"), ("b", "1001 1002"), ("c", "1003"), ("d", "1004")):
        assert await pods.exec(name, "ps -o args | sed -n 's/^sleep //p' | sort | tr '\\n' ' '") == others, name
    assert await pods.exec("c", "cat /proc/1/comm; readlink /proc/1/ns/pid | head -c 3") == "sleep\npid"
    listed = await pods.engine.monitor.pod_top(id_)
    found = [(depth, p.container, p.pid == 1, p.command) for depth, p in _tree(listed)]
    assert sorted(found) == [
        (0, "", True, "/init"),
        (0, "c", True, "sleep 1003"),
        (0, "d", True, "sleep 1004"),
        (1, "a", False, "sleep 1001"),
        (1, "b", False, "sleep 1002"),
    ]
    late = ContainerSpec(image="busybox", name="late", pod=id_, command=SLEEP, pid="container")
    await pods.engine.containers.create(late)
    await pods.engine.containers.start("late")
    assert await pods.exec("late", "cat /proc/1/comm") == "sleep"
    await pods.engine.containers.stop("c", 0)
    await pods.until("c", ContainerStatus.EXITED)
    assert await pods.exec("d", "cat /proc/1/comm") == "sleep"


async def test_a_container_may_see_its_pod(lab: Lab) -> None:
    result = await lab.sh("cat /proc/1/comm", pid="pod")
    assert result.out == "pod-init\n"


async def test_of_a_machine_that_was_built_ahead(fresh_ones: str, lab: Lab) -> None:  # noqa: F811
    """Its container was rehearsed in a namespace that is gone."""
    for mode, first in (("", "sh"), ("pod", "pod-init")):
        await ready(lab, fresh_ones)
        before = started(lab)[fresh_ones]
        result = await lab.sh(
            "cat /proc/1/comm; echo 1 > /proc/sys/kernel/printk; grep -c ' /proc ' /proc/mounts", pid=mode
        )
        assert result.out.split() == [first, "1"] and "Read-only" in result.err
        assert started(lab)[fresh_ones] == before + 1, "it did not come from where it should"


# -- an init ---------------------------------------------------------------------------


async def test_init_reaps(lab: Lab) -> None:
    async def until(id_: str, left: str) -> None:
        while (
            found := (
                await lab.exec(id_, "sh", "-c", "ps -o stat,args | grep -v docker-init | grep '^[SZ] .*slee[p]'")
            ).out
        ) != left:
            assert found.count("sleep") <= 4
            await asyncio.sleep(0.05)

    for with_init in (False, True):
        id_ = await running(lab, "sh", "-c", ORPHANS, run_init=with_init)
        dead = "" if with_init else "Z    [sleep]\n" * 3
        await asyncio.wait_for(until(id_, f"S    sleep 1000\n{dead}"), DEADLINE)
    result = await lab.sh("tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/comm; echo $PPID", run_init=True)
    assert result.out.startswith("/sbin/docker-init -- sh -c ") and result.out.endswith("docker-init\n1\n")


async def test_init_in_a_pod(pods: Pods) -> None:  # noqa: F811
    """Where another one is process 1, it adopts what its program leaves all the same."""
    script = "sh -c 'sleep 1001 & echo $! > /orphan'; sleep 1000; true"
    await pods.run(id="p", containers=[{"name": "a", "command": ["sh", "-c", script], "init": True}])
    parent = "cat /proc/$(awk '/PPid/ {print $2}' /proc/$(cat /orphan)/status)/comm"
    found = f"until [ -s /orphan ] && [ $({parent}) != sh ]; do sleep 0.1; done 2>&-; {parent}"
    assert await pods.exec("a", found) == "docker-init"


@pytest.mark.parametrize("mode", ["", "pod"])
async def test_init_ends_as_its_program_does(lab: Lab, mode: str) -> None:
    assert (await lab.sh("exit 7", run_init=True, pid=mode)).code == 7
    assert (await lab.sh("kill -KILL $$", run_init=True, pid=mode)).code == 137
    missing = await lab.run("nosuch", run_init=True, pid=mode)
    assert missing.code == 127 and "nosuch" in missing.err
    assert (await lab.run("/etc/passwd", run_init=True, pid=mode)).code == 126
    assert (await lab.sh("id -u; cat", stdin=b"fed\n", run_init=True, user="nobody", pid=mode)).out == "65534\nfed\n"


async def test_init_hands_signals_on(lab: Lab) -> None:
    """So a program that handles none ends at once."""
    id_ = await running(lab, *SLEEP, run_init=True)
    while "sleep" not in (await lab.exec(id_, "ps", "-o", "comm")).out:
        await asyncio.sleep(0.05)
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(lab.engine.containers.stop(id_, 30), DEADLINE)
    assert asyncio.get_running_loop().time() - began < 20
    assert lab.engine.registry.container(id_).state.exit_code == 128 + 15


async def test_init_gives_the_terminal_to_its_program(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "trap 'echo got-int; exit 9' INT; echo ready; while :; do sleep 0.1; done",
                           tty=True, stdin=True, run_init=True)  # fmt: skip
    life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await lab.printed(id_, "ready")
    assert life.fan_out.handle
    await life.fan_out.handle.write_stdin(b"\x03")
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 9


# -- images that begin with an init of their own -----------------------------------------


async def test_an_image_with_busybox_init(lab: Lab) -> None:
    """It refuses to be anything but process 1; asked to end, it ends what it began."""
    table = "::sysinit:/bin/echo begun\n::respawn:/bin/sleep 1000\n::shutdown:/bin/echo over\n"
    id_ = await running(lab, "sh", "-c", f"printf '{table}' > /etc/inittab; exec init", stop_signal="USR2")
    await lab.printed(id_, "begun")

    async def sleeper() -> int:
        while True:
            for process in await lab.engine.monitor.top(id_):
                if "sleep" in process.command:
                    return process.ppid
            await asyncio.sleep(0.05)

    assert await asyncio.wait_for(sleeper(), DEADLINE) == 1
    await lab.exec(id_, "killall", "sleep")

    async def respawned() -> None:
        while "sleep" not in (await lab.exec(id_, "ps", "-o", "comm")).out:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(respawned(), DEADLINE)


async def test_a_container_that_divides_its_control_group(pods: Pods) -> None:  # noqa: F811
    """As systemd does: its own group takes no processes then, so who comes later goes where process 1 is."""
    script = (
        "set -e; echo x >> /runs; cd /sys/fs/cgroup; mkdir -p init.scope deep/er; echo 1 > init.scope/cgroup.procs;"
        "echo '+memory +pids' > cgroup.subtree_control; sleep 1001 & echo $! > deep/er/cgroup.procs;"
        "echo divided $(wc -l < /runs); wait"
    )
    container = {"name": "a", "command": ["sh", "-c", script], "privileged": True, "pid": "container"}
    await pods.run(id="p", containers=[container, {"name": "b", "command": SLEEP}])
    for run in (1, 2):  # another one finds the groups of the one before
        await pods.lab.printed("a", f"divided {run}")
        assert await pods.exec("a", "cat /proc/self/cgroup; cat /proc/1/cgroup") == "0::/init.scope\n0::/init.scope"
        listed = [p.command for p in await pods.engine.monitor.top("a")]
        assert "sleep 1001" in listed and listed[0].startswith("sh -c")
        assert (await pods.engine.monitor.stats("a")).pids >= 2
        await pods.engine.containers.restart("a", 0)
    await pods.engine.containers.remove("a", force=True)
    assert await pods.exec("b", "true") == ""
    refused = {"name": "c", "command": ["sh", "-c", "mkdir /sys/fs/cgroup/x 2>&1; echo no > /sys/x"]}
    await pods.engine.containers.create(ContainerSpec(image="busybox", pod="p", **refused))  # type: ignore[arg-type]
    await pods.engine.containers.start("c")
    await pods.lab.printed("c", "Read-only file system")


async def test_one_that_sees_the_processes_of_another(pods: Pods) -> None:  # noqa: F811
    """Of one that has a namespace of its own, and with which it ends; of one in the pod's it is there, too."""
    alone = {"name": "a", "command": SLEEP, "pid": "container"}
    await pods.run(id="p", exitPolicy="continue", containers=[alone, {"name": "b", "command": ["sleep", "1001"]}])

    async def debug(name: str, of: str) -> None:
        spec = ContainerSpec(image="busybox", pod="p", name=name, command=["sleep", "1002"], pid=f"container:{of}")
        await pods.engine.containers.create(spec)
        await asyncio.wait_for(pods.engine.containers.start(name), DEADLINE)

    await debug("c", "a")
    seen = "cat /proc/1/comm; grep -la 'sleep.100[{}]' /proc/[0-9]*/cmdline | wc -l"
    assert await pods.exec("c", seen.format("12")) == "sleep\n1"
    assert await pods.exec("a", seen.format("2")) == "sleep\n1"
    assert await pods.exec("c", "ls /proc/1/root/bin/busybox") == "/proc/1/root/bin/busybox"
    assert pods.engine.registry.container("c").state.pid > 1
    await debug("d", "b")
    assert await pods.exec("d", seen.format("12")) == "pod-init\n2"
    await pods.engine.containers.kill("a", "KILL")
    await pods.until("c", ContainerStatus.EXITED)
    with pytest.raises(HyperError, match="whose processes it is to see, does not run"):
        await pods.engine.containers.start("c")
    assert await pods.exec("d", "true") == ""


async def test_an_exec_just_after_the_end_is_refused(lab: Lab) -> None:
    id_ = await running(lab, "true")
    await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE)
    with pytest.raises(HyperError, match=re.compile("is not running")):
        await lab.exec(id_, "true")
