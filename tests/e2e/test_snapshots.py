# SPDX-License-Identifier: Apache-2.0
"""Snapshots and forks by the installed commands, on a virtual machine."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Daemon, wait_for


def test_saved_forked_and_restored(hyper: Daemon, tmp_path: Path) -> None:
    """What runs in memory alone goes on in each of them; a command fails with one sentence."""
    count = "n=0; while true; do n=$((n+1)); echo $n $(hostname); usleep 200000; done"
    hyper.out("run", "-d", "--name", "parent", "busybox", "sh", "-c", count)
    wait_for(lambda: "3 " in hyper.out("logs", "parent"), "a third line")
    ids = hyper.out("pod", "fork", "-n", "2", "--name", "child", "parent").split()
    assert hyper.out("snapshot", "create", "-n", "shot", "parent")
    assert "shot" in hyper.out("snapshot", "ls", "-q").split()
    (about,) = json.loads(hyper.out("snapshot", "inspect", "shot"))
    assert about["pod"] == "parent" and 0 < about["size"] < about["memory"]
    hyper.out("rm", "-f", "parent")
    hyper.out("snapshot", "export", "-o", tmp_path / "shot", "shot")
    hyper.out("snapshot", "rm", "shot")
    assert hyper.out("snapshot", "import", "-n", "came", tmp_path / "shot")
    ids.append(hyper.out("pod", "restore", "--name", "again", "came"))
    for name, id_ in zip(("child-1", "child-2", "again"), ids, strict=True):
        wait_for(lambda n=name, i=id_: f" {i[:12]}" in hyper.out("logs", n), f"a line of {name}")  # type: ignore[misc]
        numbers = [int(line.split()[0]) for line in hyper.out("logs", name).splitlines()]
        assert numbers == list(range(1, len(numbers) + 1))
    failed = hyper.ctl("snapshot", "create", "nobody", check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("hyperctl: no such pod: nobody")
    hyper.out("snapshot", "rm", "came")
    hyper.out("rm", "-f", "child-1", "child-2", "again")
    left = {s["name"] for s in json.loads(hyper.out("snapshot", "ls", "--format", "json"))}
    assert not left & {"shot", "came"} and hyper.out("ps", "-aq") == ""


def test_suspended_and_resumed(hyper: Daemon) -> None:
    """Its program has not noticed; what cannot be done meanwhile is a sentence."""
    count = "n=0; while true; do n=$((n+1)); echo line $n; usleep 200000; done"
    id_ = hyper.out("run", "-d", "--name", "web", "busybox", "sh", "-c", count)
    wait_for(lambda: "line 3" in hyper.out("logs", "web"), "a third line")
    hyper.out("pod", "suspend", "web")
    assert "(Suspended)" in hyper.out("ps") and hyper.out("ps", "-q", "--filter", "status=suspended") == id_[:12]
    failed = hyper.ctl("exec", "web", "true", check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("hyperctl: pod web is suspended: use ")
    assert "Suspended Pods" in hyper.out("system", "df")
    hyper.out("pod", "resume", "web")
    said = hyper.out("logs", "web").count("line")
    wait_for(lambda: hyper.out("logs", "web").count("line") > said + 1, "more lines")
    numbers = [int(line.split()[1]) for line in hyper.out("logs", "web").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    hyper.out("pod", "suspend", "web")
    hyper.out("stop", "-t", "0", "web")
    assert hyper.out("inspect", "-f", "{{.State.Status}}", "web") == "exited"
    hyper.out("rm", "web")
