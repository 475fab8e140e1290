# SPDX-License-Identifier: Apache-2.0
"""The disk of hyperd's state is full, then it has space again.

Every verb answers, and nothing is lost but what could not be written.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Daemon, launched, wait_for

LIMIT = 30.0  # seconds for a verb on a loaded machine


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


def _fill(disk: Path) -> Path:
    """Not a byte is free."""
    path = disk / "fill"
    with open(path, "wb", buffering=0) as f, contextlib.suppress(OSError):
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    f.write(bytes(size))
    stat = os.statvfs(disk)
    assert stat.f_bavail == 0
    return path


def _status(daemon: Daemon, name: str) -> str:
    return daemon.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)


@pytest.mark.turns(3)
def test_a_full_disk_and_space_again(disk: Path) -> None:
    with launched(disk / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        end = "trap 'exit 3' USR1; echo up; while :; do sleep 0.1; done"
        for name in ("ends", "stops", "goes", "lives"):
            daemon.ctl("run", "-d", "--name", name, "busybox", "sh", "-c", end)
        daemon.ctl("run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", end)
        for name in ("ends", "stops", "goes", "lives", "again"):
            wait_for(lambda: daemon.out("logs", name) == "up", f"{name} up")  # noqa: B023
            daemon.ctl("exec", name, "sync")  # a guest that writes when there is no space stands still until there is
        fill = _fill(disk)
        daemon.ctl("kill", "-s", "USR1", "ends")
        assert daemon.out("wait", "ends") == "3"
        wait_for(lambda: _status(daemon, "ends") == "exited 3", "the end of what ended")
        daemon.ctl("stop", "-t", "1", "stops")
        daemon.ctl("rm", "-f", "goes")
        assert "goes" not in daemon.out("ps", "-a") and daemon.out("exec", "lives", "echo", "hello") == "hello"
        before = daemon.out("inspect", "-f", "{{.State.StartedAt}}", "again")
        daemon.ctl("kill", "-s", "USR1", "again")
        wait_for(lambda: daemon.out("inspect", "-f", "{{.State.StartedAt}}", "again") != before, "the restart", LIMIT)
        _fill(disk)  # what was removed may have made room
        full = daemon.ctl("run", "--name", "refused", "busybox", "true", check=False)
        assert full.returncode == 125 and "no space left" in full.stderr
        assert "refused" not in daemon.out("ps", "-a")
        fill.unlink()

        def written() -> bool:
            checks = json.loads(daemon.ctl("doctor", "--format", "json", check=False).stdout)
            return [c["status"] for c in checks if c["name"] == "state"] == ["ok"]

        wait_for(written, "the records", LIMIT)
        assert daemon.out("run", "--rm", "busybox", "echo", "fine") == "fine"
        assert daemon.out("exec", "lives", "echo", "hello") == "hello"
    with launched(disk / "root") as daemon:
        assert _status(daemon, "ends") == "exited 3"
        assert _status(daemon, "stops").startswith("exited") and _status(daemon, "lives").startswith("exited")
        assert "goes" not in daemon.out("ps", "-a")
        daemon.remove_all()


@pytest.mark.turns(3)
def test_a_daemon_ends_on_a_full_disk(disk: Path) -> None:
    with launched(disk / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "box", "busybox", "sleep", "1000")
        fill = _fill(disk)
        daemon.stop()
        assert daemon.process.returncode == 0
        fill.unlink()
    with launched(disk / "root") as daemon:
        assert _status(daemon, "box").startswith("exited")
        daemon.remove_all()


@pytest.mark.turns(3)
def test_a_guest_that_fills_the_hosts_disk(disk: Path) -> None:
    """Its neighbours and the daemon go on; it does so itself when there is space again."""
    with launched(disk / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "neighbour", "busybox", "sleep", "1000")
        daemon.ctl("run", "-d", "--name", "greedy", "busybox", "sh", "-c", "cat /dev/zero > /fill; sleep 1000")
        wait_for(lambda: os.statvfs(disk).f_bavail < 64, "a full disk")
        assert daemon.out("exec", "neighbour", "echo", "hello") == "hello"
        daemon.ctl("run", "--rm", "busybox", "true", check=False)  # it may be refused, and returns
        daemon.ctl("stop", "-t", "1", "neighbour")
        assert _status(daemon, "neighbour").startswith("exited")
        daemon.ctl("rm", "-f", "greedy")
        wait_for(lambda: os.statvfs(disk).f_bavail > 10000, "space")
        assert daemon.out("run", "--rm", "busybox", "echo", "fine") == "fine"
        daemon.remove_all()
