# SPDX-License-Identifier: Apache-2.0
"""What `doctor --jail` says of a process that has more than others, since its driver takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.jail.report import NOTHING, Grants, Seen, examine

SETS = "".join(f"{name}:\t0000000000000002\n" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
STATUS = f"Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n{SETS}"
MOUNTS = """\
1 0 0:1 / / ro - tmpfs tmpfs rw
2 1 0:2 /pods/a /machine rw - tmpfs tmpfs rw
3 1 0:3 /scratch.img /disks/1 rw - ext4 /dev/vda rw
"""
TAKES = Grants(
    capabilities=frozenset({1}), places=("/machine", "/disks"), devices=frozenset({"net"}), host_network=True,
    readable=True,
)  # fmt: skip
BESIDE = ("capabilities", "namespaces", "root", "devices")


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """Its files below /proc, and those of its daemon."""
    for name in ("it", "daemon"):
        (tmp_path / name / "ns").mkdir(parents=True)
        for space in ("mnt", "pid", "ipc", "uts", "cgroup", "net"):
            (tmp_path / name / "ns" / space).symlink_to("net:[1]" if space == "net" else f"{space}:[{name}]")
    it = tmp_path / "it"
    (it / "root/machine").mkdir(parents=True)
    (it / "root/dev/net").mkdir(parents=True)
    (it / "status").write_text(STATUS)
    (it / "environ").touch()
    (it / "fd").mkdir()
    (it / "limits").write_text("Max core file size        0                    0                    bytes\n")
    (it / "cgroup").touch()
    (tmp_path / "daemon" / "cgroup").touch()
    (tmp_path / "daemon" / "mountinfo").touch()
    (it / "mountinfo").write_text(MOUNTS)
    return it


def found(process: Path, grants: Grants) -> dict[str, tuple[str, str]]:
    seen = Seen(process, process.parent / "daemon", grants)
    return {c.name.removeprefix("jail: "): (c.status, c.found) for c in examine(seen, root=True)}


def test_what_its_driver_takes_is_told_and_no_fault(process: Path) -> None:
    checks = found(process, TAKES)
    assert {checks[name][0] for name in BESIDE} == {"ok"}
    assert checks["capabilities"][1] == (
        "it has none, and can get none; but for CAP_DAC_OVERRIDE, which its driver takes"
    )
    assert "but for the host's network" in checks["namespaces"][1] and "/machine, /disks" in checks["root"][1]


def test_without_that_each_is_a_fault(process: Path) -> None:
    checks = found(process, NOTHING)
    assert {checks[name][0] for name in BESIDE} == {"fail"}


def test_more_than_that_is_a_fault(process: Path) -> None:
    (process / "status").write_text(STATUS.replace("2\n", "3\n"))
    (process / "mountinfo").write_text(MOUNTS + "4 1 0:4 / /machines rw - ext4 /dev/vda rw\n")
    (process / "root/dev/mem").touch()
    checks = found(process, TAKES)
    assert {checks[name][0] for name in ("capabilities", "root", "devices")} == {"fail"}
    assert checks["root"][1] == "it has /machines of the host" and "mem" in checks["devices"][1]
