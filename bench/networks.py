# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.networks`: iperf3 between pods and the host, beside a veth pair and QEMU's user-mode network.

Everything happens in network namespaces of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.hyperctl.output import print_table

from .measure import run

BIN = Path(sys.executable).parent
_SECONDS = 5
_PORT = 5201


@contextlib.contextmanager
def _namespaces() -> Iterator[tuple[str, str]]:
    """A host and a peer, joined by a veth pair: 198.18.0.1 and 198.18.0.2."""
    host, peer = f"hyb-host-{os.getpid()}", f"hyb-peer-{os.getpid()}"
    for name in (host, peer):
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
    try:
        run(["ip", "-n", host, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", peer])
        for name, device, address in ((host, "v0", "198.18.0.1"), (peer, "v1", "198.18.0.2")):
            run(["ip", "-n", name, "addr", "add", f"{address}/24", "dev", device])
            run(["ip", "-n", name, "link", "set", device, "up"])
        yield host, peer
    finally:
        for name in (host, peer):
            run(["ip", "netns", "del", name])


class Bench:
    """A daemon in the host's namespace, and two pods with iperf3."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.inside = ["ip", "netns", "exec", namespace]
        self.env = {**os.environ, "HYPER_HOST": str(directory / "run/hyper.sock")}
        command = [
            *self.inside,
            str(BIN / "hyperd"),
            "--root",
            str(directory / "root"),
            "--run",
            str(directory / "run"),
            "--network",
            "bridge",
            "--log-level",
            "error",
        ]
        self.daemon = subprocess.Popen(command)
        while subprocess.run([BIN / "hyperctl", "version"], env=self.env, capture_output=True, check=False).returncode:
            time.sleep(0.05)  # the socket is there before anybody listens

    def ctl(self, *args: str) -> str:
        return run([str(BIN / "hyperctl"), *args], self.env).stdout.decode().strip()

    def image(self) -> str:
        from tests.e2e import images

        layout = images.cached("iperf3", lambda new, scratch: images._base(new, scratch, "iperf3"))
        return self.ctl("pull", "-q", f"oci:{layout}:test")

    def close(self) -> None:
        self.daemon.terminate()
        self.daemon.wait()


def _rate(output: bytes | str) -> float:
    """Gigabits per second that arrived."""
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _client(address: str, *options: str) -> list[str]:
    return ["iperf3", "-J", "-t", str(_SECONDS), "-c", address, "-p", str(_PORT), *options]


@contextlib.contextmanager
def _server(prefix: list[str]) -> Iterator[None]:
    process = subprocess.Popen([*prefix, "iperf3", "-s", "-p", str(_PORT)], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def measure() -> dict[str, float]:
    found: dict[str, float] = {}
    with _namespaces() as (host, peer), tempfile.TemporaryDirectory(prefix="hyb") as directory:
        inside, outside = ["ip", "netns", "exec", host], ["ip", "netns", "exec", peer]
        with _server(outside):
            found["veth pair (no VM)"] = _rate(run([*inside, *_client("198.18.0.2")]).stdout)
        bench = Bench(Path(directory), host)
        try:
            image = bench.image()
            serve = ["iperf3", "-s", "-p", str(_PORT)]
            bench.ctl("run", "-d", "--name", "one", "-p", f"{_PORT}:{_PORT}", image, *serve)
            bench.ctl("run", "-d", "--name", "two", image, "sleep", "100000")
            bench.ctl("run", "-d", "--name", "user", "--network", "user", image, "sleep", "100000")
            address = json.loads(bench.ctl("network", "inspect", "bridge"))[0]["pods"]["one"][0]
            found["pod to pod"] = _rate(bench.ctl("exec", "two", *_client(address)))
            found["host to pod"] = _rate(run([*inside, *_client(address)]).stdout)
            found["outside to a published port"] = _rate(run([*outside, *_client("198.18.0.1")]).stdout)
            with _server(outside):
                found["pod to outside"] = _rate(bench.ctl("exec", "two", *_client("198.18.0.2")))
                found["pod to outside, user-mode network"] = _rate(bench.ctl("exec", "user", *_client("198.18.0.2")))
                found["outside to pod"] = _rate(bench.ctl("exec", "two", *_client("198.18.0.2", "-R")))
                found["outside to pod, user-mode network"] = _rate(
                    bench.ctl("exec", "user", *_client("198.18.0.2", "-R"))
                )
            bench.ctl("rm", "-f", "one", "two", "user")
        finally:
            bench.close()
    return found


def main() -> None:
    found = measure()
    base, slirp = found["veth pair (no VM)"], found["pod to outside, user-mode network"]
    rows = [[name, f"{rate:.2f} Gbit/s", f"{rate / base:.3f}", f"{rate / slirp:.2f}"] for name, rate in found.items()]
    print_table(["PATH", "IPERF3, ONE STREAM", "OF A VETH PAIR", "OF USER MODE, OUTWARD"], rows)


if __name__ == "__main__":
    main()
