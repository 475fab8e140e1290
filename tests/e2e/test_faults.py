# SPDX-License-Identifier: Apache-2.0
"""What becomes of a container whose virtual machine dies, or whose disks and memory fail: the table of docs/faults.md.

Machines that hang are test_wedged.py's, a full disk of the host test_full_disk.py's, and floods of the console
tests/vm/test_consoles.py's.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import hostile
from tests.unit.layouts import Maker

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for
from .test_hostile_hyperstart import initramfs_of_host, replace
from .test_wedged import machine_of

_SCRATCH = 64 << 20  # bytes that a container may write
_ENDED = "the virtual machine ended unexpectedly"
_LOST = 255  # the exit status of a program whose end nobody has seen
_LIMIT = 3 << 30  # bytes of addresses that QEMU may have where memory is short


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that boots each machine, and a container to which nothing happens."""
    tmp = tmp_path_factory.mktemp("faults")
    (tmp / "hyperd.toml").write_text(f'scratch_size = "{_SCRATCH >> 20}m"\n')
    with launched(tmp / "root", "--no-factory", "--config", str(tmp / "hyperd.toml")) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "neighbour", "busybox", "sleep", "100000")
        yield daemon
        daemon.remove_all()


@pytest.fixture(autouse=True)
def unhurt(hyper: Daemon) -> Iterator[None]:
    """After each fault the neighbour is well, and nothing is left."""
    pid = machine_of(hyper, "neighbour")
    yield
    hyper.ctl("rm", "-f", "x", check=False)
    assert hyper.out("exec", "neighbour", "echo", "well") == "well" and machine_of(hyper, "neighbour") == pid
    hyper.world.check()


def ends(hyper: Daemon, name: str) -> list[dict[str, str]]:
    """What events tell of its ends."""
    told = hyper.out("events", "--since", "1h", "--until", "--format", "json", "-f", "event=die").splitlines()
    found = [e["attributes"] for e in map(json.loads, told) if e["id"] == hyper.out("inspect", "-f", "{{.id}}", name)]
    return found


def told_of(hyper: Daemon, disk: str) -> bool:
    """Whether events tell of requests to this disk that failed; hyperd looks every ten seconds."""
    words = ("events", "--since", "1h", "--until", "--format", "json", "-f", "event=disk_error")
    found = [json.loads(line)["attributes"] for line in hyper.out(*words).splitlines()]
    return any((e["name"], e["disk"]) == ("x", disk) and int(e["failed"]) > 0 for e in found)


def state(hyper: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hyper.out("inspect", name))[0]["state"]
    return found


def _kill(hyper: Daemon) -> None:
    os.kill(machine_of(hyper, "x"), signal.SIGKILL)


def _panic(hyper: Daemon) -> None:
    hyper.ctl("exec", "x", "sh", "-c", "echo c > /proc/sysrq-trigger", check=False)


@pytest.mark.parametrize(
    ("strike", "says"), [(_kill, _ENDED), (_panic, "Kernel panic - not syncing: sysrq triggered crash")],
    ids=["hypervisor killed", "kernel panics"],
)  # fmt: skip
def test_a_machine_that_dies(hyper: Daemon, strike: Callable[[Daemon], None], says: str) -> None:
    """Its container is started again as its policy says, and is then as it was left."""
    hyper.ctl("run", "-d", "--name", "x", "--privileged", "--restart", "on-failure:1", "busybox", "sleep", "1000")
    strike(hyper)
    wait_for(lambda: state(hyper, "x")["restartCount"] == 1 and state(hyper, "x")["status"] == "running", "its restart")
    strike(hyper)
    assert hyper.out("wait", "x") == str(_LOST)
    wait_for(lambda: state(hyper, "x")["status"] == "exited", "its end")
    left = state(hyper, "x")
    assert (left["exitCode"], left["oomKilled"]) == (_LOST, False)
    assert left["error"].startswith(_ENDED) and says in left["error"], left["error"]
    assert [e["exit_code"] for e in ends(hyper, "x")] == [str(_LOST)] * 2
    hyper.ctl("start", "x")
    assert hyper.out("exec", "x", "echo", "again") == "again"


