# SPDX-License-Identifier: Apache-2.0
"""Programs that build an image themselves, and start it: development containers, testcontainers of npm and PyPI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hyperbuilder import build as hyperbuilder

from .conftest import Daemon, launched
from .test_build import buildx, context
from .test_docker_node import programs  # noqa: F401
from .test_docker_testcontainers import packages  # noqa: F401

pytestmark = pytest.mark.skipif("HYPER_TEST_CLIENTS" not in os.environ, reason="minutes: `make clients` runs it")
_DEADLINE = 600.0  # seconds for one program
_DOCKERFILE = """\
FROM busybox
ARG COLOUR
RUN echo $COLOUR >/colour
COPY text /text
CMD ["sh", "-c", "echo begun; sleep 1000"]
"""
_PROGRAM = """
import sys
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage

with DockerImage(path=sys.argv[1], tag="built:python", buildargs={"COLOUR": "blue"}) as image:
    with DockerContainer(str(image)) as made:
        code, output = made.exec(["cat", "/colour", "/text"])
        print(code, output.decode().split())
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon, and so one builder; Docker's client has buildx."""
    hyperbuilder.build()
    root = tmp_path_factory.mktemp("builds")
    with launched(root / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        (plugins := daemon.run / "cli-plugins").mkdir()
        (plugins / "docker-buildx").symlink_to(buildx(root))
        yield daemon
        daemon.ctl("builder", "stop")
        daemon.remove_all()


def run(builds: Daemon, *command: str | Path, **more: str) -> str:
    environment = {"DOCKER_HOST": f"unix://{builds.run}/docker.sock", "DOCKER_CONFIG": str(builds.run),
                   "TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1"}  # fmt: skip
    done = subprocess.run(
        [*command], env={**os.environ, **environment, **more}, capture_output=True, text=True, timeout=_DEADLINE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_development_container_that_is_built(builds: Daemon, programs: Path, tmp_path: Path) -> None:  # noqa: F811
    described = {
        "build": {"dockerfile": "Dockerfile", "context": "..", "args": {"COLOUR": "green"}}, "overrideCommand": True,
        "workspaceFolder": "/work", "workspaceMount": "source=${localWorkspaceFolder},target=/work,type=bind",
        "updateRemoteUserUID": False,
    }  # fmt: skip
    project = context(tmp_path / "project", "not this one", text="of the context\n")
    context(project / ".devcontainer", _DOCKERFILE, **{"devcontainer.json": json.dumps(described)})
    cli = (programs / "node_modules/.bin/devcontainer",)
    where = ("--workspace-folder", str(project))
    up = json.loads(run(builds, *cli, "up", *where).splitlines()[-1])
    assert up["outcome"] == "success"
    assert run(builds, *cli, "exec", *where, "cat", "/colour", "/text").splitlines() == ["green", "of the context"]
    again = json.loads(run(builds, *cli, "up", *where, "--remove-existing-container").splitlines()[-1])
    assert again["outcome"] == "success" and again["containerId"] != up["containerId"]
    builds.docker("rm", "-f", again["containerId"])


def test_testcontainers_of_npm(builds: Daemon, programs: Path, tmp_path: Path) -> None:  # noqa: F811
    told = run(builds, "node", programs / "built.mjs", context(tmp_path / "made", _DOCKERFILE, text="hello\n"))
    assert [line.split("\t") for line in told.splitlines()] == [
        ["classic", '"red\\nhello\\n"'], ["buildkit", '"green\\nhello\\n"'],
    ]  # fmt: skip


def test_testcontainers_of_pypi(builds: Daemon, packages: Path, tmp_path: Path) -> None:  # noqa: F811
    where = context(tmp_path / "made", _DOCKERFILE, text="hello\n")
    told = run(builds, sys.executable, "-W", "ignore", "-c", _PROGRAM, where, PYTHONPATH=str(packages),
               TESTCONTAINERS_CONNECTION_MODE="docker_host")  # fmt: skip
    assert told.splitlines() == ["0 ['blue', 'hello']"]
    assert builds.docker("images", "-q", "built:python").stdout == "", "it is removed with the block"
