# SPDX-License-Identifier: Apache-2.0
"""Machines from templates: what clones have of their own, what waits in the pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hypercontainer.engine.paths import Paths
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.factory import WarmRequest
from hypercontainer.model.specs import Mount, PortMapping, Resources

from .conftest import DEADLINE, Lab

# What must differ between two machines, and what an emulated one draws from the kernel's random pool.
IDENTITY = (
    "cat /proc/sys/kernel/random/boot_id /etc/machine-id /etc/hostname /sys/class/net/eth0/address; "
    "head -c 32 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/uuid"
)


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def template_of_busybox(lab: Lab) -> None:
    """The template is made after the first start."""
    await lab.run("true")
    await until(lambda: bool(lab.engine.factory.templates.all()), "a template")


def started(lab: Lab) -> dict[str, int]:
    return dict(lab.engine.factory.started)


@pytest.fixture
def no_pool(config: Config) -> None:
    config.pool_memory = "0"


@pytest.fixture(params=["clone", "pool"])
async def fresh_ones(request: pytest.FixtureRequest, config: Config, root: Path) -> str:
    """Both ways to come by a machine that did not boot; use before `lab`."""
    config.pool_memory = "0" if request.param == "clone" else "512m"
    kind: str = request.param
    return kind


async def ready(lab: Lab, kind: str) -> None:
    await template_of_busybox(lab)
    if kind == "pool":
        await until(lambda: any(n for n, _ in lab.engine.factory.pool.counts().values()), "a machine that waits")


async def test_two_machines_have_nothing_of_their_own_in_common(fresh_ones: str, config: Config, lab: Lab) -> None:
    """In a network the MAC follows from the address, and the second has that of the first, which has ended."""
    by_address = config.network == "bridge"
    await ready(lab, fresh_ones)
    found = []
    for _ in range(2):
        await ready(lab, fresh_ones)
        before = started(lab)[fresh_ones]
        found.append((await lab.sh(IDENTITY)).out.split())
        assert started(lab)[fresh_ones] == before + 1, "it did not come from where it should"
    assert len(found[0]) == len(found[1]) == 7  # sha256sum writes two words
    mac = found[0][3]
    same = [a for a, b in zip(*found, strict=True) if a == b and a != "-" and not (by_address and a == mac)]
    assert same == [], "two clones share an identity"
    assert re.fullmatch("[0-9a-f]{32}", found[0][1]) and mac.startswith("02:42:" if by_address else "52:54:00:")


async def test_a_program_need_not_be_read_any_more(fresh_ones: str, lab: Lab) -> None:
    """Its rehearsal brought all of it into the page cache, though it was another of busybox's programs."""
    await ready(lab, fresh_ones)
    before = started(lab)[fresh_ones]
    fields = (await lab.run("cat", "/proc/self/stat")).out.split()
    assert started(lab)[fresh_ones] == before + 1, "it did not come from where it should"
    assert fields[11] == "0", f"{fields[11]} faults waited for the disk"  # proc(5), majflt


async def test_random_numbers_differ_at_the_first_call(no_pool: None, lab: Lab) -> None:
    """The pool is seeded anew before any program runs, not some time later."""
    await template_of_busybox(lab)
    drawn = {(await lab.run("od", "-An", "-tx1", "-N16", "/dev/random")).out for _ in range(4)}
    assert len(drawn) == 4 and started(lab)["clone"] >= 4


async def test_the_clock_is_right(fresh_ones: str, lab: Lab) -> None:
    """Wall clock to 10 ms, asked for by a program that runs; the monotonic one goes on."""
    await ready(lab, fresh_ones)
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    assert started(lab)[fresh_ones] >= 1
    errors = []
    for _ in range(5):
        begin = time.time()
        # /proc/driver/rtc is the host's hour; adjtimex has the system's with microseconds.
        out = (await lab.exec(id_, "adjtimex")).out
        end = time.time()
        seconds = float(re.search(r"time\.tv_sec:\s+(\d+)", out)[1])  # type: ignore[index]
        micro = float(re.search(r"time\.tv_usec:\s+(\d+)", out)[1])  # type: ignore[index]
        now = seconds + micro / 1e6
        errors.append(max(begin - now, now - end, 0.0))
    assert min(errors) < 0.010, errors
    first, second = [float((await lab.exec(id_, "cat", "/proc/uptime")).out.split()[0]) for _ in range(2)]
    assert 0 < first <= second < 3600


