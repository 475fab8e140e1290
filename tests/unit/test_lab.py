# SPDX-License-Identifier: Apache-2.0
"""What runs on this host of the lab: with a program in the place of QEMU."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.lab import watch
from tests.lab.__main__ import command, machine, main, pack, run
from tests.lab.firecracker import take
from tests.lab.image import Image, packages, requirements

NOTHING = Image(Path("/dev/null"), Path("/dev/null"), Path("/dev/null"))


def stand_in(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU, as far as `run` sees it; it writes down its process."""
    program = path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho $$ >{path}/pid\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")


def gone(path: Path) -> bool:
    return not Path("/proc", (path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(
    ("script", "status"),
    [("printf 'lab: ended with 0\\r\\n'", 0), ("echo lab: ended with 3; sleep 0.1", 3), ("true", 98)],
)
def test_the_status_is_that_of_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], script: str, status: int
) -> None:
    stand_in(tmp_path, script, monkeypatch)
    (tmp_path / "console.log").write_text("Kernel panic\n")
    assert run(NOTHING, tmp_path, 30) == status
    assert ("Kernel panic" in capfd.readouterr().err) == (status == 98) and gone(tmp_path)


def test_the_output_is_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, "printf 'one\\r\\ntwo, without an endlab: ended with 7\\r\\n'", monkeypatch)
    assert run(NOTHING, tmp_path, 30) == 7
    assert capfd.readouterr().out == "one\ntwo, without an end"


def test_a_command_with_spaces_arrives_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By scripts/lab, with a program in the place of QEMU that shows the command."""
    shown: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["lab", "--run", "sh", "-c", "echo  a; exit 3"])
    monkeypatch.setattr("tests.lab.__main__.image", lambda kind: NOTHING)
    monkeypatch.setattr("tests.lab.__main__.pack", lambda path, command: shown.append(command))
    monkeypatch.setattr("tests.lab.__main__.run", lambda files, work, deadline, iommu: 3)
    assert main() == 3 and shown == [["sh", "-c", "echo  a; exit 3"]]


def test_firecracker_is_the_one_that_is_known(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"program").hexdigest()
    assert take(b"program", tmp_path / "firecracker", digest).stat().st_mode & 0o777 == 0o755
    with pytest.raises(ValueError, match="should have"):
        take(b"another", tmp_path / "other", digest)
    assert not (tmp_path / "other").exists()


def test_after_its_deadline_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "exec sleep 300", monkeypatch)
    begun = time.monotonic()
    assert run(NOTHING, tmp_path, 0.5) == 97  # nobody had the processor that it might have wanted
    assert time.monotonic() - begun < 60 and gone(tmp_path)


def test_the_tree_goes_in_with_what_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tmp_path / "kernel" / "0123"
    built.mkdir(parents=True)
    (built / "vmlinux").write_bytes(b"kernel")
    (built / "kernel.json").write_text('{"version": "6", "config_hash": "0"}')
    monkeypatch.setenv("HYPER_CACHE", str(tmp_path))
    monkeypatch.setattr("tests.vm.calls.build", lambda machine: built / "vmlinux")  # that takes a compiler and a minute
    monkeypatch.setattr("tests.lab.__main__.firecracker", lambda: built / "vmlinux")  # that takes the package index
    pack(tmp_path / "tree.tar", command(["-x"], shell=False))
    assert (tmp_path / "tree.tar").stat().st_size % 512 == 0
    with tarfile.open(tmp_path / "tree.tar") as tar:
        names = set(tar.getnames())
        said = tar.extractfile(".lab-command")
        assert said and b"-m pytest" in (text := said.read()) and text.endswith(b"tests/vm -x")
    assert {"tests/lab/inside", "pyproject.toml", ".lab-bin/firecracker", ".cache/kernel/0123/vmlinux"} <= names
    assert any(n.startswith("src/hypercontainer/guest/bin/hyperstart") for n in names)
    assert any(n.startswith("src/hypercontainer/jail/bin/") and "hyperjail-filter" in n for n in names)


def test_xen_is_booted_with_its_dom0(tmp_path: Path) -> None:
    xen = Image(Path("/i/disk"), Path("/i/vmlinuz"), Path("/i/initrd"), Path("/i/xen"))
    line = machine(xen, tmp_path)
    modules = line[line.index("-initrd") + 1]
    assert line[line.index("-kernel") + 1] == "/i/xen" and "+svm,+npt" in line[line.index("-cpu") + 1]
    assert modules.startswith("/i/vmlinuz root=/dev/vda ") and modules.endswith(",/i/initrd")
    assert line[line.index("-append") + 1].startswith("console=com1 ")
    other = machine(NOTHING, tmp_path)
    assert other[other.index("-cpu") + 1] == "max,erms=off,fsrm=off"
    assert "xen-utils-4.17" in packages("xen") and "xen-utils-4.17" not in packages("kvm")


def test_it_has_the_python_packages_of_the_project() -> None:
    names = {r.split(">")[0] for r in requirements()}
    assert {"aiohttp", "msgspec", "pytest", "pytest-asyncio"} <= names and "mypy" not in names


async def test_a_report_says_what_each_task_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = open(tmp_path / "out", "w+")
    monkeypatch.setattr(watch, "_OUT", out)

    async def deepest() -> None:
        await asyncio.get_running_loop().create_future()

    async def outer() -> None:
        await deepest()

    task = asyncio.create_task(outer(), name="the one that waits")
    await asyncio.sleep(0)
    await asyncio.to_thread(watch.report, "nothing moved", between=0)
    task.cancel()
    said = (tmp_path / "out").read_text()
    out.close()
    assert "nothing moved" in said and "the one that waits" in said and "deepest" in said


@pytest.mark.parametrize(
    ("statuses", "options", "status"),
    [
        ([96], "--tries 1", 96),
        ([96, 5], "--tries 2", 5),
        ([75, 0], "--tries 2", 0),
        ([97], "--tries 2 --lenient", 0),
        ([97], "--tries 2", 97),
        ([98], "--tries 2 --lenient", 0),
        ([3], "--tries 2 --lenient", 3),
        ([96, 75], "--tries 2 --lenient", 0),
        ([95], "--tries 2 --lenient", 0),
        ([95], "--tries 2", 95),
    ],
)
def test_a_run_in_which_the_emulator_hung_a_guest_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int], options: str, status: int
) -> None:
    """And no other; 75 is what a run says of itself, 95 a host that is too busy."""
    monkeypatch.setattr("tests.lab.__main__.image", lambda kind: NOTHING)
    monkeypatch.setattr("tests.lab.__main__.pack", lambda path, command: None)
    monkeypatch.setattr("tests.lab.__main__.run", lambda files, work, deadline, iommu: statuses.pop(0))
    monkeypatch.setattr(sys, "argv", ["lab", *options.split(), "--run", "true"])
    assert main() == status and not statuses


@pytest.mark.parametrize(("options", "status"), [("", 94), ("--lenient", 0)])
def test_a_machine_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], options: str, status: int
) -> None:
    """As where no mirror answers."""

    def fail(kind: str) -> Image:
        raise subprocess.CalledProcessError(1, ["mmdebstrap"])

    monkeypatch.setattr("tests.lab.__main__.image", fail)
    monkeypatch.setattr(sys, "argv", ["lab", *options.split(), "--run", "true"])
    assert main() == status
    said = capfd.readouterr().err
    assert "the machine cannot be made: Command" in said and ("inconclusive" in said) == (status == 0)
