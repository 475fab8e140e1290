# SPDX-License-Identifier: Apache-2.0
"""Jobs by the installed command: real machines that run when they are due."""

from __future__ import annotations

import json
import subprocess

from .conftest import Daemon


def test_a_job_runs_by_its_schedule_and_by_hand(hyper: Daemon) -> None:
    hyper.ctl("cron", "create", "--name", "tick", "--schedule", "*/2 * * * * *", "--keep", "2", "busybox", "sh", "-c",
              "echo ran; exit 4")  # fmt: skip
    command = [*hyper.command, "events", "--since", "1m", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=hyper.environment) as events:
        assert events.stdout
        ended = 0
        while ended < 2:  # each of which is waited for
            event = json.loads(events.stdout.readline())
            ended += event["type"] == "cron" and event["action"] == "end"
        events.terminate()
    hyper.ctl("cron", "pause", "tick")
    job = json.loads(hyper.out("cron", "inspect", "tick"))[0]
    done = [r for r in job["runs"] if r.get("exitCode") is not None]
    assert job["paused"] and len(done) >= 2 and {r["exitCode"] for r in done} == {4}, job
    last = done[-1]
    assert hyper.out("logs", f"tick-{last['id']}") == "ran"
    assert "paused" in hyper.out("cron", "ls") and "exited (4)" in hyper.out("cron", "history", "tick")
    run = hyper.out("cron", "run", "tick")
    assert hyper.ctl("wait", f"tick-{run}", check=False).returncode in (0, 1)  # its machine may not be there yet
    hyper.ctl("cron", "rm", "--force", "tick")
    assert hyper.out("ps", "-aq") == "" and hyper.out("cron", "ls", "-q") == ""


def test_what_is_wrong_is_one_sentence(hyper: Daemon) -> None:
    for args, says in (
        (("create", "--schedule", "* * * * *", "busybox"), "a job needs a name: give --name NAME"),
        (("create", "--name", "a", "--schedule", "61 * * * *", "busybox"), "invalid schedule '61 * * * *': bad minute"),
        (("create", "--name", "a", "--schedule", "@daily", "--rm", "busybox"), "--rm is nothing for a job"),
        (("run", "none"), "no such job: none"),
    ):
        done = hyper.ctl("cron", *args, check=False)
        assert done.returncode in (1, 125) and says in done.stderr, done.stderr
    assert hyper.out("cron", "ls", "-q") == ""
