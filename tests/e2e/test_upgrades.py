# SPDX-License-Identifier: Apache-2.0
"""hyperd is upgraded under a pod that runs, from the states that earlier hyperds left behind (`tests/upgrades`).

From the earliest and the last of them; with HYPER_TEST_UPGRADES=1 from all, as `make upgrades` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import tempfile
from pathlib import Path

from hypercontainer.state.migrations import SCHEMA
from tests import upgrades

from .conftest import launched, wait_for
from .test_wedged import machine_of

STATES = upgrades.kept() if "HYPER_TEST_UPGRADES" in os.environ else upgrades.kept()[:: len(upgrades.kept()) - 1]


def test_under_a_running_pod(tmp_path: Path) -> None:
    """One machine, which is taken up from each of them; its output is whole in the end, and its policy goes on."""
    root = tmp_path / "root"
    settings = 'jail = "off"\ncontrol_groups = "off"\naccelerator = "tcg"\n'  # as the earliest of them had no jail
    (tmp_path / "hyperd.toml").write_text(settings)
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        options = ("--no-factory", "--config", str(tmp_path / "hyperd.toml"))
        with launched(root, *options, run=Path(run)) as daemon:
            upgrades.scenario(daemon)
            pid = machine_of(daemon, "x")
            daemon.stop(signal.SIGKILL)
        for path in STATES:
            state = json.loads(path.read_text())
            upgrades.put(state, root, Path(run))
            with launched(root, *options, run=Path(run)) as daemon:
                assert machine_of(daemon, "x") == pid, path.name
                assert daemon.out("volume", "ls", "-q") == "data" and "backend" in daemon.out("network", "ls"), (
                    path.name
                )
                assert daemon.out("inspect", "-f", "{{.state.exitCode}}", "old") == "3", path.name
                said = len(daemon.out("logs", "x").splitlines())
                longer = lambda: len(daemon.out("logs", "x").splitlines()) > said  # noqa: B023, E731
                wait_for(longer, f"output, from {path.name}")
                if path != STATES[-1]:
                    daemon.stop(signal.SIGKILL)
                    continue
                daemon.ctl("exec", "x", "touch", "/go", check=False)  # it may be killed with the container
                wait_for(lambda: daemon.out("inspect", "-f", "{{.state.restartCount}}", "x") != "0", "its policy")
                lines = daemon.out("logs", "x").splitlines()
                assert len(lines) > said and lines == [f"line {n}" for n in range(len(lines))]
                daemon.ctl("rm", "-f", "x", "old")
                daemon.ctl("volume", "rm", "data")
            with contextlib.closing(sqlite3.connect(root / "state.db")) as db:
                assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
