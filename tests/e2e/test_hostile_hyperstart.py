# SPDX-License-Identifier: Apache-2.0
"""A guest whose init breaks the protocol in every way that tests/hostile knows: that pod ends or can be ended,
hyperd answers and does not grow, and its neighbour feels nothing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hostile

from .conftest import BIN, Daemon, launched, wait_for

_GROWTH = 32 << 20  # bytes of hyperd's memory that a guest may cost
_BOOT = 20  # seconds that hyperd waits for a guest
_PATIENCE = 8.0  # seconds for a guest that does nothing any more
_TIME = 1.0  # seconds that a guest has for what it does once its container runs


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that boots each machine, and a container on it from before any guest was hostile."""
    root = tmp_path_factory.mktemp("hostile") / "root"
    with launched(root, "--no-factory", "--boot-timeout", str(_BOOT)) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "neighbour", "--network", "none", "busybox", "sleep", "100000")
        yield daemon
        daemon.remove_all()


@pytest.fixture
def initramfs(hyper: Daemon) -> Iterator[Path]:
    """The file that hyperd boots guests with; what it was is put back."""
    [path] = hyper.root.rglob("initramfs-*.cpio")
    kept = path.read_bytes()
    yield path
    path.write_bytes(kept)


def memory(daemon: Daemon) -> int:
    """Bytes that hyperd holds."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def replace(path: Path, data: bytes) -> None:
    """A machine that boots has the old file open."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def test_the_double_does_what_a_guest_does(hyper: Daemon, initramfs: Path) -> None:
    """Of which the other tests say what goes wrong."""
    replace(initramfs, hostile.initramfs_of(0))
    hyper.ctl("run", "-d", "--name", "honest", "--network", "none", "busybox", "true")
    assert hyper.out("inspect", "-f", "{{.state.status}}", "honest") == "running"
    hyper.ctl("kill", "honest")
    wait_for(lambda: hyper.out("inspect", "-f", "{{.state.status}}", "honest") == "exited", "its end")
    assert hyper.out("inspect", "-f", "{{.state.exitCode}}", "honest") == "137"
    hyper.ctl("rm", "honest")


@pytest.mark.parametrize("name", [n for n in hostile.CASES if n != "nothing wrong"])
def test_a_guest_that(hyper: Daemon, initramfs: Path, name: str) -> None:
    replace(initramfs, hostile.initramfs_of(hostile.CASES[name]))
    before = memory(hyper)
    command = [BIN / "hyperctl", "run", "--name", "x", "--network", "none", "busybox", "true"]
    with subprocess.Popen(command, env=hyper.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as run:  # fmt: skip
        end = time.monotonic() + _PATIENCE
        began = 0.0
        while run.poll() is None and time.monotonic() < end:
            hyper.ctl("version")  # hyperd answers whatever the guest does
            status = hyper.ctl("inspect", "-f", "{{.state.status}}", "x", check=False).stdout.strip()
            if status == "running":
                began = began or time.monotonic()
                if time.monotonic() - began > _TIME:
                    break
        hyper.ctl("rm", "-f", "x", check=False)
        assert run.wait(15) not in (0, None)
        assert run.stderr
        words = run.stderr.read().decode()
    assert "Traceback" not in words and "internal" not in words.lower(), words
    assert memory(hyper) - before < _GROWTH
    assert hyper.out("exec", "neighbour", "echo", "well") == "well"
    wait_for(lambda: not hyper.ctl("inspect", "x", check=False).stdout.strip("[]\n "), "the container's end")
