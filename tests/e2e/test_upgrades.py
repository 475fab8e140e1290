# SPDX-License-Identifier: Apache-2.0
"""hyperd is upgraded under a pod that runs, from a database of an earlier schema."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import tempfile
from pathlib import Path

from hypercontainer.state.migrations import SCHEMA

from .conftest import launched, wait_for
from .test_wedged import machine_of

_EARLIER = 4  # before events were rows, and names were unique within a tenant only
_NAMED = ("containers", "pods", "volumes", "networks")
_TABLES = (*_NAMED, "unfinished", "set_aside")  # of that schema


def downgrade(path: Path) -> None:
    """What a hyperd of the earlier schema would have written: the steps of `state/migrations.py`, backwards."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            if table in _NAMED:
                db.execute("CREATE TABLE was (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, document BLOB NOT NULL)")
                db.execute(f"INSERT INTO was SELECT id, name, document FROM {table}")
            if table not in _TABLES or table in _NAMED:
                db.execute(f"DROP TABLE {table}")
            if table in _NAMED:
                db.execute(f"ALTER TABLE was RENAME TO {table}")
        db.execute(f"PRAGMA user_version={_EARLIER}")


def test_under_a_running_pod(tmp_path: Path) -> None:
    root = tmp_path / "root"
    script = "i=0; while ! test -e /go; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 8"
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        with launched(root, run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl("run", "-d", "--name", "x", "-v", "data:/data", "busybox", "sh", "-c", script)
            wait_for(lambda: "line 2" in daemon.out("logs", "x"), "output")
            pid = machine_of(daemon, "x")
            daemon.stop(signal.SIGKILL)
        downgrade(root / "state.db")
        with launched(root, run=Path(run)) as daemon:
            assert machine_of(daemon, "x") == pid and daemon.out("volume", "ls", "-q") == "data"
            daemon.ctl("exec", "x", "touch", "/go", check=False)  # it may be killed with the container
            assert daemon.out("wait", "x") == "8"
            lines = daemon.out("logs", "x").splitlines()
            assert len(lines) > 2 and lines == [f"line {n}" for n in range(len(lines))]
            daemon.ctl("rm", "x")
            daemon.ctl("volume", "rm", "data")
        assert (root / f"state.db.schema-{_EARLIER}").exists()
        with contextlib.closing(sqlite3.connect(root / "state.db")) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
