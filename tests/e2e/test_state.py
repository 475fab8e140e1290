# SPDX-License-Identifier: Apache-2.0
"""What outlives a daemon, and what it says of a state that it cannot read; volumes, so that no machine is needed."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

from .conftest import BIN, Daemon, launched


def events(daemon: Daemon, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in daemon.out("events", "--format", "json", *options).splitlines()]


def test_events_outlive_the_daemon(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with launched(root, "--no-factory") as daemon:
        daemon.ctl("volume", "create", "--driver", "directory", "one")
        daemon.ctl("volume", "create", "--driver", "directory", "two")
        first = events(daemon, "--until")
        daemon.stop(signal.SIGHUP)
    with launched(root, "--no-factory") as daemon:
        daemon.ctl("volume", "rm", "one")
        every = events(daemon, "--since", "1h", "--until")
        assert [(e["action"], e["id"]) for e in every] == [("create", "one"), ("create", "two"), ("destroy", "one")]
        assert first == every[:2]
        moments = [e["timeNano"] for e in every]
        assert moments == sorted(set(moments), key=int)  # type: ignore[arg-type]
        last = str(first[-1]["time"])
        assert events(daemon, "--after", last, "--until") == every[2:]
        assert events(daemon, "--since", last, "--until") == every[1:]
        assert events(daemon, "--until", last) == first
        assert events(daemon, "--until", "-f", "event=create", "-f", "event=destroy", "-f", "volume=one") == [
            every[0],
            every[2],
        ]
        refused = daemon.ctl("events", "--since", "yesterday", check=False)
        assert refused.returncode == 1 and "invalid time 'yesterday'" in refused.stderr


def test_a_damaged_database_is_told_and_recovered(tmp_path: Path) -> None:
    root, path = tmp_path / "root", tmp_path / "root/state.db"
    with launched(root, "--no-factory") as daemon:
        daemon.ctl("volume", "create", "--driver", "directory", "kept")
        owner = json.loads(daemon.out("volume", "inspect", "kept"))
        assert "uid:0" in json.dumps(owner) and "tenant" not in json.dumps(owner)
    broken = bytearray(path.read_bytes())
    broken[32:40] = (3).to_bytes(4, "big") + (9).to_bytes(4, "big")  # the list of free pages: a page that is in use
    path.write_bytes(broken)
    refused = subprocess.run(
        [BIN / "hyperd", "--root", root, "--run", tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    said = refused.stderr.splitlines()[-1]
    assert said.startswith(f"hyperd: cannot open the state database {path}: ")
    assert "start `hyperd --recover` to bring back what can be read and what runs" in said
    with launched(root, "--no-factory", "--recover") as daemon:
        assert daemon.out("volume", "ls", "-q") == "kept"
        assert [e["action"] for e in events(daemon, "--until")] == ["create"]
    (aside,) = root.glob("state.db.damaged-*")
    assert aside.read_bytes() == broken and str(aside) in (tmp_path / "root-hyperd.log").read_text()


def test_a_record_that_cannot_be_read_is_given_up_by_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with launched(root, "--no-factory") as daemon:
        daemon.ctl("volume", "create", "--driver", "directory", "odd")
    with contextlib.closing(sqlite3.connect(root / "state.db")) as db, db:
        db.execute("UPDATE volumes SET document='{'")
    with launched(root, "--no-factory") as daemon:
        told = daemon.ctl("doctor", check=False)
        assert told.returncode == 1 and "`hyperctl doctor --forget odd` gives it up" in told.stdout
        unknown = daemon.ctl("doctor", "--forget", "none", check=False)
        assert unknown.returncode == 1 and "no record of 'none' was set aside: see `hyperctl doctor`" in unknown.stderr
        daemon.ctl("doctor", "--forget", "odd")
        told = daemon.ctl("doctor", check=False)
        assert "--forget odd" not in told.stdout and "belong to no record: volumes/odd" in told.stdout
        assert (root / "volumes/odd/_data").is_dir()  # files stay
        shutil.rmtree(root / "volumes/odd")