def test_who_is_attached_to_a_machine_that_dies_hears_why(hyper: Daemon) -> None:
    command = [BIN / "hyperctl", "run", "--name", "x", "busybox", "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(command, env=hyper.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as run:  # fmt: skip
        assert run.stdout and run.stderr and run.stdout.readline() == b"up\n"
        _kill(hyper)
        assert run.wait(DEADLINE) == _LOST
        said = run.stderr.read().decode().splitlines()
    assert len(said) == 1 and said[0].startswith(f"hyperctl: {_ENDED}"), said


def test_process_1_of_the_guest_ends(hyper: Daemon) -> None:
    initramfs = initramfs_of_host(hyper)
    kept = initramfs.read_bytes()
    replace(initramfs, hostile.initramfs_of(hostile.CASES["panics"]))
    try:
        done = hyper.ctl("run", "--name", "x", "busybox", "sleep", "1000", check=False)
    finally:
        replace(initramfs, kept)
    assert done.returncode in (125, _LOST) and "Attempted to kill init" in done.stderr, done
    assert state(hyper, "x")["status"] in ("created", "exited")
    hyper.ctl("start", "x")
    assert hyper.out("exec", "x", "echo", "again") == "again"


def test_a_full_scratch_disk(hyper: Daemon) -> None:
    """The program hears of it; the host gives no more than was promised."""
    fill = "dd if=/dev/zero of=/fill bs=1M; rm /fill; sync; echo new > /new && cat /new"
    hyper.ctl("run", "-d", "--name", "x", "busybox", "sh", "-c", f"{fill}; exec sleep 1000")
    wait_for(lambda: hyper.ctl("logs", "x").stdout.endswith("new\n"), "room again")
    said = hyper.ctl("logs", "x")
    assert "No space left on device" in said.stderr and said.stdout == "new\n", said
    assert state(hyper, "x")["status"] == "running"
    id_ = hyper.out("inspect", "-f", "{{.id}}", "x")
    disk = (hyper.root / "containers" / id_ / "scratch.img").stat()
    assert disk.st_size == _SCRATCH and disk.st_blocks * 512 <= _SCRATCH + (1 << 20)


class Monitor:
    """QEMU's own, as the test's way to break a disk: https://www.qemu.org/docs/master/devel/testing/blkdebug.html."""

    def __init__(self, hyper: Daemon, name: str) -> None:
        id_ = hyper.out("inspect", "-f", "{{.id}}", name)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(20)
        self._sock.connect(str(hyper.run / "pods" / id_[:12] / "qmp.sock"))
        self._lines = self._sock.makefile()
        self._lines.readline()  # the greeting
        self.ask("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._sock.close()

    def ask(self, command: str, **arguments: object) -> Any:
        self._sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while "event" in (answer := json.loads(self._lines.readline())):
            pass
        assert "return" in answer, (command, answer)
        return answer["return"]

    def fail(self, disk: str, kind: str) -> None:
        """From now on requests of a kind, `read` or `write`, fail with EIO; `disk` begins its serial number."""
        nodes = self.ask("query-named-block-nodes")
        node = next(d["inserted"] for d in self.ask("query-block") if f"dev-{disk}" in d["qdev"])
        file = next(n for n in nodes if n["drv"] == "file" and n["file"] == node["file"])
        error = {"event": "none", "iotype": kind, "errno": 5, "immediately": True}
        self.ask("blockdev-add", **{"driver": "blkdebug", "node-name": "bad", "image": file["node-name"],
                                    "read-only": node["ro"], "inject-error": [error]})  # fmt: skip
        options = {"driver": "raw", "node-name": node["node-name"], "read-only": node["ro"], "file": "bad"}
        self.ask("blockdev-reopen", options=[{**options, "discard": "unmap"}])


@pytest.fixture
def image(hyper: Daemon, tmp_path: Path) -> Iterator[str]:
    """An image with a file that no guest has read yet."""
    (tmp_path / "big").write_bytes(os.urandom(8 << 20))
    with tarfile.open(tmp_path / "layer.tar", "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        tar.add("/bin/busybox", "bin/sh")
        tar.add(tmp_path / "big", "big")
    maker = Maker(tmp_path / "layout")
    id_ = hyper.out("pull", "-q", maker.image(maker.layer([(tmp_path / "layer.tar").read_bytes()])))
    yield id_.removeprefix("sha256:")
    hyper.ctl("rm", "-f", "x", check=False)
    hyper.ctl("rmi", id_)


def test_an_image_disk_that_cannot_be_read(hyper: Daemon, image: str) -> None:
    """The program that reads hears of it; what need not read goes on."""
    hyper.ctl("run", "-d", "--name", "x", image, "/bin/busybox", "sleep", "1000")
    with Monitor(hyper, "x") as monitor:
        monitor.fail("i", "read")
    failed = hyper.ctl("exec", "x", "/bin/busybox", "wc", "-c", "/big", check=False)
    assert failed.returncode == 1 and "Input/output error" in failed.stderr, failed
    assert state(hyper, "x")["status"] == "running" and hyper.out("exec", "x", "/bin/busybox", "echo", "on") == "on"
    wait_for(lambda: told_of(hyper, "the image of x"), "the event")
    hyper.ctl("restart", "-t", "0", "x")  # by a new machine, whose disk is the file again
    assert hyper.out("exec", "x", "/bin/busybox", "wc", "-c", "/big").split() == [str(8 << 20), "/big"]


def test_a_scratch_disk_that_cannot_be_written(hyper: Daemon) -> None:
    hyper.ctl("run", "-d", "--name", "x", "busybox", "sleep", "1000")
    with Monitor(hyper, "x") as monitor:
        monitor.fail("s", "write")
    failed = hyper.ctl("exec", "x", "sh", "-c", "echo lost > /lost; sync; echo more > /more", check=False)
    assert failed.returncode != 0 and ("Input/output error" in failed.stderr or "Read-only" in failed.stderr), failed
    assert state(hyper, "x")["status"] == "running"
    hyper.ctl("restart", "-t", "0", "x")
    assert hyper.out("exec", "x", "sh", "-c", "echo kept > /kept; cat /kept") == "kept"


def test_a_host_that_has_no_memory_for_a_machine(hyper: Daemon) -> None:
    """The start is refused with QEMU's reason; a smaller one is not."""
    before = resource.prlimit(hyper.process.pid, resource.RLIMIT_AS)
    resource.prlimit(hyper.process.pid, resource.RLIMIT_AS, (_LIMIT, before[1]))
    try:
        done = hyper.ctl("run", "--name", "x", "-m", "4g", "busybox", "true", check=False)
        assert done.returncode == 125 and "Cannot allocate memory" in done.stderr, done
        assert done.stderr.startswith("hyperctl: the virtual machine did not start: "), done.stderr
        assert "Cannot allocate memory" in state(hyper, "x")["error"]
        assert hyper.out("run", "--rm", "busybox", "echo", "small") == "small"
    finally:
        resource.prlimit(hyper.process.pid, resource.RLIMIT_AS, before)
