# SPDX-License-Identifier: Apache-2.0
"""Docker's own client: what is attached, executed, copied, logged and told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import DEADLINE, Daemon, launched, wait_for
from .test_cli import Terminal

pytestmark = pytest.mark.e2e


def environment(hyper: Daemon) -> dict[str, str]:
    host = f"unix://{hyper.run}/docker.sock"
    return {**os.environ, "HYPER_HOST": str(hyper.socket), "DOCKER_HOST": host, "DOCKER_CONFIG": str(hyper.run)}


@contextlib.contextmanager
def running(hyper: Daemon, *args: str, stdin: int | None = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A client that is still there."""
    process = subprocess.Popen(
        ["docker", *args], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(hyper)
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None and process.stdout.readline() == line


def test_run(hyper: Daemon) -> None:
    done = hyper.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert hyper.docker("run", "-i", "--rm", "busybox", "cat", input=b"hi\n").stdout == "hi\n"
    # The program ends before its input does.
    assert hyper.docker("run", "-i", "--rm", "busybox", "head", "-1", input=b"y\n" * 500_000).stdout == "y\n"
    failed = hyper.docker("run", "--rm", "busybox", "no-such", check=False)
    assert failed.returncode == 127 and failed.stderr.count("executable file not found") == 1
    assert hyper.docker("ps", "-aq").stdout == ""


def test_a_hundred_megabytes_through_a_hijacked_connection(hyper: Daemon) -> None:
    piece = os.urandom(4 << 20)
    script = "cat > /tmp/x; i=0; while [ $i -lt 25 ]; do cat /tmp/x; i=$((i+1)); done"
    with running(hyper, "run", "-i", "--rm", "busybox", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(piece, timeout=DEADLINE)
    assert process.returncode == 0 and not err
    assert hashlib.sha256(out).hexdigest() == hashlib.sha256(piece * 25).hexdigest()


def test_signals_attach_wait_and_logs(hyper: Daemon) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with running(hyper, "run", "--name", "a", "busybox", "sh", "-c", script) as process:
        said(process, b"ready\n")
        with running(hyper, "logs", "-f", "a") as following, running(hyper, "wait", "a") as waiting:
            said(following, b"ready\n")
            process.send_signal(signal.SIGINT)
            said(process, b"caught\n")
            assert process.wait(DEADLINE) == 9
            said(following, b"caught\n")
            assert following.wait(DEADLINE) == 0
            said(waiting, b"9\n")
    assert hyper.docker("logs", "--tail", "1", "a").stdout == "caught\n"
    timed = hyper.docker("logs", "-t", "--since", "1h", "a").stdout.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z (ready|caught)", line) for line in timed)


def test_exec_stats_and_events(hyper: Daemon) -> None:
    began = hyper.docker("run", "-d", "--name", "a", "--label", "k=v", "busybox", "sleep", "1000").stdout.strip()
    assert hyper.docker("exec", "-i", "a", "cat", input=b"hi").stdout == "hi"
    assert hyper.docker(
        "exec", "-u", "nobody", "-e", "A=b", "-w", "/tmp", "a", "sh", "-c", "id -un; echo $A; pwd"
    ).stdout == ("nobody\nb\n/tmp\n")
    for command, status in ((["sh", "-c", "exit 5"], 5), (["no-such"], 127)):
        assert hyper.docker("exec", "a", *command, check=False).returncode == status
    name, processes = hyper.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}").stdout.split()
    assert name == "a" and int(processes) >= 1
    hyper.docker("rm", "-f", "a")
    until = str(int(time.time()) + 1)  # the client makes whole seconds of a duration
    lines = hyper.docker(
        "events", "--since", "10m", "--until", until, "--filter", f"container={began}", "--format", "{{json .}}"
    ).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["Action"] for e in events][:2] == ["create", "start"] and events[-1]["Action"] == "destroy"
    assert {"exec_create: cat", "exec_start: cat", "exec_die", "die"} <= {e["Action"] for e in events}
    assert all(e["Actor"]["Attributes"]["k"] == "v" for e in events)


