# SPDX-License-Identifier: Apache-2.0
"""What a real pod uses, while hyperd is killed and comes again."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from pathlib import Path

from .conftest import Daemon, launched, wait_for

RUNS = "date +%s; while :; do sleep 0.1; done"


def usage(daemon: Daemon) -> dict[str, int]:
    """Milliseconds of pods and ended runs, by their sizes."""
    rows = json.loads(daemon.out("usage", "--since", "24h", "--by", "size", "--format", "json"))["rows"]
    return {f"{row['size']} {key}": row[key] for row in rows if row["kind"] == "pod" for key in ("quantity", "starts")}


def test_use_is_the_difference_of_events_over_a_kill_of_hyperd(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        settings = tmp_path / "hyperd.toml"
        settings.write_text("metering = true\n")
        options = ("--config", str(settings))
        with launched(tmp_path / "root", *options, run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl("run", "-d", "--size", "S2", "--name", "box", "busybox", "sh", "-c", RUNS)
            wait_for(lambda: daemon.out("logs", "box") != "", "output")
            first = usage(daemon)["S2 quantity"]
            daemon.stop(signal.SIGKILL)
        killed = time.monotonic()
        with launched(tmp_path / "root", *options, run=Path(run)) as daemon:
            wait_for(lambda: daemon.out("inspect", "-f", "{{.State.Status}}", "box") == "running", "it goes on")
            away = (time.monotonic() - killed) * 1000
            later = usage(daemon)["S2 quantity"]
            assert later - first >= away  # it ran, and was counted, while no hyperd was there
            daemon.ctl("rm", "-f", "box")
            events = [json.loads(line) for line in daemon.out("events", "--since", "1h", "--until", "0s", "--format",
                                                              "json").splitlines()]  # fmt: skip
            at = {e["action"]: e["timeNano"] for e in events if e["type"] == "container"}
            found = usage(daemon)
            assert found["S2 starts"] == 1
            # Its machine is there a little before the program begins, and after it has ended.
            assert found["S2 quantity"] >= (at["die"] - at["start"]) // 10**6 - 1
            assert found == usage(daemon)
            assert daemon.out("usage", "--check").endswith("entries")
