# SPDX-License-Identifier: Apache-2.0
"""`run --rm` has ended when it returns: its name, its port and its network are free."""

from __future__ import annotations

from pathlib import Path

from tests.registry import free_port

from .conftest import Daemon, launched


def test_one_name_many_times(hyper: Daemon) -> None:
    for _ in range(20):
        hyper.ctl("run", "--rm", "--name", "one", "busybox", "true")
        assert "one" not in hyper.out("ps", "-a")


def test_one_port_many_times(hyper: Daemon) -> None:
    port = free_port()
    for _ in range(5):
        hyper.ctl("run", "--rm", "--name", "one", "-p", f"{port}:80", "busybox", "true")


def test_one_volume_many_times(hyper: Daemon) -> None:
    for n in range(3):
        hyper.ctl(
            "run",
            "--rm",
            "--name",
            "one",
            "-v",
            "counted:/v",
            "busybox",
            "sh",
            "-c",
            f"test -e /v/{n - 1} -o {n} = 0 && touch /v/{n}",
        )
    hyper.ctl("volume", "rm", "counted")


def test_its_network_can_be_removed(tmp_path: Path) -> None:
    alone = ("unshare", "-n", "--", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    with launched(tmp_path / "root", prefix=alone) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        for n in range(6):
            daemon.ctl("network", "create", f"net{n}", "--subnet", f"10.77.{n}.0/24")
            daemon.ctl("run", "--rm", "--network", f"net{n}", "busybox", "true")
            daemon.ctl("network", "rm", f"net{n}")
