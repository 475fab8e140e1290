# SPDX-License-Identifier: Apache-2.0
"""testcontainers (PyPI) as programs' tests use it: a server starts, is waited for, is asked, and goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import Registry

from .conftest import DEADLINE, Daemon, push
from .keeping import kept
from .packages import PLACE

pytestmark = pytest.mark.skipif("HYPER_TEST_CLIENTS" not in os.environ, reason="a minute: `make clients` runs it")
_PACKAGE = "testcontainers==4.15.0"
_PROGRAM = """
import socket, sys
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

made = DockerContainer(sys.argv[1]).with_command("redis-server --protected-mode no").with_exposed_ports(6379)
with made.with_env("COLOUR", "green").with_copy_into_container(b"copied", "/srv/copied") as server:
    wait_for_logs(server, "Ready to accept connections", 60)
    address = server.get_container_host_ip(), int(server.get_exposed_port(6379))
    with socket.create_connection(address, 10) as s:
        s.sendall(b"PING\\r\\n")
        print(s.recv(100).decode().strip())
    for command in (["redis-cli", "ping"], ["sh", "-c", "echo $COLOUR"], ["cat", "/srv/copied"]):
        code, output = server.exec(command)
        print(code, output.decode().strip())
"""


@pytest.fixture(scope="module")
def packages() -> Path:
    """A directory with testcontainers and what it needs; fetched once."""
    return kept(PLACE / _PACKAGE, _install)


def _install(new: Path, _: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--root-user-action=ignore", "--target", new, _PACKAGE]
    subprocess.run(pip, check=True, capture_output=True)


@pytest.fixture
def image(hyper: Daemon, registry: Registry, databases_layout: Path) -> Iterator[str]:
    name = push(databases_layout, registry, "things/databases:1")
    yield name
    hyper.docker("rmi", "-f", name)


def test_a_server_for_a_test(hyper: Daemon, image: str, packages: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{hyper.run}/docker.sock", "PYTHONPATH": str(packages),
                   "TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
                   "DOCKER_CONFIG": str(hyper.run)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, image], env=environment, capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["+PONG", "0 PONG", "0 green", "0 copied"]
    assert hyper.docker("ps", "-aq").stdout == ""
