# SPDX-License-Identifier: Apache-2.0
"""Both sides of the comparison, in a network namespace of their own: a daemon, and podman with runc."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .measure import run

# Beside this Python, or, as in the lab (docs/development.md), in the PATH.
BIN = Path(shutil.which("hyperd", path=str(Path(sys.executable).parent)) or shutil.which("hyperd") or "").parent
BUSYBOX = "localhost/busybox:bench"
NGINX = "localhost/nginx:bench"
_SLOWNESS = float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))  # of the machine, as tests have it
_PATIENCE = 60.0 * _SLOWNESS  # seconds
_PAUSE = 0.02 * _SLOWNESS**2  # seconds between looks, each of which takes a processor's time as well
# Where hard limits are low, runc cannot set podman's default ones.
_LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A network namespace with loopback; bridges and rules end with it."""
    name = f"hyb-{os.getpid()}"
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        yield name
    finally:
        run(["ip", "netns", "del", name])


class Podman:
    """podman with runc."""

    def __init__(self, namespace: str) -> None:
        self._prefix = ["nsenter", f"--net=/run/netns/{namespace}", "podman"]

    def __call__(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return run([*self._prefix, *args])

    def command(self, *args: str) -> list[str]:
        """The command line of `podman run`."""
        return [*self._prefix, "--runtime", "runc", "run", *_LIMITS, *args]

    def run(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return run(self.command(*args))

    @contextlib.contextmanager
    def service(self, directory: Path) -> Iterator[Path]:
        """The socket of a service that speaks Docker's Engine API, for Docker's own client."""
        settings, path = directory / "containers.conf", directory / "podman.sock"
        limits = ", ".join(f'"{each}"' for each in _LIMITS if "=" in each)
        settings.write_text(
            f'[containers]\ndefault_ulimits = [{limits}]\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
        )
        command = [*self._prefix, "system", "service", "--time=0", f"unix://{path}"]
        process = subprocess.Popen(command, env={**os.environ, "CONTAINERS_CONF": str(settings)})
        try:
            Hyper.until(path.exists, "podman's socket")
            yield path
        finally:
            process.terminate()
            process.wait()

    def load(self, layout: str, name: str) -> None:
        run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}", f"containers-storage:{name}"])


def docker(socket: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Docker's own client, on a socket."""
    environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(socket.parent)}
    return run(["docker", *args], environment)


class Hyper:
    """A daemon with its own root, in the namespace."""

    def __init__(self, directory: Path, namespace: str, *options: str) -> None:
        """`options` are hyperd's."""
        self.root = directory / "root"
        self.socket = directory / "run/hyper.sock"
        self.docker_socket = directory / "run/docker.sock"
        self.env = {**os.environ, "HYPER_HOST": str(self.socket)}
        command = [BIN / "hyperd", "--root", self.root, "--run", directory / "run", "--log-level", "error", *options]
        # Not `ip netns exec`: it hides the control groups, in which its machines are.
        self._command = [str(c) for c in ["nsenter", f"--net=/run/netns/{namespace}", *command]]
        self.process = self.launch()
        self.until(self.answers, "the daemon's answer")
        self.ctl("pull", "-q", "builtin:busybox")
        self.ctl("info")  # waits until KVM was tried

    def launch(self) -> subprocess.Popen[bytes]:
        """A daemon on this root; one at a time."""
        return subprocess.Popen(self._command)

    def command(self, *args: str) -> list[str]:
        return [str(BIN / "hyperctl"), *args]

    def ctl(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return run(self.command(*args), self.env)

    def json(self, *args: str) -> Any:
        return json.loads(self.ctl(*args, "--format", "json").stdout)

    def answers(self) -> bool:
        return subprocess.run(self.command("version"), env=self.env, capture_output=True, check=False).returncode == 0

    @staticmethod
    def until(condition: Any, what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come within {_PATIENCE:g} s")
            time.sleep(_PAUSE)

    def templates_ready(self, count: int = 1) -> None:
        """Until so many templates were made."""
        self.until(lambda: len(self.json("factory", "status")["templates"]) >= count, "a template")

    def pool_ready(self) -> None:
        """Until as many machines wait as shall, and nothing else goes on."""
        self.until(
            lambda: (p := self.json("factory", "status")["pool"]) and all(k["waiting"] >= k["target"] for k in p),
            "the pool",
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def daemon(directory: Path, namespace: str, *options: str) -> Iterator[Hyper]:
    """One that ends with the block; on a directory that is there it has the images of the one before."""
    directory.mkdir(exist_ok=True)
    hyper = Hyper(directory, namespace, *options)
    try:
        yield hyper
    finally:
        hyper.close()


def first_answer(namespace: str, port: int) -> list[str]:
    """A command that ends when 127.0.0.1:port has answered with 200."""
    script = (
        "import http.client,sys,time\n"
        "while True:\n"
        "    try:\n"
        f"        c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=5); c.request('GET', '/')\n"
        "        if c.getresponse().status == 200: sys.exit()\n"
        "    except OSError: time.sleep(0.005)\n"
    )
    return ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-I", "-S", "-c", script]


def memory(pid: int, *fields: str) -> int:
    """Kilobytes of a process: the sum of these fields of smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(tuple(f"{f}:" for f in fields)))


def machines(hyper: Hyper) -> list[int]:
    """Process ids of the running pods' machines."""
    return [p["vmPid"] for p in hyper.json("list", "vm") if p["vmPid"]]
