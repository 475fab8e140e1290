# SPDX-License-Identifier: Apache-2.0
"""The installed commands, a real registry, images made from Debian's packages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.sys.process import start_time
from tests.registry import Registry, serving
from tests.vm.conftest import machines
from tests.world import FACTORY, World

from . import images

BIN = Path(shutil.which("hyperd", path=str(Path(sys.executable).parent)) or shutil.which("hyperd") or "").parent
DEADLINE = 120.0  # seconds for any one command


def wait_for(condition: Callable[[], bool], what: str, deadline: float = 60.0) -> None:
    """Poll until it holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline:g} s"
        time.sleep(0.05)


def _finished(
    command: Sequence[str | Path], args: Sequence[str | Path], environment: Mapping[str, str], input: bytes | None, *,
    check: bool,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """What a command has said, also where that is no text."""
    done = subprocess.run(
        [*command, *map(str, args)], input=input, capture_output=True, env=environment, timeout=DEADLINE, check=False
    )
    text = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    assert not check or done.returncode == 0, f"{args}: {text.returncode}\n{text.stdout}\n{text.stderr}"
    return text


@dataclass
class Daemon:
    """A hyperd of a test's own."""

    process: subprocess.Popen[bytes]
    root: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "hyper.sock"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HYPER_HOST": str(self.socket), "PATH": f"{BIN}:{os.environ['PATH']}"}

    @property
    def command(self) -> list[str | Path]:
        return [BIN / "hyperctl"]

    def ctl(
        self, *args: str | Path, input: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run hyperctl; with `check` it must succeed."""
        return _finished(self.command, args, self.environment, input, check=check)

    def docker(
        self, *args: str | Path, input: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run Docker's own client, on our socket for it; with `check` it must succeed."""
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.run}/docker.sock", "DOCKER_CONFIG": str(self.run)}
        return _finished(["docker"], args, environment, input, check=check)

    def out(self, *args: str | Path) -> str:
        return self.ctl(*args).stdout.strip()

    def sandboxes(self) -> list[dict[str, Any]]:
        """Those that `sandbox ls` lists."""
        found: list[dict[str, Any]] = json.loads(self.out("sandbox", "ls", "--format", "json"))
        return found

    @property
    def world(self) -> World:
        return World(self.root, self.run, daemon=self.process.pid)

    def remove_all(self) -> None:
        if ids := self.out("ps", "-aq").split():
            self.ctl("rm", "-f", *ids)
        self.remove_names()

    def remove_names(self) -> None:
        """Names that a test gave to busybox; its image stays for the next."""
        listed = self.out("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
        images = [line.split() for line in listed.splitlines()]
        ids = {id_ for name, id_ in images if name == "busybox:latest"}
        if names := [name for name, id_ in images if id_ in ids and name != "busybox:latest"]:
            self.ctl("rmi", *names)

    def kill_all(self) -> None:
        """What would only take its grace: programs that are process 1 ignore SIGTERM."""
        ids = self.ctl("ps", "-q", check=False).stdout.split() if self.process.poll() is None else []
        told = self.ctl("inspect", *ids, check=False).stdout if ids else "[]"
        if mortal := [c["id"] for c in json.loads(told or "[]") if c["spec"]["restart"]["name"] == "no"]:
            self.ctl("kill", *mortal, check=False)

    def leftovers(self) -> dict[str, object]:
        """What a failure might leave behind."""
        return {
            "containers": sorted(p.name for p in (self.root / "containers").iterdir()),
            "pods": sorted(p.name for p in (self.run / "pods").iterdir() if not p.name.startswith(FACTORY)),
            "machines": machines(self.run),
            "pod files": sorted(p.name for p in (self.root / "pods").iterdir()),
            "volumes": sorted(p.name for p in (self.root / "volumes").iterdir()),
            "staging": sorted(p.name for p in (self.root / "images/staging").iterdir()),
            "half-made": sorted(p.name for p in (self.root / "images/disks").glob("*.tmp")),
            "blobs": sorted(p.name for p in (self.root / "images/blobs/sha256").iterdir()),
        }

    def stop(self, sig: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(DEADLINE)


Launch = Callable[..., AbstractContextManager[Daemon]]


@contextlib.contextmanager
def launched(
    root: Path,
    *options: str,
    run: Path | None = None,
    prefix: tuple[str, ...] = (),
    program: tuple[str | Path, ...] = (BIN / "hyperd",),
) -> Iterator[Daemon]:
    """A daemon; its containers end with it, and a test that leaves a VM behind fails."""
    with tempfile.TemporaryDirectory(prefix="hye") as short:
        directory = run or Path(short)
        # Bridges are made in namespaces of a test's own only.
        network = () if prefix else ("--network", "user", "--user-network", "slirp")
        log = open(root.parent / f"{root.name}-hyperd.log", "ab")
        with log:
            process = subprocess.Popen(
                [*prefix, *program, "--root", root, "--run", directory, *network, *options],
                stdout=log,
                stderr=log,
            )
        daemon = Daemon(process, root, directory)
        try:
            wait_for(lambda: daemon.socket.exists() or process.poll() is not None, "hyperd's socket")
            if process.poll() is None:
                # It waits for the guest that tries KVM, which `leftovers` would list.
                wait_for(lambda: daemon.ctl("info", check=False).returncode == 0, "hyperd's answer")
            yield daemon
            if process.poll() is None:
                daemon.world.check()
                daemon.kill_all()
        finally:
            daemon.stop()
            assert run is not None or daemon.world.nothing() == []


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that need no other; it has the built-in image."""
    with launched(tmp_path_factory.mktemp("shared") / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        yield daemon


@pytest.fixture
def hyper(shared: Daemon) -> Iterator[Daemon]:
    """The shared daemon, clean afterwards."""
    yield shared
    shared.remove_all()
    shared.world.check()
    left = shared.leftovers()
    assert (left["containers"], left["pods"], left["machines"]) == ([], [], [])


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


def push(layout: Path, registry: Registry, name: str) -> str:
    """Push an OCI layout's image `test`; its name in the registry."""
    full = f"{registry.address}/{name}"
    command = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "-q",
        "--dest-tls-verify=false",
        f"oci:{layout}:test",
        f"docker://{full}",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return full


@pytest.fixture(scope="session")
def nginx_layout() -> Path:
    return images.nginx()


@pytest.fixture(scope="session")
def databases_layout() -> Path:
    return images.databases()


def alive(pid: int) -> bool:
    return start_time(pid) != 0
