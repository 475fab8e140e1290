# SPDX-License-Identifier: Apache-2.0
"""Where control groups are on the three kinds of hosts, and what is written to limit one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.hyperd.config import load
from hypercontainer.jail.control_groups import Budget
from hypercontainer.jail.hierarchies import Hierarchy, IoLimits, count, find, io_values, switched_on, values, whole_disk
from hypercontainer.sys.confine import entrance

ALL = ("cpu", "cpuacct", "memory", "pids", "blkio")
FIRST = """\
30 20 0:26 / {top}/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
31 20 0:27 / {top}/memory rw,nosuid - cgroup cgroup rw,memory
32 20 0:28 / {top}/pids rw,nosuid - cgroup cgroup rw,pids
33 20 0:29 / {top}/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
"""
SECOND = "40 20 0:30 / {top}/{unified} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def second(top: Path, controllers: str, group: str = "") -> Path:
    path = top / group
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    return path


def test_version_1(tmp_path: Path) -> None:
    own = "9:name=systemd:/\n4:cpu,cpuacct:/a\n3:pids:/\n2:memory:/b/c\n0::/\n"
    found = find(own, FIRST.format(top=tmp_path), "hyper")
    assert found == [
        Hierarchy(tmp_path / "cpu,cpuacct/a", 1, ("cpu", "cpuacct")),
        Hierarchy(tmp_path / "memory/b/c", 1, ("memory",)),
        Hierarchy(tmp_path / "pids", 1, ("pids",)),
    ]
    tops = [h.group for h in find(own, FIRST.format(top=tmp_path), "/machines/hyper")]
    assert tops == [tmp_path / "cpu,cpuacct", tmp_path / "memory", tmp_path / "pids"]


def test_version_2(tmp_path: Path) -> None:
    group = second(tmp_path, "cpuset cpu io memory hugetlb pids", "system.slice/hyperd.service")
    text = SECOND.format(top=tmp_path, unified="")
    found = find("0::/system.slice/hyperd.service\n", text, "hyper")
    assert found == [Hierarchy(group, 2, ("cpu", "memory", "pids", "blkio"))]
    assert switched_on(found[0]) == "+cpu +memory +pids +io"


def test_both_versions_each_controller_in_one(tmp_path: Path) -> None:
    """This is a hybrid host whose second hierarchy has what the first has not."""
    second(tmp_path / "unified", "io hugetlb")
    text = SECOND.format(top=tmp_path, unified="unified") + FIRST.format(top=tmp_path)
    found = find("4:cpu,cpuacct:/\n3:pids:/\n2:memory:/\n0::/\n", text, "hyper")
    assert [(h.version, h.controllers) for h in found] == [
        (1, ("cpu", "cpuacct")), (1, ("memory",)), (1, ("pids",)), (2, ("blkio",)),
    ]  # fmt: skip


def test_a_hybrid_host_whose_second_hierarchy_has_nothing_for_us(tmp_path: Path) -> None:
    second(tmp_path / "unified", "hugetlb")
    assert find("0::/\n", SECOND.format(top=tmp_path, unified="unified"), "hyper") == []


def test_in_a_container_that_sees_its_own_part(tmp_path: Path) -> None:
    """Without a namespace of control groups the mount begins at the container's group."""
    text = f"30 20 0:26 /docker/1 {tmp_path}/memory ro,nosuid - cgroup cgroup rw,memory\n"
    assert find("2:memory:/docker/1\n", text, "hyper")[0].group == tmp_path / "memory"
    assert find("2:memory:/docker/1/sub\n", text, "hyper")[0].group == tmp_path / "memory/sub"
    assert find("2:memory:/another\n", text, "hyper") == []  # it is outside of what is mounted
    assert find("2:memory:/../x\n", text.replace(" /docker/1 ", " / "), "hyper") == []


def test_a_place_with_a_space(tmp_path: Path) -> None:
    text = f"30 20 0:26 / {tmp_path}/a\\040b rw - cgroup cgroup rw,pids\n"
    assert find("3:pids:/\n", text, "hyper")[0].group == tmp_path / "a b"


