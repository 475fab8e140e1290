# SPDX-License-Identifier: Apache-2.0
"""Images whose program is an init that insists on being process 1, and Docker's flags for processes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .conftest import Daemon, wait_for
from .init_images import inits

LIMIT = 120  # seconds for a service to come up on an emulated processor


@pytest.fixture(scope="module")
def image(shared: Daemon) -> Iterator[str]:
    name = shared.out("pull", "-q", f"oci:{inits()}:test").removeprefix("sha256:")
    yield name
    shared.ctl("rmi", "-f", name)


def test_what_docker_shows(hyper: Daemon) -> None:
    assert hyper.out("run", "--rm", "busybox", "sh", "-c", "echo $$; echo /proc/[0-9]*") == "1\n/proc/1"
    assert hyper.out("run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/comm; true") == "docker-init"
    assert hyper.out("run", "--rm", "--pid", "pod", "busybox", "cat", "/proc/1/comm") == "pod-init"
    refused = hyper.ctl("run", "--rm", "--pid", "host", "busybox", "true", check=False)
    assert refused.returncode == 125 and "cannot see the processes of this host" in refused.stderr
    hyper.ctl("run", "-d", "--name", "life", "busybox", "sleep", "1000")
    assert hyper.out("exec", "life", "cat", "/proc/1/comm") == "sleep"
    assert hyper.out("inspect", "-f", "{{.State.Pid}}", "life") == "1"
    hyper.ctl("kill", "-s", "TERM", "life")  # it handles none: process 1 does not hear of it
    assert hyper.out("exec", "life", "echo", "alive") == "alive"
    hyper.ctl("stop", "-t", "1", "life")
    assert hyper.out("wait", "life") == "137"


@pytest.mark.parametrize("program", [("tini", "--"), ("dumb-init", "--")])
def test_small_inits(hyper: Daemon, image: str, program: tuple[str, ...]) -> None:
    done = hyper.ctl("run", "--rm", image, *program, "sh", "-c", "cat /proc/1/comm; exit 5", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, f"{program[0]}\n", "")


SERVICE = "mkdir -p /service/x; printf '#!/bin/sh\\nexec sleep 1002\\n' > /service/x/run; chmod +x /service/x/run;"


def service(hyper: Daemon, container: str, seconds: str = "1002") -> str:
    """The line of the service's process; the shell's at the beginning names it too, and ends otherwise."""
    lines = hyper.out("top", container).splitlines()
    return next((line for line in lines if line.endswith((f" sleep {seconds}", f" /bin/sleep {seconds}"))), "")


@pytest.mark.parametrize(
    ("program", "restart"),
    [("runsvdir", ("sv", "-w", "60", "term", "/service/x")), ("s6-svscan", ("s6-svc", "-wr", "-t", "/service/x"))],
)
def test_supervisors_of_services(hyper: Daemon, image: str, program: str, restart: tuple[str, ...]) -> None:
    hyper.ctl("run", "-d", "--name", "one", image, "sh", "-c", f"{SERVICE} exec {program} /service")
    wait_for(lambda: bool(service(hyper, "one")), "the service", LIMIT)
    assert hyper.out("exec", "one", "cat", "/proc/1/comm") == program
    first = service(hyper, "one")
    hyper.ctl("exec", "one", *restart)
    wait_for(lambda: service(hyper, "one") not in ("", first), "the service again", LIMIT)


def test_s6_ends_when_it_is_told_to(hyper: Daemon, image: str) -> None:
    command = ("sh", "-c", f"{SERVICE} exec s6-svscan /service")
    hyper.ctl("run", "-d", "--name", "s6", "--stop-signal", "TERM", image, *command)  # the image's is systemd's
    wait_for(lambda: bool(service(hyper, "s6")), "the service", LIMIT)
    begin = time.monotonic()
    hyper.ctl("stop", "-t", str(LIMIT), "s6")
    assert time.monotonic() - begin < LIMIT / 2
    assert hyper.out("inspect", "-f", "{{.State.ExitCode}}", "s6") == "0"


@pytest.mark.slow
def test_systemd(hyper: Daemon, image: str) -> None:
    """The image's own program: all units are up, a service that dies is started again, and its stop signal ends it."""
    hyper.ctl("run", "-d", "--name", "systemd", "--privileged", image)

    def state() -> str:
        return hyper.ctl("exec", "systemd", "systemctl", "is-system-running", check=False).stdout.strip()

    wait_for(lambda: state() in ("running", "degraded"), "systemd", LIMIT)
    failed = hyper.out("exec", "systemd", "systemctl", "--failed", "--no-legend", "--plain")
    assert (state(), failed) == ("running", "")
    assert hyper.out("exec", "systemd", "cat", "/proc/1/comm") == "systemd"
    assert "State: running" in hyper.out("exec", "systemd", "systemctl", "status", "--no-pager")
    assert "Active: active (running)" in hyper.out("exec", "systemd", "systemctl", "status", "--no-pager", "ours")
    first = service(hyper, "systemd", "1001")
    assert first
    hyper.ctl("exec", "systemd", "systemctl", "kill", "ours")
    wait_for(lambda: service(hyper, "systemd", "1001") not in ("", first), "the service again", LIMIT)
    begin = time.monotonic()
    hyper.ctl("stop", "-t", str(LIMIT), "systemd")
    assert time.monotonic() - begin < LIMIT / 2
    assert hyper.out("inspect", "-f", "{{.State.ExitCode}}", "systemd") == "130"  # as with Docker
    hyper.ctl("start", "systemd")
    wait_for(lambda: state() == "running", "systemd again", LIMIT)
