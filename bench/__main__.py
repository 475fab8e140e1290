# SPDX-License-Identifier: Apache-2.0
"""`make bench`: figures beside podman's with runc, of the same images, in one run.

The peers are run alternately on one machine; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypercontainer.hyperctl.output import print_table

from .measure import Figure, alternating, median_of, run

BIN = Path(sys.executable).parent
# Where hard limits are low, runc cannot set podman's default ones.
PODMAN_RUN = ["podman", "--runtime", "runc", "run", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"]
IMAGE = "localhost/busybox:bench"
MEGABYTES = 100


class Bench:
    """A daemon of its own, and podman with the same image."""

    def __init__(self, directory: Path, runs: int, *options: str) -> None:
        """`options` are hyperd's."""
        self.runs = runs
        self.directory = directory
        self.root = directory / "root"
        self.socket = directory / "run/hyper.sock"
        self.env = {**os.environ, "HYPER_HOST": str(self.socket)}
        command = [
            str(BIN / "hyperd"),
            "--root",
            str(self.root),
            "--run",
            str(directory / "run"),
            "--log-level",
            "error",
            "--network",
            "user",
            *options,
        ]
        self.daemon = subprocess.Popen(command)
        while not self.socket.exists():
            time.sleep(0.05)
        self.ctl("pull", "-q", "builtin:busybox")
        self.ctl("info")  # waits for the accelerator's probe
        source = f"oci:{self.root}/images:docker.io/library/busybox:latest"
        run(["skopeo", "--insecure-policy", "copy", "-q", source, f"containers-storage:{IMAGE}"])

    def ctl(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return run([str(BIN / "hyperctl"), *args], self.env)

    def close(self) -> None:
        self.daemon.terminate()
        self.daemon.wait()

    # -- figures ------------------------------------------------------------------------

    def cold_run(self) -> Figure:
        ours, theirs = alternating(
            lambda: self.ctl("run", "--rm", "busybox", "true"), lambda: run([*PODMAN_RUN, "--rm", IMAGE, "true"]), self.runs
        )
        return Figure("cold run --rm busybox true", ours, "s", theirs, "1.2 s")

    def version(self) -> Figure:
        return Figure("version", median_of(lambda: self.ctl("version"), self.runs), "s", None, "0.12 s")

    def exec_true(self) -> Figure:
        self.ctl("run", "-d", "--name", "bench-exec", "busybox", "sleep", "100000")
        run([*PODMAN_RUN, "-d", "--name", "hyper-bench-exec", IMAGE, "sleep", "100000"])
        try:
            ours, theirs = alternating(
                lambda: self.ctl("exec", "bench-exec", "true"), lambda: run(["podman", "exec", "hyper-bench-exec", "true"]), self.runs
            )
        finally:
            self.ctl("rm", "-f", "bench-exec")
            run(["podman", "rm", "-f", "-t", "0", "hyper-bench-exec"])
        return Figure("exec true in a running container", ours, "s", theirs)

    def throughput(self) -> Figure:
        """Text of 100-byte lines, from the program to a pipe of the host."""
        prepare = f"yes {'x' * 99} | head -c {10 << 20} > /dev/shm/text; "
        copy = "cat /dev/shm/text; " * (MEGABYTES // 10)
        mine = ["run", "--rm", "busybox", "sh", "-c"]
        peer = [*PODMAN_RUN, "--rm", IMAGE, "sh", "-c"]
        ours = median_of(lambda: self.ctl(*mine, prepare + copy), 3) - median_of(lambda: self.ctl(*mine, prepare), 3)
        theirs = median_of(lambda: run([*peer, prepare + copy]), 3) - median_of(lambda: run([*peer, prepare]), 3)
        return Figure(f"stdout of {MEGABYTES} MB", MEGABYTES / ours, "MB/s", MEGABYTES / theirs)

    def memory(self) -> list[Figure]:
        self.ctl("run", "-d", "--name", "bench-idle", "busybox", "sleep", "100000")
        try:
            lines = self.ctl("exec", "bench-idle", "cat", "/proc/meminfo").stdout.decode().splitlines()
            info = {k: int(v.split()[0]) for k, v in (line.split(":") for line in lines)}
            used = info["MemTotal"] - info["MemFree"] - info["Buffers"] - info["Cached"]
            pods = json.loads(self.ctl("list", "vm", "--format", "json").stdout)
            rollup = Path(f"/proc/{pods[0]['vmPid']}/smaps_rollup").read_text()
            pss = next(int(x.split()[1]) for x in rollup.splitlines() if x.startswith("Pss:"))
        finally:
            self.ctl("rm", "-f", "bench-idle")
        return [
            Figure("guest memory used at idle (of 256 MB)", used / 1024, "MB", None, "16 MB"),
            Figure("PSS of the VM's host processes", pss / 1024, "MB"),
        ]

    def pull(self) -> Figure:
        from tests.e2e.images import nginx

        with tempfile.TemporaryDirectory() as store, Registry(Path(store)) as address:
            name = f"{address}/nginx:bench"
            target = ["--dest-tls-verify=false", f"oci:{nginx()}:test", f"docker://{name}"]
            run(["skopeo", "--insecure-policy", "copy", "-q", *target])
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(min(self.runs, 3)):
                for who, remove, pull in (
                    ("ours", lambda: self.ctl("rmi", name), lambda: self.ctl("pull", "-q", name)),
                    ("theirs", lambda: run(["podman", "rmi", name]), lambda: run(["podman", "pull", "-q", "--tls-verify=false", name])),
                ):
                    begin = time.perf_counter()
                    pull()
                    times[who].append(time.perf_counter() - begin)
                    remove()
        middle = {who: sorted(t)[len(t) // 2] for who, t in times.items()}
        return Figure("pull and convert nginx (5 layers, 170 MB)", middle["ours"], "s", middle["theirs"], "ratio 1.5")


class Registry:
    """docker-registry on a free port of loopback."""

    def __init__(self, directory: Path) -> None:
        import socket

        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.address = f"localhost:{port}"
        config = directory / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/store}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        self._process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> str:
        import socket

        host, port = self.address.split(":")
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", int(port))) == 0:
                    return f"{host}:{port}"
            time.sleep(0.05)
        raise RuntimeError("docker-registry does not answer")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Figures beside podman's, as medians with ratios.")
    parser.add_argument("--runs", type=int, default=7, help="runs of each short command")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hyb") as directory:
        bench = Bench(Path(directory), args.runs)
        figures: list[Figure] = []
        try:
            for step in (bench.version, bench.cold_run, bench.exec_true, bench.throughput, bench.memory, bench.pull):
                print(f"measuring {step.__name__} ...", file=sys.stderr, flush=True)
                result = step()
                figures += result if isinstance(result, list) else [result]
            info = json.loads(bench.ctl("info", "--format", "json").stdout)
        finally:
            bench.close()
    print(f"accelerator {info['accelerator']}, {info['driver']}, kernel {info['kernelVersion']}, medians of {args.runs} runs\n")
    print_table(["FIGURE", "HYPERCONTAINER", "PODMAN+RUNC", "RATIO", "GOAL"], [f.row() for f in figures])


if __name__ == "__main__":
    main()