async def test_timers_are_fine(lab: Lab) -> None:
    """An emulated guest whose counter was not measured has a clock of 10 ms, and sleeps as long."""
    source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    for isolation in ("fresh", "fresh", "default"):
        assert (await lab.run("cat", source, isolation=isolation)).out.strip() in ("tsc", "tsc-early", "kvm-clock")


async def test_fresh_isolation_boots(no_pool: None, lab: Lab) -> None:
    await template_of_busybox(lab)
    before = started(lab)
    assert (await lab.run("echo", "ok", isolation="fresh")).out == "ok\n"
    assert started(lab) == before | {"cold": before["cold"] + 1}


async def test_the_factory_can_be_off(config: Config, lab: Lab) -> None:
    config.factory = False
    await lab.engine.close(keep_running=False)
    lab.engine = build_engine(config)
    await lab.engine.open()
    for _ in range(2):
        assert (await lab.run("echo", "ok")).out == "ok\n"
    assert started(lab) == {"pool": 0, "clone": 0, "cold": 2} and lab.engine.factory.templates.all() == []


async def test_nothing_of_one_container_is_seen_by_the_next(fresh_ones: str, lab: Lab) -> None:
    await ready(lab, fresh_ones)
    write = "echo secret > /left; echo secret > /dev/shm/left; echo secret > /tmp/left; mkdir /etc/left"
    look = "ls / /dev/shm /tmp /etc | grep left || echo nothing"
    for _ in range(2):
        await ready(lab, fresh_ones)
        assert (await lab.sh(f"{look}; {write}")).out == "nothing\n"


async def test_limits_names_and_volumes_of_a_machine_that_waited(lab: Lab) -> None:
    await ready(lab, "pool")
    script = "cat /etc/hostname; ip -4 addr show eth0 | grep -c 10.0.2.15; echo $A; id -u; cat /sys/fs/cgroup/pids.max"
    result = await lab.sh(script, hostname="myhost", env=["A=b"], user="7", resources=Resources(pids=33))
    assert result.out.split() == ["myhost", "1", "b", "7", "33"]
    for expected in ("", "kept\n"):  # a volume: another kind of machine, whose disk is exchanged too
        mounts = [Mount(target="/data", source="factory-volume")]
        assert (await lab.sh("cat /data/file; echo kept > /data/file", mounts=mounts)).out == expected
        await until(lambda: all(n == target for n, target in lab.engine.factory.pool.counts().values()), "the pool")
    assert started(lab)["pool"] >= 2
    await lab.engine.volumes.remove("factory-volume")


async def test_a_published_port_of_a_machine_that_waited(lab: Lab) -> None:
    await ready(lab, "pool")
    id_ = await lab.create("sh", "-c", "echo hello | nc -l -p 80", ports=[PortMapping(container_port=80)])
    await lab.engine.containers.start(id_)
    assert started(lab)["pool"] == 1
    port = lab.engine.registry.container(id_).ports[0].host_port
    answer = b""
    async with asyncio.timeout(DEADLINE):
        while not answer:
            with contextlib.suppress(ConnectionError):  # in a network nobody answers for a program that is not up yet
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                answer = await reader.read(100)
                writer.close()
            await asyncio.sleep(0.01)
    assert answer == b"hello\n"


async def test_a_stopped_container_starts_again_with_its_files(lab: Lab) -> None:
    """Its disk is no longer empty: it may not get another's."""
    await ready(lab, "pool")
    id_ = await lab.create("sh", "-c", "cat /state; echo run >> /state")
    for _ in range(3):
        await ready(lab, "pool")
        await lab.engine.containers.start(id_)
        owner = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
        await asyncio.wait_for(owner.at_rest.wait(), DEADLINE)
    records = [r.log async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False) for r in b]
    assert records.count("run\n") == 3


async def test_a_rehearsal_changes_nothing(lab: Lab) -> None:
    """The image's program runs up to its first effect only; what it printed or wrote nobody sees."""
    await ready(lab, "pool")
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    runtime = lab.engine.containers.runtime(lab.engine.registry.container(id_))
    from hypercontainer.engine.builtins import run_process
    from hypercontainer.protocol.messages import GuestProcess

    refused = (
        ("touch", "/made"),
        ("mkdir", "/made"),
        ("rm", "-r", "/etc"),
        ("chmod", "000", "/bin"),
        ("ping", "-c1", "127.0.0.1"),
    )
    killed = (
        ("kill", "-9", "1"),
        ("sh", "-c", "busybox touch /made; busybox true"),
        ("mv", "/etc", "/made"),
        ("ln", "-s", "a", "/made"),
    )
    for command in (*refused, *killed, ("echo", "loud"), ("sh", "-c", "echo x > /made")):
        process = GuestProcess(args=command, container=id_[:12], env=("PATH=/bin:/usr/sbin",), rehearsal=True)
        done = await run_process(runtime.agent, process)
        assert done.output == b"" and done.errors == "", command
        assert done.status == 128 + 31 or command not in killed, command  # SIGSYS
    assert (await lab.exec(id_, "ls", "-d", "/made", "/etc/passwd", "/bin/sh")).out == "/bin/sh\n/etc/passwd\n"


