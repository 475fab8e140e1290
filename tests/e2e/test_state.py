# SPDX-License-Identifier: Apache-2.0
"""What outlives a daemon, and what it says of a state that it cannot read; volumes, so that no machine is needed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from .conftest import Daemon, launched


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
