# SPDX-License-Identifier: Apache-2.0
"""Output through the installed commands, with readers that leave or stand still."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for


def _resident(pid: int) -> int:
    """KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def _head(hyper: Daemon, *args: str) -> tuple[int, bytes]:
    """A command whose reader takes one line and leaves: its status and complaints."""
    process = subprocess.Popen(
        [BIN / "hyperctl", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hyper.environment
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    status = process.wait(DEADLINE)
    complaints = process.stderr.read()
    process.stderr.close()
    return status, complaints


def test_a_reader_that_leaves_ends_the_command_and_not_the_container(hyper: Daemon) -> None:
    """As in Docker (moby#38769), but quietly, with the status of SIGPIPE; `--rm` waits for the container's own end."""
    assert _head(hyper, "run", "--rm", "--name", "yes", "busybox", "yes") == (141, b"")
    assert hyper.out("ps", "--format", "{{.Names}}") == "yes"
    assert _head(hyper, "logs", "-f", "yes") == (141, b"")
    assert _head(hyper, "exec", "yes", "yes") == (141, b"")
    assert _head(hyper, "logs", "--tail", "1000", "yes")[1] == b""
    hyper.ctl("stop", "-t", "0", "yes")
    wait_for(lambda: hyper.out("ps", "-aq") == "", "--rm")


def test_readers_of_a_log_that_stand_still_cost_little(hyper: Daemon) -> None:
    script = (
        "printf '%099d\\n' 0 > /tmp/f; for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do cat /tmp/f /tmp/f > /tmp/g; "
        "mv /tmp/g /tmp/f; done; for _ in 1 2 3 4 5 6 7 8 9 10 11; do cat /tmp/f; done; sleep 1000"
    )
    hyper.ctl("run", "-d", "--name", "big", "--log-opt", "max-size=100m", "busybox", "sh", "-c", script)
    log = Path(json.loads(hyper.out("inspect", "big"))[0]["logPath"])
    wait_for(lambda: log.stat().st_size > 25_000_000, "25 MB of log", 3 * DEADLINE)
    before = _resident(hyper.process.pid)
    stalled = []
    try:
        for _ in range(10):
            sock = socket.socket(socket.AF_UNIX)
            stalled.append(sock)
            sock.settimeout(DEADLINE)
            sock.connect(str(hyper.socket))
            sock.sendall(b"GET /v1/containers/big/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert hyper.out("logs", "--tail", "1", "big") != ""
        grown = _resident(hyper.process.pid) - before
        print(f"ten stalled readers of 25 MB: {grown} KiB")
        assert grown < 60_000  # KiB; it was 1.5 GB
    finally:
        for sock in stalled:
            sock.close()


def test_a_log_goes_to_syslog_and_a_copy_stays(hyper: Daemon) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.bind(("127.0.0.1", 0))
        options = [
            f"syslog-address=udp://127.0.0.1:{sock.getsockname()[1]}",
            "syslog-format=rfc5424micro",
            "tag={{.Name}}",
        ]
        given = [word for option in options for word in ("--log-opt", option)]
        hyper.ctl(
            "run", "--name", "told", "--log-driver", "syslog", *given, "busybox", "sh", "-c", "echo out; echo err >&2"
        )
        messages = sorted(sock.recv(1000) for _ in range(2))
    assert re.fullmatch(rb"<27>1 [-0-9]{10}T[:0-9]{8}\.\d{6}Z \S+ told \d+ told - err", messages[0])
    assert messages[1].startswith(b"<30>1 ") and messages[1].endswith(b" told - out")
    times = [line.split(" ") for line in hyper.out("logs", "-t", "told").splitlines()]
    assert [text for _, text in times] == ["out"] and re.fullmatch(r"\S+T[:0-9]{8}\.\d{9}Z", times[0][0])
    assert hyper.out("logs", "--since", times[0][0], "told") == "out"
    later = times[0][0][:-2] + chr(ord(times[0][0][-2]) + 1) + "Z"  # a nanosecond more, or none such
    assert not later[-2].isdigit() or hyper.out("logs", "--since", later, "told") == ""


def test_logs_that_are_not_there(hyper: Daemon) -> None:
    hyper.ctl("run", "--name", "quiet", "--log-driver", "none", "busybox", "echo", "hello")
    done = hyper.ctl("logs", "quiet", check=False)
    assert (
        done.returncode != 0
        and "container quiet has no log that can be read: it was made with --log-driver none" in done.stderr
    )
    for options, says in (
        (["--log-driver", "gelf"], "gelf"),
        (["--log-driver", "journald"], "there is no systemd-journald on this host"),
        (["--log-driver", "syslog", "--log-opt", "syslog-address=unix:///none"], "there is no syslog at /none"),
        (["--log-opt", "tag=x"], "unknown log option 'tag' for json-file"),
    ):
        if "journald" in options and Path("/run/systemd/journal/socket").exists():
            continue
        done = hyper.ctl("run", "--rm", *options, "busybox", "true", check=False)
        assert done.returncode in (2, 125) and says in done.stderr, done.stderr


def test_the_daemons_log_driver(tmp_path: Path) -> None:
    with launched(tmp_path / "root", "--log-driver", "none", "--log-opt", "max-size=1m") as daemon:
        assert "Logging driver:     none (max-size=1048576)" in daemon.out("info")
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "--name", "quiet", "busybox", "echo", "hello")
        done = daemon.ctl("logs", "quiet", check=False)
        assert done.returncode != 0 and "it was made with --log-driver none" in done.stderr
        daemon.ctl("run", "--name", "kept", "--log-driver", "json-file", "busybox", "echo", "hello")
        assert daemon.out("logs", "kept") == "hello"


def test_arguments_and_names_that_are_no_text(hyper: Daemon) -> None:
    script = "touch /tmp/a$(printf '\\377')b; sh -c 'sleep 1000; :' $(printf 'x\\377y'); :"
    hyper.ctl("run", "-d", "--name", "bytes", "busybox", "sh", "-c", script)
    wait_for(lambda: "x\ufffdy" in hyper.out("top", "bytes"), "the argument")
    assert "A /tmp/a\ufffdb" in hyper.out("diff", "bytes")


def test_secrets_of_more_than_a_guest_takes_at_once(hyper: Daemon, tmp_path: Path) -> None:
    big = "x" * 490_000
    pod = {
        "id": "fat",
        "secrets": [{"name": n, "content": big} for n in ("a", "b", "c")],
        "containers": [
            {
                "name": "main",
                "image": "busybox",
                "command": ["true"],
                "secrets": [{"secret": n} for n in ("a", "b", "c")],
            }
        ],
    }
    path = tmp_path / "fat.json"
    path.write_text(json.dumps(pod))
    done = hyper.ctl("run", "-p", path, check=False)
    try:
        assert done.returncode == 125 and "the most: keep large ones in a volume" in done.stderr, done.stderr
        assert "defect" not in done.stderr and "internal" not in done.stderr
    finally:
        for id_ in hyper.out("pod", "ls", "-q").split():
            hyper.ctl("pod", "rm", "-f", id_)
