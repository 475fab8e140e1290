# SPDX-License-Identifier: Apache-2.0
"""What every kind of control groups does: processes are born in them, limits hold, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.jail.control_groups import Budget, ControlGroups
from hypercontainer.jail.fake_groups import FakeGroups, FakeKernelGroups
from hypercontainer.jail.host_groups import HostGroups, name_of
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Entry, Jail, Order
from hypercontainer.jail.libraries import libraries
from hypercontainer.jail.plain import PlainJail
from hypercontainer.sys import users

SHELL = Path("/bin/sh").resolve()
DEADLINE = 20.0


def host(run: Path) -> HostGroups:
    """This host's; skipped where hyperd would have none."""
    if os.geteuid() != 0:
        pytest.skip("only root makes control groups here")
    made = HostGroups(run)
    if not made.hierarchies:
        pytest.skip(f"this host has no control groups: {made.troubles}")
    return made


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[HostGroups]:
    made = host(tmp_path)
    yield made
    left = [d for h in made.hierarchies for d in h.group.iterdir() if d.is_dir()]
    for directory in left:
        directory.rmdir()
    asyncio.run(made.close())
    assert left == []
    assert [h.group for h in made.hierarchies if h.group.exists()] == []


@pytest.fixture(params=["host", "fake"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ControlGroups]:
    """Gives those of one daemon after the other."""
    if request.param == "host":
        request.getfixturevalue("groups")
        return lambda: HostGroups(tmp_path)
    kernel = FakeKernelGroups()
    return lambda: FakeGroups(kernel)


def test_the_next_daemon_finds_them(new: Callable[[], ControlGroups]) -> None:
    made = new().make("one.1", Budget(cpus=1.0, memory=64 << 20, tasks=10))
    found = new().find("one.1")
    assert found.directories == made.directories != ()
    assert not found.ran_out_of_memory()
    found.remove()
    found.remove()
    assert new().find("one.1").directories == ()
    found.limit(Budget(cpus=1.0))  # nobody minds


def test_what_nobody_has_is_removed(new: Callable[[], ControlGroups]) -> None:
    for name in ("one.1", "two.2"):
        new().make(name, Budget())
    new().keep({"two.2"}, spare_busy=True)
    assert new().find("one.1").directories == ()
    assert new().find("two.2").directories != ()
    new().keep((), spare_busy=True)


def test_one_that_was_never_made(new: Callable[[], ControlGroups]) -> None:
    assert new().find("none.0").directories == ()
    new().find("none.0").remove()


_ANOTHER = """
import sys
from pathlib import Path
from hypercontainer.jail.control_groups import Budget
from hypercontainer.jail.host_groups import HostGroups
print(*HostGroups(Path(sys.argv[1])).make("one.1", Budget()).directories, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("busy", [False, True], ids=["empty", "with a process"])
def test_what_a_killed_daemon_left_is_removed(groups: HostGroups, tmp_path: Path, busy: bool) -> None:
    """By the next start of any: while that one lives nothing of it is touched, and what has processes stays."""
    command = [sys.executable, "-c", _ANOTHER, tmp_path / "another"]
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert other.stdout
        places = [Path(p) for p in other.stdout.readline().decode().split()]
        groups.sweep()
        assert places and [p for p in places if not p.is_dir()] == []
        if busy:
            machine = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
            stack.callback(machine.kill)
            for place in places:
                (place / "cgroup.procs").write_text(str(machine.pid))
        other.kill()
        other.wait()
        groups.sweep()
        assert [p for p in places if p.is_dir()] == (places if busy else [])
    groups.sweep()
    assert [p.parent for p in places if p.parent.exists()] == []


def read(directories: tuple[Path, ...], *names: str) -> str:
    """A file of a group that goes by one of these names."""
    for path in (d / n for d in directories for n in names):
        if path.exists():
            return path.read_text().strip()
    pytest.skip(f"this host has no {names[0]}")


def test_limits_are_in_force(groups: HostGroups) -> None:
    group = groups.make("limited.1", Budget(cpus=1.5, memory=64 << 20, tasks=10, share=2))
    assert read(group.directories, "cpu.shares", "cpu.weight") in ("2048", "200")
    assert read(group.directories, "cpu.cfs_quota_us", "cpu.max").split()[0] == "150000"
    assert read(group.directories, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert read(group.directories, "pids.max") == "10"
    group.limit(Budget(cpus=0.5, share=0.25))
    assert read(group.directories, "cpu.shares", "cpu.weight") in ("256", "25")
    assert read(group.directories, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert read(group.directories, "pids.max") == "10"
    group.remove()
    assert groups.troubles == []


@pytest.mark.parametrize("kind", ["hyperjail", "plain"])
async def test_a_process_is_born_in_its_group(new: Callable[[], ControlGroups], tmp_path: Path, kind: str) -> None:
    groups = new()
    if isinstance(groups, FakeGroups):
        pytest.skip("no process is in a fake's")
    jail: Jail = HyperJail(tmp_path / "jail") if kind == "hyperjail" else PlainJail()
    if why := jail.hindrance():
        pytest.skip(f"this host has no jail: {why}")
    group = groups.make("born.1", Budget(tasks=50))
    output = os.open(tmp_path / "output", os.O_RDWR | os.O_CREAT)
    files = tuple(Entry(p) for p in (SHELL, *libraries(SHELL)))
    waits, end = os.pipe()
    order = Order((str(SHELL), "-c", "read line"), users.pick(), output, files=files, input=waits,
                  devices=(Path("/dev/null"),), control_groups=group.directories)  # fmt: skip
    try:
        started = await jail.spawn(order)
    finally:
        for fd in (output, waits):
            os.close(fd)
    try:
        for directory in group.directories:
            assert (directory / "cgroup.procs").read_text().split() == [str(started.pid)]
        if kind == "hyperjail":
            assert os.readlink(f"/proc/{started.pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
        group.remove()  # it has a process, which is killed in a moment
        await asyncio.wait_for(asyncio.to_thread(os.waitpid, started.pid, 0), DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(started.pid, signal.SIGKILL)
        os.close(end)
    await groups.close()
    assert new().find("born.1").directories == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups here")
def test_a_process_that_takes_too_much_memory_is_told_of(groups: HostGroups, tmp_path: Path) -> None:
    group = groups.make("starved.1", Budget(memory=16 << 20))
    read(group.directories, "memory.limit_in_bytes", "memory.max")
    entrances = [os.open(d / ("tasks" if (d / "tasks").exists() else "cgroup.procs"), os.O_WRONLY)
                 for d in group.directories]  # fmt: skip
    enter = "import os,sys;[os.write(int(f), b'0') for f in sys.argv[1:]]; x = bytearray(64 << 20)"
    try:
        done = subprocess.run([sys.executable, "-c", enter, *map(str, entrances)], pass_fds=entrances, timeout=60)
    finally:
        for fd in entrances:
            os.close(fd)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + DEADLINE
    while group.directories and time.monotonic() < end:
        group.remove()
    assert group.ran_out_of_memory()  # the group is gone, and it is known all the same


def test_required_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text("")
    with pytest.raises(Unavailable, match="no controller of memory"):
        HostGroups(tmp_path, proc=tmp_path, required=True)
    groups = HostGroups(tmp_path, proc=tmp_path)
    assert groups.make("any.1", Budget(cpus=1)).directories == ()
    (check,) = groups.checks()
    assert check.status == "warn" and "no controller of processors" in check.found


# -- version 2, by the controller that this host has there, in a group of the test's own -----------

SECOND = Path("/sys/fs/cgroup/unified")


def one_of_second() -> tuple[Path, str]:
    for top in (SECOND, Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError):
            names = (top / "cgroup.controllers").read_text().split()
            return top, next(n for n in names if n in ("hugetlb", "pids"))
    pytest.skip("this host has no controller of version 2")


def test_in_version_2_hyperd_makes_way(tmp_path: Path) -> None:
    """A group whose processes are hyperd's alone: it goes into a leaf, and groups beside it have controllers."""
    if os.geteuid() != 0:
        pytest.skip("only root makes control groups here")
    top, controller = one_of_second()
    (top / "cgroup.subtree_control").write_text(f"+{controller}")
    own = top / f"hyper-test-{name_of(tmp_path)}"
    own.mkdir()
    script = f"""
import os, sys
from pathlib import Path
from hypercontainer.jail import hierarchies, host_groups
from hypercontainer.jail.control_groups import Budget
hierarchies.WANTED = ("{controller}",)
run, own = Path("{tmp_path}"), Path("{own}")
(own / "cgroup.procs").write_text(str(os.getpid()))
for round in range(2):  # the second one is a daemon that was started in the leaf
    groups = host_groups.HostGroups(run)
    assert [h.version for h in groups.hierarchies] == [2], groups.troubles
    assert groups.hierarchies[0].group == own / "hyper" / host_groups.name_of(run)
    assert (own / "daemon/cgroup.procs").read_text().split() == [str(os.getpid())]
group = groups.make("one.1", Budget())
assert (group.directories[0] / "{controller}.events").exists() or "{controller}" in (
    group.directories[0] / "cgroup.controllers").read_text()
group.remove()
"""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    finally:
        for path in (own / "hyper" / name_of(tmp_path), own / "hyper", own / "daemon", own):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()


def test_in_version_2_others_stay_where_they_are(tmp_path: Path) -> None:
    """With processes of others in hyperd's own group there are no groups, and it is told."""
    if os.geteuid() != 0:
        pytest.skip("only root makes control groups here")
    top, controller = one_of_second()
    (top / "cgroup.subtree_control").write_text(f"+{controller}")
    own = top / f"hyper-test-{name_of(tmp_path)}"
    own.mkdir()
    other = subprocess.Popen(["sleep", "1000"])
    (own / "cgroup.procs").write_text(str(other.pid))
    script = f"""
import os
from pathlib import Path
from hypercontainer.jail import hierarchies, host_groups
hierarchies.WANTED = ("{controller}",)
(Path("{own}") / "cgroup.procs").write_text(str(os.getpid()))
groups = host_groups.HostGroups(Path("{tmp_path}"))
assert groups.hierarchies == []
assert "other programs are in hyperd's own group" in groups.troubles[0], groups.troubles
"""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert (own / "cgroup.procs").read_text().split() == [str(other.pid)]
    finally:
        other.kill()
        other.wait()
        own.rmdir()
