# SPDX-License-Identifier: Apache-2.0
"""The image and the compose file of deploy/caas: built out of this tree, on a Debian of mmdebstrap, by podman; started
by `docker compose` in a network namespace; pods run in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import BIN, DEADLINE, wait_for
from .packages import compose
from .test_networks import namespaces_again

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("HYPER_TEST_CAAS" not in os.environ, reason="five minutes: `make test-caas` runs it"),
]
CAAS = Path(__file__).parents[2] / "deploy/caas"
_BUILD = 1200.0  # seconds
# Debian's crun takes no host with control groups of both versions; hosts of CI may give no more than they have.
_PODMAN = """#!/bin/sh
export CONTAINERS_CONF={0}/containers.conf
exec podman --root {0}/storage --runroot {0}/podman-run --runtime /usr/sbin/runc "$@"
"""
# What podman tidies up after an `exec` by its API it does five minutes later, else: when all of this is gone.
_SETTINGS = """
[engine]
exit_command_delay = 0
"""
_OVERRIDE = """
services:
  hyperd:
    ulimits: {nofile: {soft: 1024, hard: 4096}, nproc: {soft: 4096, hard: 8192}}
"""
_SERVES = "mkdir -p /w; echo hello >/w/index.html; trap 'exit 0' TERM; httpd -f -h /w -p 80 & wait"


@dataclass
class Cloud:
    """A host (a namespace) with podman, whose socket `docker compose` takes for Docker's."""

    name: str
    place: Path

    @property
    def environment(self) -> dict[str, str]:
        place = self.place
        return {**os.environ, "DOCKER_HOST": f"unix://{place}/podman.sock", "DOCKER_CONFIG": str(place / "docker"),
                "HYPER_RUN": str(place / "run"), "HYPER_ETC": str(place / "etc"),
                "HYPER_BACKUPS": str(place / "backups")}  # fmt: skip

    def compose(self, *args: str, check: bool = True) -> str:
        files = ("-f", CAAS / "compose.yaml", "-f", self.place / "override.yaml")
        done = subprocess.run(
            ["docker", "compose", *files, *args], env=self.environment, capture_output=True, text=True,
            timeout=4 * DEADLINE, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def ctl(self, *args: str | Path) -> str:
        """hyperctl, by the socket that the host has of it."""
        done = subprocess.run(
            [BIN / "hyperctl", *args], env={**os.environ, "HYPER_HOST": str(self.place / "run/hyper.sock")},
            capture_output=True, text=True, timeout=2 * DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def answers(self) -> bool:
        """By hyperctl within the container."""
        return "Server" in self.compose("exec", "-T", "hyperd", "hyperctl", "version", check=False)

    def fetch(self) -> str:
        command = ["nsenter", f"--net=/run/netns/{self.name}", "curl", "-s", "-m", "5", "http://127.0.0.1:8080/"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _image(place: Path, podman: Path) -> None:
    base = place / "base.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", base], check=True, timeout=_BUILD)
    subprocess.run([podman, "import", "-q", base, "docker.io/library/debian:12-slim"], check=True, timeout=DEADLINE)
    base.unlink()
    subprocess.run([CAAS / "image", podman, "--network", "host", "--pull=never"], check=True, timeout=_BUILD,
                   env={**os.environ, "PYTHON": sys.executable})  # fmt: skip


@contextlib.contextmanager
def podman(place: Path, name: str) -> Iterator[Path]:
    """A service of it, with images and containers of its own."""
    (place / "containers.conf").write_text(_SETTINGS)
    program = place / "podman"
    program.write_text(_PODMAN.format(place))
    program.chmod(0o755)
    command = ["nsenter", f"--net=/run/netns/{name}", program, "system", "service", "-t", "0",
               f"unix://{place}/podman.sock"]  # fmt: skip
    with subprocess.Popen(command) as service:
        try:
            wait_for((place / "podman.sock").exists, "podman's socket")
            yield program
        finally:
            subprocess.run([program, "rm", "-af", "-t", "5"], check=False)
            subprocess.run([program, "volume", "rm", "-af"], check=False)
            service.terminate()
            service.wait(DEADLINE)
            subprocess.run([program, "rmi", "-af"], check=False, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    for needed in ("podman", "mmdebstrap", "runc", "docker"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    with tempfile.TemporaryDirectory(prefix="hyc") as short:  # podman takes no long paths
        yield from _cloud(Path(short))


def _cloud(place: Path) -> Iterator[Cloud]:
    for name in ("run", "etc", "backups", "docker/cli-plugins"):
        (place / name).mkdir(parents=True)
    (place / "docker/cli-plugins/docker-compose").symlink_to(compose())
    (place / "etc/hyperd.toml").write_text('network = "bridge"\n')
    (place / "override.yaml").write_text(_OVERRIDE)
    with namespaces_again("i") as name, podman(place, name) as program:
        _image(place, program)
        yield Cloud(name, place)


@pytest.mark.timeout(3000)
def test_hyperd_in_a_container_runs_pods(cloud: Cloud) -> None:
    cloud.compose("up", "-d")
    wait_for(cloud.answers, "hyperd's answer")
    cloud.ctl("pull", "-q", "builtin:busybox")
    assert cloud.ctl("run", "--rm", "busybox", "uname", "-r").endswith("-hyper")
    cloud.ctl("run", "-d", "--name", "web", "-p", "8080:80", "--restart", "always", "busybox", "sh", "-c", _SERVES)
    wait_for(lambda: cloud.fetch() == "hello\n", "the pod's answer by the host's port")
    cloud.ctl("backup", "create", cloud.place / "backups/one.tar.zst")
    assert (cloud.place / "backups/one.tar.zst").stat().st_mode & 0o777 == 0o600

    cloud.compose("stop")
    assert cloud.fetch() == ""
    cloud.compose("up", "-d")
    wait_for(lambda: cloud.fetch() == "hello\n", "what has a policy is there again")
    assert "Up" in cloud.ctl("ps")
    cloud.compose("down", "-v")
