# SPDX-License-Identifier: Apache-2.0
"""hyperd killed at any instant, again and again: what runs goes on, and nothing is without an owner.

`make storms` asks for more kills in a row than the suite.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.vm.conftest import machines

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for

KILLS = int(os.environ.get("HYPER_TEST_KILLS", "4"))


def _count(daemon: Daemon, name: str) -> int:
    last = daemon.out("logs", "--tail", "1", name)
    return int(last.split()[-1]) if last else -1


@pytest.mark.turns(2)
@pytest.mark.parametrize(("sig", "options"), [(signal.SIGKILL, ()), (signal.SIGTERM, ("--live-restore",))])
def test_output_is_whole_over_kills_in_a_row(tmp_path: Path, sig: signal.Signals, options: tuple[str, ...]) -> None:
    script = "i=0; while ! test -e /go; do echo line $i; i=$((i+1)); done; exit 8"
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        with launched(tmp_path / "root", *options, run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl("run", "-d", "--name", "counter", "--log-opt", "max-size=1g", "busybox", "sh", "-c", script)
            wait_for(lambda: _count(daemon, "counter") > 0, "output")
            daemon.stop(sig)
        seen = 0
        for n in range(KILLS - 1):
            with launched(tmp_path / "root", *options, run=Path(run)) as daemon:
                assert daemon.out("inspect", "-f", "{{.State.Status}}", "counter") == "running", f"after {n + 1} kills"
                wait_for(lambda before=seen: _count(daemon, "counter") > before, "further output")  # type: ignore[misc]
                seen = _count(daemon, "counter")
                daemon.stop(sig)
        with launched(tmp_path / "root", *options, run=Path(run)) as daemon:
            daemon.ctl(
                "exec", "counter", "touch", "/go", check=False
            )  # it may be killed with the container, which ends by it
            assert daemon.out("wait", "counter") == "8"
            lines = daemon.out("logs", "counter").splitlines()
            assert len(lines) > seen and lines == [f"line {n}" for n in range(len(lines))]
            daemon.ctl("rm", "counter")
            wait_for(lambda: machines(Path(run)) == [], "the end of the VM")


def _busy(daemon: Daemon, n: int) -> list[subprocess.Popen[bytes]]:
    """Clients that start, run and remove at once."""
    work = (
        ("run", "--rm", "busybox", "true"), ("run", "-d", "--name", f"stays{n}", "busybox", "sleep", "1000"),
        ("run", "--rm", "--network", "none", "busybox", "sleep", "1000"), ("rm", "-f", f"stays{n - 1}"),
        ("run", "--rm", "-m", "64m", "busybox", "true"),
    )  # fmt: skip
    null = subprocess.DEVNULL
    return [
        subprocess.Popen([BIN / "hyperctl", *w], env=daemon.environment, stdin=null, stdout=null, stderr=null)
        for w in work
    ]


def test_kills_at_any_instant_leave_nothing_without_an_owner(tmp_path: Path) -> None:
    """Machines that were about to start, wait in the pool or end; records and files half made, or half removed."""
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        for n in range(KILLS):
            with launched(tmp_path / "root", run=Path(run)) as daemon:
                if n == 0:
                    daemon.ctl("pull", "-q", "builtin:busybox")
                clients = _busy(daemon, n)
                # Another instant each time, the last a late one.
                deadline = time.monotonic() + 2.0 * n / max(1, KILLS - 1)
                wait_for(lambda: time.monotonic() > deadline, "the instant")  # noqa: B023
                daemon.stop(signal.SIGKILL)
                for client in clients:
                    client.wait(DEADLINE)
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            daemon.world.check()
            listed = daemon.out("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()
            assert listed and not [line for line in listed if "Created" in line], listed  # each was to be started
            daemon.remove_all()
            daemon.world.check()
        assert machines(Path(run), factory=True) == []
