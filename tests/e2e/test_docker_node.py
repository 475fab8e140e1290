# SPDX-License-Identifier: Apache-2.0
"""Clients of npm on our socket: dockerode, testcontainers, and the command line of development containers.

They are fetched when a test runs: exactly those of `node/package-lock.json`, whose digests npm checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import Registry

from .conftest import Daemon, push
from .keeping import kept
from .packages import PLACE

pytestmark = pytest.mark.skipif("HYPER_TEST_CLIENTS" not in os.environ, reason="minutes: `make clients` runs it")
NODE = Path(__file__).parent / "node"
_DEADLINE = 600.0  # seconds for one program
_LEAST = 20  # the version of node that the packages ask for


def _version() -> int:
    if not shutil.which("npm"):
        return 0
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.strip().lstrip("v").partition(".")[0])


def _install(new: Path, _: Path) -> None:
    shutil.copytree(NODE, new)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=new, check=True,
                   capture_output=True, timeout=_DEADLINE)  # fmt: skip


@pytest.fixture(scope="module")
def programs() -> Path:
    """A directory with the packages and our programs that use them; the packages are fetched once."""
    if _version() < _LEAST:
        pytest.skip(f"node {_LEAST} and npm are not installed")
    digest = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()
    place = kept(PLACE / f"npm-{digest[:16]}", _install)
    for program in NODE.glob("*.mjs"):
        shutil.copy(program, place)
    return place


def _environment(hyper: Daemon) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": f"unix://{hyper.run}/docker.sock", "DOCKER_CONFIG": str(hyper.run),
            "TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1"}  # fmt: skip


def _run(hyper: Daemon, *command: str | Path) -> str:
    done = subprocess.run(
        [*command], env=_environment(hyper), capture_output=True, text=True, timeout=_DEADLINE, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _told(output: str) -> list[tuple[str, object]]:
    """What a program told: a word and a document in each line."""
    pairs = (line.split("\t", 1) for line in output.splitlines())
    return [(what, json.loads(value)) for what, value in pairs]


@pytest.fixture
def images(hyper: Daemon, registry: Registry, databases_layout: Path, nginx_layout: Path) -> Iterator[tuple[str, str]]:
    names = push(databases_layout, registry, "node/databases:1"), push(nginx_layout, registry, "node/nginx:1")
    yield names
    for name in names:
        hyper.docker("rmi", "-f", name, check=False)


def test_dockerode(hyper: Daemon, programs: Path, images: tuple[str, str]) -> None:
    told = _told(_run(hyper, "node", programs / "dockerode.mjs", images[1]))
    assert told == [
        ("pulled", f"Status: Downloaded newer image for {images[1].replace(images[1].partition('/')[0], 'registry')}"),
        ("image", "linux"),
        ("attached", ["colour green\nfrom stdin\n", "done\n"]),
        ("waited", {"StatusCode": 0}),
        ("logs", True),
        ("events", ["create", "attach", "start", "die", "destroy"]),
        ("exec", ["got a line\n", "wrong\n"]),
        ("exit code", [False, 4]),
        ("archive", "bytes"),
        ("stat", 200),
        ("stats", True),
        ("listed", [["running", "sleep 1000"]]),
        ("ended", 137),
        ("missing", [404, "no such container"]),
        ("images", 0),
    ]


def test_testcontainers(hyper: Daemon, programs: Path, images: tuple[str, str]) -> None:
    told = _told(_run(hyper, "node", programs / "testcontainers.mjs", *images))
    assert told == [
        ("redis", "+PONG"),
        ("exec", ["PONG", 0]),
        ("exec", ["green", 3]),
        ("exec", ["copied", 0]),
        ("again", "+PONG"),
        ("postgres", "42"),
        ("nginx", "<h1>hyper</h1>"),
        ("over", True),
    ]
    assert hyper.docker("ps", "-aq").stdout == ""


def test_a_development_container(hyper: Daemon, programs: Path, images: tuple[str, str], tmp_path: Path) -> None:
    """Its directory is there, and what is written there is here; its variables and its commands are as it says."""
    described = {
        "image": images[1], "containerEnv": {"COLOUR": "green"}, "remoteEnv": {"SHAPE": "round"},
        "postCreateCommand": "echo made > made", "workspaceFolder": "/work", "updateRemoteUserUID": False,
        "workspaceMount": "source=${localWorkspaceFolder},target=/work,type=bind",
    }  # fmt: skip
    project = tmp_path / "project"
    (project / ".devcontainer").mkdir(parents=True)
    (project / ".devcontainer/devcontainer.json").write_text(json.dumps(described))
    (project / "source").write_text("of the host\n")
    cli = (programs / "node_modules/.bin/devcontainer",)
    where = ("--workspace-folder", str(project))
    up = json.loads(_run(hyper, *cli, "up", *where).splitlines()[-1])
    assert (up["outcome"], up["remoteWorkspaceFolder"]) == ("success", "/work")
    assert (project / "made").read_text() == "made\n"
    said = _run(hyper, *cli, "exec", *where, "sh", "-c", "cat source; echo $COLOUR $SHAPE; pwd; echo new > written")
    assert said.splitlines() == ["of the host", "green round", "/work"]
    assert (project / "written").read_text() == "new\n"
    again = json.loads(_run(hyper, *cli, "up", *where).splitlines()[-1])
    assert again["containerId"] == up["containerId"], "it is found again by its labels"
    hyper.docker("rm", "-f", up["containerId"])
