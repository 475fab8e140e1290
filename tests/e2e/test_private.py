# SPDX-License-Identifier: Apache-2.0
"""After real use nobody but root gets to what hyperd keeps; its socket takes a burst of clients."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from pathlib import Path

from tests.unit.test_private import open_to_others

from .conftest import Daemon, launched


def test_nothing_is_open_to_others(hyper: Daemon, tmp_path: Path) -> None:
    hyper.ctl("volume", "create", "closed")
    hyper.ctl("volume", "create", "-d", "directory", "tree")
    hyper.ctl("volume", "create", "--image-format", "qcow2", "cow")
    (tmp_path / "shared").mkdir()
    hyper.ctl(
        "run",
        "-d",
        "--name",
        "used",
        "-e",
        "TOKEN=secret",
        "-v",
        "closed:/a",
        "-v",
        "tree:/b",
        "-v",
        "cow:/c",
        "-v",
        f"{tmp_path}/shared:/d",
        "busybox",
        "sh",
        "-c",
        "echo said; umask 0; touch /b/open; sleep 1000",
    )
    hyper.ctl("exec", "used", "true")
    assert open_to_others(hyper.root) + open_to_others(hyper.run) == []
    hyper.ctl("exec", "used", "sh", "-c", "until [ -e /b/open ]; do :; done")
    # A user without rights inside gets to a directory volume, whatever hyperd's umask.
    assert hyper.ctl("exec", "-u", "nobody", "used", "ls", "/b", check=False).stdout == "open\n"
    hyper.ctl("rm", "-f", "used")
    hyper.ctl("volume", "rm", "closed", "tree", "cow")


def test_a_group_may_use_the_socket(hyper: Daemon) -> None:
    sockets = [hyper.socket, hyper.run / "docker.sock"]
    assert {stat.S_IMODE(s.stat().st_mode) for s in sockets} == {0o660}
    with contextlib.suppress(KeyError):
        import grp

        group = grp.getgrnam("hyper").gr_gid
        assert {p.stat().st_gid for p in (*sockets, hyper.run)} == {group}
        assert stat.S_IMODE(hyper.run.stat().st_mode) == 0o710


def test_a_burst_of_connections(tmp_path: Path) -> None:
    """As many clients as come at once get a place, while the daemon is busy."""
    with launched(tmp_path / "root", "--no-factory") as daemon, contextlib.ExitStack() as stack:
        os.kill(daemon.process.pid, signal.SIGSTOP)
        stack.callback(os.kill, daemon.process.pid, signal.SIGCONT)
        for _ in range(500):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(daemon.socket))  # refuses with EAGAIN when the backlog is full


def test_prune_asks_first_and_spares_what_has_a_name(hyper: Daemon) -> None:
    hyper.ctl("volume", "create", "mine")
    unnamed = hyper.out("volume", "create")
    try:
        for verb in (["volume", "prune"], ["volume", "prune", "-a"], ["network", "prune"], ["image-prune", "-a"]):
            done = hyper.ctl(*verb, input=b"", check=False)
            assert done.returncode == 1 and "there is no terminal to ask on: give -f if that is meant" in done.stderr
        assert {"mine", unnamed} <= set(hyper.out("volume", "ls", "-q").split())
        assert hyper.out("volume", "prune", "-f").splitlines()[0] == unnamed
        assert "mine" in hyper.out("volume", "ls", "-q").split() and unnamed not in hyper.out("volume", "ls", "-q")
        assert "mine" in hyper.out("volume", "prune", "-a", "-f").splitlines()
    finally:
        hyper.ctl("volume", "rm", "-f", "mine", unnamed)


def test_used_is_what_a_volume_holds(hyper: Daemon) -> None:
    for driver in ("block", "directory"):
        hyper.ctl("volume", "create", "-d", driver, "full")
        before = used(hyper, "full")
        hyper.ctl(
            "run", "--rm", "-v", "full:/d", "busybox", "sh", "-c", "dd if=/dev/urandom of=/d/x bs=1M count=5; sync"
        )
        assert 5 << 20 <= used(hyper, "full") - before < 7 << 20
        hyper.ctl("volume", "rm", "full")


def used(hyper: Daemon, name: str) -> int:
    return int(json.loads(hyper.out("volume", "inspect", name))[0]["diskUsage"])
