# SPDX-License-Identifier: Apache-2.0
"""Images whose program is an init that insists on being process 1, and Docker's flags for processes."""

from __future__ import annotations

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


def test_runit(hyper: Daemon, image: str) -> None:
    script = "mkdir -p /service/x; printf '#!/bin/sh\\nexec sleep 1002\\n' > /service/x/run; chmod +x /service/x/run;"
    hyper.ctl("run", "-d", "--name", "runit", image, "sh", "-c", f"{script} exec runsvdir /service")

    def service() -> str:
        """The line of its process; the shell's at the beginning names it too, and ends otherwise."""
        lines = hyper.out("top", "runit").splitlines()
        return next((line for line in lines if line.split()[-2:] == ["sleep", "1002"]), "")

    wait_for(lambda: bool(service()), "the service", LIMIT)
    assert hyper.out("exec", "runit", "cat", "/proc/1/comm") == "runsvdir"
    first = service()
    hyper.ctl("exec", "runit", "sv", "-w", "60", "term", "/service/x")
    wait_for(lambda: service() not in ("", first), "the service again", LIMIT)
