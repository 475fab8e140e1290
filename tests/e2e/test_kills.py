# SPDX-License-Identifier: Apache-2.0
"""hyperd killed at any instant, again and again: what runs goes on, and nothing is without an owner."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.vm.conftest import machines

from .conftest import Daemon, launched, wait_for

KILLS = int(os.environ.get("HYPER_TEST_KILLS", "10"))


def _count(daemon: Daemon, name: str) -> int:
    last = daemon.out("logs", "--tail", "1", name)
    return int(last.split()[-1]) if last else -1


@pytest.mark.parametrize(("sig", "options"), [(signal.SIGKILL, ()), (signal.SIGTERM, ("--live-restore",))])
def test_output_is_whole_over_kills_in_a_row(tmp_path: Path, sig: signal.Signals, options: tuple[str, ...]) -> None:
    script = "i=0; while ! test -e /go; do echo line $i; i=$((i+1)); done; exit 8"
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        with launched(tmp_path / "root", *options, run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl("run", "-d", "--name", "counter", "busybox", "sh", "-c", script)
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
            daemon.ctl("exec", "counter", "touch", "/go", check=False)  # it may be killed with the container, which ends by it
            assert daemon.out("wait", "counter") == "8"
            lines = daemon.out("logs", "counter").splitlines()
            assert len(lines) > seen and lines == [f"line {n}" for n in range(len(lines))]
            daemon.ctl("rm", "counter")
            wait_for(lambda: machines(Path(run)) == [], "the end of the VM")
