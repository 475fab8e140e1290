# SPDX-License-Identifier: Apache-2.0
"""Debian's podman and conmon with hyper-runtime; `make oci-compare` runs more of it, beside runc."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.podman import Podman, podman

from .conftest import BIN, Daemon, launched
from .test_networks import namespaces_again

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root"),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
]
SERVES = "trap 'echo bye; exit 3' TERM; echo up; nc -ll -p 8080 -e echo served & while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Podman, Daemon]]:
    """podman, and the hyperd in whose machines its containers run: in one network namespace."""
    where = tmp_path_factory.mktemp("oci")
    with namespaces_again("p") as namespace, tempfile.TemporaryDirectory(prefix="ocp") as place:
        prefix = ("nsenter", f"--net=/run/netns/{namespace}")
        with launched(where / "root", "--network", "user", prefix=prefix) as daemon:
            options: list[str | Path] = ["--root", where / "state", "--hyper-host", daemon.socket]
            with podman(Path(place), namespace, str(BIN / "hyper-runtime"), options) as side:
                yield side, daemon
            assert list((where / "state").iterdir()) == []
            daemon.world.check()
            left = daemon.leftovers()
            assert (left["containers"], left["pods"], left["machines"]) == ([], [], [])


def test_a_container(both: tuple[Podman, Daemon]) -> None:
    side, daemon = both
    status, said = side.run(f'podman run -d --name web -v $PWD/shared:/s:ro box sh -c "{SERVES}"')
    assert status == 0, said
    assert side.run("podman exec web sh -c 'cat /s/given; uname -n; exit 4'")[0] == 4
    assert len(daemon.out("ps", "-q").split()) == 1
    assert side.run("podman exec web nosuch >/dev/null 2>&1; echo $?") == (0, "127\n")
    assert side.run("echo hi | podman exec -i web cat") == (0, "hi\n")
    assert side.run("echo mine >mine; podman cp mine web:/tmp/mine; podman exec web cat /tmp/mine") == (0, "mine\n")
    bridge = side.run("podman inspect web --format '{{.NetworkSettings.IPAddress}}'")[1].strip()
    assert side.run(f"podman exec web sh -c 'nc -w 2 {bridge} 8080'") == (0, "served\n")
    status, said = side.run("podman stop -t 20 web; podman logs web; podman inspect web --format '{{.State.ExitCode}}'")
    assert said.splitlines() == ["web", "up", "bye", "3"]
    assert side.run("podman rm web; podman ps -aq")[1] == "web\n"


def test_a_pod(both: tuple[Podman, Daemon]) -> None:
    """Its containers share one virtual machine, which the first one begins."""
    side, daemon = both
    if side.run("podman pod create --name pod")[0]:
        pytest.skip("podman's pods need catatonit")
    status, said = side.run("podman run -d --pod pod --name one box sleep 1000")
    assert status == 0, said
    assert side.run("podman run --rm --pod pod box sh -c 'echo shared >/dev/shm/s'") == (0, "")
    assert side.run("podman exec one cat /dev/shm/s") == (0, "shared\n")
    assert len(list((daemon.run / "pods").iterdir())) == 1
    assert side.run("podman pod rm -f -t 0 pod >/dev/null; podman ps -aq") == (0, "")
