# SPDX-License-Identifier: Apache-2.0
"""`docker compose` as Debian has it, on our socket: five services, each a virtual machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hyperbuilder import build as hyperbuilder

from .conftest import DEADLINE, launched, wait_for
from .packages import compose
from .test_networks import World, namespaces

pytestmark = pytest.mark.skipif("HYPER_TEST_CLIENTS" not in os.environ, reason="a minute long: `make clients` runs it")
FILE = Path(__file__).parent / "shop.yaml"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon with networks of its own, and a client that knows compose."""
    plugin = compose()
    with namespaces("c") as name:
        root = tmp_path_factory.mktemp("compose") / "root"
        with launched(root, "--network", "bridge", prefix=("ip", "netns", "exec", name)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            plugins = daemon.run / "cli-plugins"
            plugins.mkdir()
            (plugins / "docker-compose").symlink_to(plugin)
            yield World(name, daemon)


def environment(world: World) -> dict[str, str]:
    directory = world.daemon.run
    return {**os.environ, "DOCKER_HOST": f"unix://{directory}/docker.sock", "DOCKER_CONFIG": str(directory),
            "TOKEN": "sesame"}  # fmt: skip


def run(world: World, *args: str, file: Path = FILE, check: bool = True) -> str:
    """`docker compose` with a file; its stdout."""
    done = subprocess.run(
        ["docker", "compose", "-f", file, *args], env=environment(world), capture_output=True, text=True,
        timeout=3 * DEADLINE, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr}"
    return done.stdout


def states(world: World, file: Path = FILE) -> dict[str, str]:
    """Of all containers of the project, by their names without the project's."""
    found = [json.loads(line) for line in run(world, "ps", "-a", "--format", "json", file=file).splitlines()]
    return {c["Name"].partition("-")[2]: c["State"] for c in found}


def test_a_shop(world: World, tmp_path: Path) -> None:
    run(world, "up", "-d", "--scale", "worker=2")
    running = dict.fromkeys(("store-1", "web-1", "worker-1", "worker-2"), "running")
    assert states(world) == {**running, "setup-1": "exited"}
    assert run(world, "logs", "--no-log-prefix", "setup") == "stored\nsesame\n"

    assert world.fetch("http://127.0.0.1:18080/") == "<h1>shop</h1>"
    assert run(world, "port", "web", "80") == "0.0.0.0:18080\n"
    for name in ("web", "www", "shop-web-1"):
        assert run(world, "exec", "-T", "worker", "wget", "-q", "-O", "-", f"http://{name}/") == "<h1>shop</h1>"
    assert run(world, "exec", "-T", "web", "wget", "-q", "-O", "-", "http://store/") == "stored\n"
    assert "NXDOMAIN" in run(world, "exec", "-T", "worker", "nslookup", "store", check=False), (
        "it is in another network"
    )
    assert run(world, "exec", "-T", "--index", "2", "worker", "sh", "-c", "echo $COLOUR") == "green\n"
    assert run(world, "run", "--rm", "debug") == "<h1>shop</h1>"

    run(world, "cp", "store:/data/index.html", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "stored\n"
    (tmp_path / "new").write_text("<h1>new</h1>")
    run(world, "cp", str(tmp_path / "new"), "web:/srv/index.html")
    assert world.fetch("http://127.0.0.1:18080/") == "<h1>new</h1>"
    run(world, "up", "-d", "--scale", "worker=1")
    assert states(world) == {**{k: v for k, v in running.items() if k != "worker-2"}, "setup-1": "exited"}
    run(world, "restart", "worker")
    run(world, "stop", "worker")
    assert states(world)["worker-1"] == "exited"

    assert json.loads(run(world, "ls", "--format", "json"))[0]["Name"] == "shop"
    run(world, "down", "-v")
    assert states(world) == {}
    assert world.daemon.docker("volume", "ls", "-q").stdout == ""
    assert world.daemon.docker("network", "ls", "-q", "--filter", "type=custom").stdout == ""


@contextlib.contextmanager
def meanwhile(world: World, file: Path, log: Path, *args: str) -> Iterator[Path]:
    """A command that goes on until the block ends; where it writes to."""
    with log.open("w") as output:
        process = subprocess.Popen(["docker", "compose", "-f", file, *args], env=environment(world), stdout=output,
                                   stderr=output)  # fmt: skip
    try:
        yield log
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE)


def test_a_workshop(world: World, tmp_path: Path) -> None:
    hyperbuilder.build()
    place = tmp_path / "workshop"
    shutil.copytree(Path(__file__).parent / "workshop", place)
    (place / "source").mkdir()
    file = place / "compose.yaml"

    run(world, "--progress", "plain", "build", file=file)  # which has the builder started
    run(world, "up", "-d", "--wait", file=file)
    assert states(world, file) == {"made-1": "running", "side-1": "running"}
    assert run(world, "exec", "-T", "made", "cat", "/srv/colour", file=file) == "green\n"
    assert run(world, "run", "--rm", "--no-deps", "side", "echo", "once", file=file) == "once\n"
    assert [i["Repository"] for i in json.loads(run(world, "images", "made", "--format", "json", file=file))] == [
        "workshop-made"
    ]
    assert "sleep 1000" in run(world, "top", "made", file=file)

    with meanwhile(world, file, tmp_path / "events", "events", "--json") as log:
        # The first of them says that it listens; which is asked for again until it is heard.
        wait_for(lambda: run(world, "pause", "side", file=file) != "-" and _unpaused(world, file) and '"pause"' in
                 log.read_text(), "an event")  # fmt: skip
        run(world, "kill", "side", file=file)
        wait_for(lambda: '"die"' in log.read_text(), "the end of side")
    told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {(e["service"], e["action"]) for e in told} >= {("side", "pause"), ("side", "unpause"), ("side", "die")}

    with meanwhile(world, file, tmp_path / "watch", "watch", "--no-up") as log:
        wait_for(lambda: "Watch enabled" in log.read_text(), "the watch")
        (place / "source/new").write_text("brought in\n")
        wait_for(lambda: run(world, "exec", "-T", "made", "cat", "/srv/source/new", file=file, check=False) ==
                 "brought in\n", f"the file: {log.read_text()}")  # fmt: skip

    run(world, "up", "-d", "--wait", "--scale", "made=2", file=file)
    assert states(world, file) == {"made-1": "running", "made-2": "running", "side-1": "running"}
    run(world, "rm", "-fs", "side", file=file)
    assert set(states(world, file)) == {"made-1", "made-2"}
    run(world, "down", "-v", "--rmi", "local", file=file)
    assert states(world, file) == {}
    assert world.daemon.docker("images", "-q", "workshop-made").stdout == ""
    world.daemon.ctl("builder", "stop")


def _unpaused(world: World, file: Path) -> bool:
    assert states(world, file)["side-1"] == "paused"
    run(world, "unpause", "side", file=file)
    return True