def test_cp(hyper: Daemon, tmp_path: Path) -> None:
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/f").write_text("one\n")
    (tmp_path / "src/sub/g").write_text("two\n")
    (tmp_path / "src/link").symlink_to("f")
    made = "mkdir -p /data/deep; echo inside > /data/in; ln -s /data /dl; ln -s dl /dl2; echo ready; sleep 1000"
    hyper.docker("run", "-d", "--name", "a", "busybox", "sh", "-c", made)
    wait_for(lambda: hyper.docker("logs", "a").stdout == "ready\n", "its files")
    src = tmp_path / "src"
    hyper.docker("cp", src / "f", "a:/tmp")
    hyper.docker("cp", src / "f", "a:/tmp/renamed")
    hyper.docker("cp", src, "a:/new")
    hyper.docker("cp", src, "a:/data")
    hyper.docker("cp", f"{src}/.", "a:/data/deep")
    hyper.docker("cp", src / "f", "a:/dl2/through")
    hyper.docker("cp", src / "link", "a:/data/link")
    hyper.docker("cp", "-L", src / "link", "a:/data/followed")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(src / "f", "streamed")
    hyper.docker("cp", "-", "a:/tmp", input=(tmp_path / "t.tar").read_bytes())
    there = set(hyper.docker("exec", "a", "find", "/tmp", "/new", "/data").stdout.split())
    assert there >= {
        "/tmp/f", "/tmp/renamed", "/tmp/streamed", "/new/sub/g", "/data/src/sub/g", "/data/deep/sub/g",
        "/data/through", "/data/link", "/data/followed",
    }  # fmt: skip
    assert hyper.docker("exec", "a", "readlink", "/data/link").stdout == "f\n"
    assert hyper.docker("exec", "a", "cat", "/data/followed").stdout == "one\n"
    hyper.docker("cp", "a:/data/in", tmp_path / "out")
    hyper.docker("cp", "a:/data/deep", tmp_path / "tree")
    hyper.docker("cp", "a:/data/deep/.", tmp_path / "contents")
    hyper.docker("cp", "a:/dl", tmp_path / "dl")
    hyper.docker("cp", "-L", "a:/dl", tmp_path / "dl-followed")
    assert (tmp_path / "out").read_text() == "inside\n"
    assert (tmp_path / "tree/sub/g").read_text() == (tmp_path / "contents/sub/g").read_text() == "two\n"
    assert (tmp_path / "dl").readlink() == Path("/data") and (tmp_path / "dl-followed/in").is_file()
    assert hyper.docker("cp", "a:/data/in", "-").stdout.count("inside\n") == 1
    for source, target, words in (
        ("a:/nowhere", tmp_path, "Could not find the file /nowhere in container a"),
        (src / "f", "a:/nowhere/", "no such directory"),
        (src / "f", "a:/nowhere/x", "Could not find the file /nowhere in container a"),
        (src, "a:/data/in", "cannot copy directory"),
    ):
        failed = hyper.docker("cp", source, target, check=False)
        assert failed.returncode == 1 and words in failed.stderr, failed.stderr


def test_a_machine_that_dies(hyper: Daemon) -> None:
    with running(hyper, "run", "--rm", "busybox", "sh", "-c", "echo ready; sleep 1000") as process:
        said(process, b"ready\n")
        os.kill(int(hyper.out("list", "vm", "--format", "{{.VmPid}}")), signal.SIGKILL)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 125 and b"the virtual machine ended unexpectedly" in err


@pytest.fixture
def terminal(hyper: Daemon) -> Iterator[Terminal]:
    found = Terminal(environment(hyper))
    yield found
    found.close()


def test_a_terminal(hyper: Daemon, terminal: Terminal) -> None:
    """run -it: size, another size, ctrl-c, the keys; attached again; exec -it beside."""
    docker = f"DOCKER_HOST=unix://{hyper.run}/docker.sock DOCKER_CONFIG={hyper.run} docker"
    terminal.type(f"{docker} run -it --name t busybox sh", "Enter")
    terminal.shows("/ #")
    terminal.type("stty size", "Enter")
    terminal.shows("24 80")
    terminal.resize(100, 30)
    terminal.type("stty size", "Enter")
    terminal.shows("30 100")
    terminal.type("clear; echo be''gun; sleep 1000", "Enter")
    terminal.shows("begun")
    terminal.type("C-c", "")
    terminal.shows("^C\n/ #")  # an interrupt takes what was typed before it
    terminal.type("echo after=$?", "Enter")
    terminal.shows("after=130")
    terminal.type("C-p", "C-q")
    terminal.type("clear; echo back=$?", "Enter")
    terminal.shows("back=0")
    terminal.type(f"{docker} exec -it t sh -c 'stty size; echo tty=$(tty)'", "Enter")
    terminal.shows("tty=/dev/pts/")
    wait_for(lambda: not terminal.is_raw(), "the client's end")  # which would take what is typed
    terminal.type(f"clear; {docker} attach t", "Enter")
    terminal.type("echo again", "Enter")
    terminal.shows("again\n/ #")
    terminal.type("exit 4", "Enter")
    wait_for(lambda: not terminal.is_raw(), "the client's end")  # which would take what is typed
    terminal.type("echo status=$?", "Enter")
    terminal.shows("status=4")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_hijacked_connections_end_with_hyperd(tmp_path: Path, how: signal.Signals) -> None:
    """The client hears of it at once; a daemon that was killed has its containers back afterwards."""
    with launched(tmp_path / "root", "--no-factory") as hyper:
        hyper.ctl("pull", "-q", "builtin:busybox")
        with running(
            hyper, "run", "--stop-timeout", "1", "--name", "a", "busybox", "sh", "-c", "echo ready; sleep 1000"
        ) as process:
            said(process, b"ready\n")
            hyper.docker("exec", "-d", "a", "true")
            hyper.stop(how)
            process.communicate(timeout=DEADLINE)
            assert process.returncode in (125, 137, 143)
        if how is signal.SIGKILL:
            with launched(tmp_path / "root", "--no-factory", run=hyper.run) as again:
                assert again.docker("inspect", "-f", "{{.State.Status}}", "a").stdout == "running\n"
                again.docker("rm", "-f", "a")
