# SPDX-License-Identifier: Apache-2.0
"""Snapshots of volumes by the installed commands, on a virtual machine."""

from __future__ import annotations

import json

from .conftest import Daemon


def test_kept_and_made_anew_while_a_container_writes(hyper: Daemon) -> None:
    hyper.out("volume", "create", "--size", "64m", "snapped")
    hyper.out("run", "-d", "--name", "writer", "-v", "snapped:/d", "busybox", "sleep", "1000")
    hyper.out("exec", "writer", "sh", "-c", "echo first >/d/file")
    id_ = hyper.out("volume", "snapshot", "create", "-n", "monday", "-l", "a=b", "snapped")
    hyper.out("exec", "writer", "sh", "-c", "echo second >/d/file")
    assert "monday" in hyper.out("volume", "snapshot", "ls", "-q").split()
    assert hyper.out("volume", "snapshot", "ls", "-q", "-f", "volume=snapped", "-f", "label=a=b") == "monday"
    assert hyper.out("volume", "snapshot", "ls", "-q", "-f", "volume=snap") == ""
    (about,) = json.loads(hyper.out("volume", "snapshot", "inspect", "monday"))
    told = about["id"], about["volume"], about["manner"], about["labels"]
    assert told == (id_, "snapped", "frozen", {"a": "b"}) and about["diskUsage"] > 0
    assert "Volume Snapshots" in hyper.out("system", "df")
    hyper.out("rm", "-f", "writer")
    hyper.out("volume", "rm", "snapped")
    assert hyper.out("volume", "create", "--from", "monday", "anew") == "anew"
    assert hyper.out("run", "--rm", "-v", "anew:/d", "busybox", "cat", "/d/file") == "first"
    failures = {
        ("volume", "create", "--from", "monday", "anew"): "volume anew exists",
        ("volume", "create", "--from", "tuesday", "more"): "no such snapshot of a volume: tuesday",
        ("volume", "create", "--from", "monday", "-s", "32m", "more"): "the snapshot monday has another size",
        ("volume", "snapshot", "create", "nothing"): "no such volume: nothing",
        ("volume", "snapshot", "create", "-n", "monday", "anew"): "the name 'monday' is taken",
    }
    for command, why in failures.items():
        failed = hyper.ctl(*command, check=False)
        assert failed.returncode == 1 and failed.stderr.startswith(f"hyperctl: {why}"), failed.stderr
    hyper.out("volume", "snapshot", "rm", "monday")
    hyper.out("volume", "rm", "anew")
    assert json.loads(hyper.out("volume", "snapshot", "ls", "--format", "json")) == []