def test_what_is_written() -> None:
    budget = Budget(cpus=1.5, memory=1 << 30, tasks=64)
    assert values(budget, Hierarchy(Path("g"), 1, ALL)) == [
        ("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000"), ("memory.limit_in_bytes", str(1 << 30)),
        ("pids.max", "64"),
    ]  # fmt: skip
    assert values(budget, Hierarchy(Path("g"), 2, ALL)) == [
        ("cpu.max", "150000 100000"), ("memory.max", str(1 << 30)), ("pids.max", "64"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "first", "second"), [(1, "1024", "100"), (8, "8192", "800"), (0.5, "512", "50"), (0.001, "2", "1"),
                                   (1000, "262144", "10000")],
)  # fmt: skip
def test_a_share_of_a_busy_host(share: float, first: str, second: str) -> None:
    assert values(Budget(share=share), Hierarchy(Path("g"), 1, ALL)) == [("cpu.shares", first)]
    assert values(Budget(share=share), Hierarchy(Path("g"), 2, ALL)) == [("cpu.weight", second)]
    assert values(Budget(share=share), Hierarchy(Path("g"), 2, ("memory",))) == []


def test_what_is_not_asked_for_is_not_written() -> None:
    assert values(Budget(cpus=0.001), Hierarchy(Path("g"), 2, ALL)) == [("cpu.max", "1000 100000")]  # the least
    assert values(Budget(memory=1), Hierarchy(Path("g"), 1, ("pids",))) == []
    no_limit = Budget(cpus=0, memory=0, tasks=0)
    assert [v for _, v in values(no_limit, Hierarchy(Path("g"), 1, ALL))] == ["100000", "-1", "-1", "max"]
    assert [v for _, v in values(no_limit, Hierarchy(Path("g"), 2, ALL))] == ["max 100000", "max", "max"]


def test_input_and_output() -> None:
    io = IoLimits(weight=50, rate=10 << 20, device="8:0")
    assert io_values(io, Hierarchy(Path("g"), 1, ALL)) == [
        ("blkio.bfq.weight", "50"), ("blkio.throttle.read_bps_device", "8:0 10485760"),
        ("blkio.throttle.write_bps_device", "8:0 10485760"),
    ]  # fmt: skip
    assert io_values(io, Hierarchy(Path("g"), 2, ALL)) == [
        ("io.weight", "default 50"), ("io.max", "8:0 rbps=10485760 wbps=10485760"),
    ]  # fmt: skip
    assert io_values(io, Hierarchy(Path("g"), 2, ("cpu",))) == io_values(IoLimits(), Hierarchy(Path("g"), 2, ALL)) == []


def test_the_disk_of_a_partition(tmp_path: Path) -> None:
    number = os.stat(tmp_path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    assert whole_disk(tmp_path, tmp_path) == ""
    (tmp_path / "vda/vda1").mkdir(parents=True)
    (tmp_path / "vda/dev").write_text("254:0\n")
    (tmp_path / "vda/vda1/dev").write_text("254:1\n")
    (tmp_path / name).symlink_to("vda/vda1")
    assert whole_disk(tmp_path, tmp_path) == "254:1"
    (tmp_path / "vda/vda1/partition").write_text("1\n")
    assert whole_disk(tmp_path, tmp_path) == "254:0"


def test_processes_that_had_no_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert count(tmp_path, Hierarchy(tmp_path, 1, ("memory",))) == 2
    assert count(tmp_path, Hierarchy(tmp_path, 2, ("memory",))) == 1


def test_the_file_that_takes_no_lock(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    assert entrance(tmp_path).name == "cgroup.procs"
    (tmp_path / "tasks").touch()
    assert entrance(tmp_path).name == "tasks"


@pytest.mark.parametrize("parent", ["", "/", "a//b", "../a", "a/..", "a b"])
def test_a_parent_that_is_none(parent: str) -> None:
    with pytest.raises(InvalidArgument, match="control_group_parent"):
        load(None, {"control_group_parent": parent})


def test_settings(tmp_path: Path) -> None:
    config = load(None, {"control_group_parent": "/machines/hyper", "io_rate": "10m"})
    assert (config.control_group_path, config.io_bytes) == ("/machines/hyper", 10 << 20)
    with pytest.raises(InvalidArgument):
        load(None, {"io_rate": "fast"})
