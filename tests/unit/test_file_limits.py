# SPDX-License-Identifier: Apache-2.0
"""How long a file may be that a hypervisor writes to."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.driver import Disk, MachineConfig, RbdDisk
from hypercontainer.hypervisor.qemu import confinement
from hypercontainer.hypervisor.qemu.confinement import largest_file
from hypercontainer.hypervisor.qemu.machine import QemuMachine
from hypercontainer.sys import process

GIB = 1 << 30


def disk(directory: Path, size: int, *, read_only: bool = False, format_: str = "raw") -> Disk:
    path = directory / f"{size}-{read_only}-{format_}.img"
    with open(path, "wb") as f:
        f.truncate(size)
    return Disk(path.name[:8], path, read_only, format_)


def test_the_largest_that_it_writes_to(tmp_path: Path) -> None:
    rbd = RbdDisk("r", "pool", "image", ("host:1",))
    disks = [disk(tmp_path, 9 * GIB, read_only=True), disk(tmp_path, 2 * GIB), disk(tmp_path, GIB), rbd]
    assert largest_file(disks) == 2 * GIB
    assert largest_file([]) == largest_file([disk(tmp_path, 512)]) == 256 << 20


def test_where_it_is_not_known(tmp_path: Path) -> None:
    assert largest_file([disk(tmp_path, GIB), disk(tmp_path, GIB, format_="qcow2")]) == -1
    assert largest_file([Disk("null", Path("/dev/null"), False)]) == -1


def test_one_whose_limit_could_not_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_SYS_RESOURCE a machine that takes further disks has none."""
    config = MachineConfig("m", tmp_path, 1, 1 << 28, tmp_path, tmp_path, disks=(disk(tmp_path, GIB),), expandable=True)
    limits = []
    for may in (True, False):
        monkeypatch.setattr(confinement, "_may_raise_limits", lambda may=may: may)
        order = confinement.order(("/bin/true",), config, "tcg", [], 1, jailed=False)
        limits.append(order.limits.file_size)
    assert limits == [GIB, -1]


def machine_limited_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int) -> tuple[QemuMachine, list[int]]:
    """A machine, and the limits that it has had: a hyperd with CAP_SYS_RESOURCE."""
    limits = [size]

    def prlimit(pid: int, which: int, new: tuple[int, int]) -> None:
        assert (pid, which) == (7, resource.RLIMIT_FSIZE)
        limits.append(new[1])

    monkeypatch.setattr(resource, "prlimit", prlimit)
    monkeypatch.setattr("hypercontainer.sys.process.file_size_limit", lambda _: limits[-1])
    return QemuMachine(tmp_path, 7, 0, "tcg"), limits


def test_a_longer_disk_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, limits = machine_limited_to(monkeypatch, tmp_path, GIB)
    for further in (disk(tmp_path, GIB // 2), disk(tmp_path, 3 * GIB), disk(tmp_path, GIB, format_="qcow2")):
        machine._let_write([further])
    assert limits == [GIB, 3 * GIB, resource.RLIM_INFINITY]


def test_a_longer_disk_that_may_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    machine, _ = machine_limited_to(monkeypatch, tmp_path, GIB)
    monkeypatch.setattr(resource, "prlimit", refused)
    machine._let_write([disk(tmp_path, GIB)])  # a hyperd without CAP_SYS_RESOURCE may not even ask the kernel so
    with pytest.raises(Unavailable, match="write to a disk of this size"):
        machine._let_write([disk(tmp_path, 3 * GIB)])


def test_the_limit_of_a_process() -> None:
    limited = subprocess.Popen(["prlimit", f"--fsize={GIB}", "sleep", "1000"])
    try:
        end = time.monotonic() + 60
        while process.file_size_limit(limited.pid) != GIB:
            assert time.monotonic() < end, "prlimit has not set it"
        assert process.file_size_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    finally:
        limited.kill()
        limited.wait()
    with pytest.raises(ProcessLookupError):
        process.file_size_limit(limited.pid)


def test_a_machine_that_has_ended(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    QemuMachine(tmp_path, ended.pid, 0, "tcg")._let_write([disk(tmp_path, 3 * GIB)])  # its monitor says so