async def test_a_container_of_a_clone_outlives_the_daemon(fresh_ones: str, config: Config, lab: Lab) -> None:
    await ready(lab, fresh_ones)
    id_ = await lab.create("sh", "-c", "echo up; sleep 1000")
    await lab.engine.containers.start(id_)
    assert started(lab)[fresh_ones] == 1
    await lab.printed(id_, "up")
    await lab.engine.close(keep_running=True)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert (await lab.exec(id_, "echo", "still")).out == "still\n"
    await lab.engine.containers.stop(id_, 0)
    await lab.engine.containers.start(id_)  # its template is found again, or it boots
    assert (await lab.exec(id_, "echo", "again")).out == "again\n"


async def test_a_damaged_template_is_made_again(no_pool: None, config: Config, lab: Lab) -> None:
    await template_of_busybox(lab)
    template = lab.engine.factory.templates.all()[0]
    made_at = template.made_at
    await lab.engine.close(keep_running=False)
    with open(config.root_path / f"cache/templates/{template.kind.name}.memory", "r+b") as f:
        f.seek(1 << 20)
        f.write(b"damage" * 1000)
    lab.engine = build_engine(config)
    await lab.engine.open()
    await template_of_busybox(lab)
    assert lab.engine.factory.templates.all()[0].made_at > made_at
    assert (await lab.run("echo", "ok")).out == "ok\n" and started(lab)["clone"] == 1


async def test_a_template_that_does_not_start_is_replaced_by_a_boot(
    no_pool: None, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypercontainer.engine import sources

    await template_of_busybox(lab)
    monkeypatch.setattr(sources, "CLONE_TIMEOUT", 0.3)
    template = lab.engine.factory.templates.all()[0]
    template.token = b"x" * 16  # no guest answers to it
    assert (await lab.run("echo", "ok")).out == "ok\n"
    assert started(lab)["cold"] == 2 and template not in lab.engine.factory.templates.all()


async def test_machines_that_wait_end_with_the_daemon(config: Config, lab: Lab) -> None:
    from .conftest import machines

    await ready(lab, "pool")
    assert machines(config.run_path, factory=True) != []
    assert await lab.engine.factory.drain(templates=True) >= 1
    assert machines(config.run_path, factory=True) == []
    assert (
        list((config.root_path / "waiting").iterdir()) == []
        and list((config.root_path / "cache/templates").iterdir()) == []
    )


async def test_a_machine_that_cannot_be_made_leaves_nothing(
    config: Config, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypercontainer.engine.factory import factory as module
    from hypercontainer.errors import PermissionDenied

    await template_of_busybox(lab)
    await lab.engine.factory.drain(templates=False)

    def refused(kind: str) -> None:
        raise PermissionDenied("no NIC today")

    monkeypatch.setattr(module.IdleNic, "make", refused)
    with pytest.raises(PermissionDenied):
        await lab.engine.factory.pool.warm(lab.engine.factory.templates.all()[0].kind, 1)
    assert list((config.run_path / "pods").iterdir()) == [] and list((config.root_path / "waiting").iterdir()) == []


async def test_state_and_sockets_on_different_file_systems(lab: Lab, config: Config) -> None:
    """As /var/lib and /run are: what a machine of the factory begins with is copied from one to the other."""
    await lab.engine.close(keep_running=False)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="hv") as run:
        assert os.stat(run).st_dev != os.stat(config.root).st_dev
        other = build_engine(msgspec.structs.replace(config, run=run))
        Paths(config.root_path, Path(run)).create()
        await other.open()
        try:
            status = await other.warm(WarmRequest())
            assert [p.waiting for p in status.pool] == [1]
            lab.engine = other
            assert (await lab.run("echo", "ok")).out == "ok\n" and started(lab)["pool"] == 1
        finally:
            await other.close(keep_running=False)
    lab.engine = build_engine(config)
    await lab.engine.open()
