# SPDX-License-Identifier: Apache-2.0
"""How long a file may be that a hypervisor writes to."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.driver import Disk, MachineConfig, RbdDisk
from hypercontainer.hypervisor.qemu import confinement
from hypercontainer.hypervisor.qemu.confinement import largest_file
from hypercontainer.hypervisor.qemu.machine import QemuMachine

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


def test_a_longer_disk_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(GIB, GIB)]

    def prlimit(pid: int, which: int, new: tuple[int, int] | None = None) -> tuple[int, int]:
        assert (pid, which) == (7, resource.RLIMIT_FSIZE)
        if new:
            limits.append(new)
        return limits[-1]

    monkeypatch.setattr(resource, "prlimit", prlimit)
    machine = QemuMachine(tmp_path, 7, 0, "tcg")
    for further in (disk(tmp_path, GIB // 2), disk(tmp_path, 3 * GIB), disk(tmp_path, GIB, format_="qcow2")):
        machine._let_write([further])
    assert [hard for _, hard in limits] == [GIB, 3 * GIB, resource.RLIM_INFINITY]


def test_a_longer_disk_that_may_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prlimit(pid: int, which: int, new: tuple[int, int] | None = None) -> tuple[int, int]:
        if new:
            raise PermissionError(1, "Operation not permitted")
        return GIB, GIB

    monkeypatch.setattr(resource, "prlimit", prlimit)
    with pytest.raises(Unavailable, match="write to a disk of this size"):
        QemuMachine(tmp_path, 7, 0, "tcg")._let_write([disk(tmp_path, 3 * GIB)])
