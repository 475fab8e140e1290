# SPDX-License-Identifier: Apache-2.0
"""`make bench-pods`: the time to start pods, and what file systems do inside them.

fio runs in a container and on the host's own file system, in turns; the
figures are ratios to the host. The guest's page cache is left out by direct
I/O where the file system has it, the host's is not: it is the machine's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hypercontainer.hyperctl.output import print_table

from .measure import HEAD, Figure, median_of, run
from .peers import Hyper, namespace

_SIZE_MB = 64
_SECONDS = 4  # of each fio job
_JOBS = ("randread", "randwrite", "read", "write")
# Many small files, as a checkout has: 2000 of 2 KB in 100 directories, then read, then removed.
_SMALL_FILES = (
    "set -e; mkdir -p $1/t; cd $1/t; b=$(head -c 2048 /dev/zero | tr '\\0' x); "
    "for d in $(seq 100); do mkdir d$d; for f in $(seq 20); do echo $b >d$d/f$f; done; done; "
    "cat d*/f* >/dev/null; cd ..; rm -r t"
)


class Pods(Hyper):
    """Pods of busybox, and one with fio."""

    def __init__(self, directory: Path, space: str, runs: int, *options: str) -> None:
        super().__init__(directory, space, "--network", "user", *options)
        self.directory = directory
        self.runs = runs

    def start_times(self) -> list[Figure]:
        figures = []
        for count in (1, 3, 8):
            containers = [
                {"name": f"bench-{i}", "image": "busybox", "command": ["sleep", "100000"]} for i in range(count)
            ]
            podfile = self.directory / f"pod{count}.json"
            podfile.write_text(json.dumps({"id": "bench", "containers": containers}))
            begin = median_of(
                lambda path=str(podfile): self.ctl("run", "-p", path),  # type: ignore[misc]
                self.runs,
                before=lambda: self.ctl("pod", "rm", "-f", "bench"),
            )
            self.ctl("pod", "rm", "-f", "bench")
            figures.append(Figure(f"run -p of {count} container{'s' if count > 1 else ''}", begin, "s"))
        return figures

    # -- files ----------------------------------------------------------------------

    def places(self, image: str) -> dict[str, str]:
        """A pod with a volume of each kind; container paths by the kind's name."""
        shared = self.directory / "shared"
        shared.mkdir(exist_ok=True)
        podfile = {
            "id": "files", "resource": {"vcpu": 1, "memory": 512},
            "containers": [{"name": "files-fio", "image": image, "command": ["sleep", "100000"], "volumes": [
                {"volume": "named", "path": "/named"}, {"volume": "shared", "path": "/shared"}]}],
            "volumes": [{"name": "named"}, {"name": "shared", "source": str(shared), "format": "vfs"}],
        }  # fmt: skip
        path = self.directory / "files.json"
        path.write_text(json.dumps(podfile))
        self.ctl("run", "-p", str(path))
        return {"virtiofs": "/shared", "root disk": "/root-disk", "named volume": "/named"}

    def in_guest(self, path: str) -> dict[str, float]:
        self.ctl("exec", "files-fio", "mkdir", "-p", path)
        found = {job: _rate(self.ctl("exec", "files-fio", *_fio(job, path)).stdout, job) for job in _JOBS}
        small = [self._small(["exec", "files-fio", "sh", "-c", _SMALL_FILES, "-", path]) for _ in range(3)]
        return {**found, "small files": statistics.median(small)}

    def _small(self, command: list[str]) -> float:
        begin = time.perf_counter()
        self.ctl(*command)
        return 1 / (time.perf_counter() - begin)

    def on_host(self, directory: Path) -> dict[str, float]:
        found = {job: _rate(run(_fio(job, str(directory))).stdout, job) for job in _JOBS}
        times = [median_of(lambda: run(["sh", "-c", _SMALL_FILES, "-", str(directory)]), 1) for _ in range(3)]
        return {**found, "small files": 1 / statistics.median(times)}


def _fio(job: str, directory: str) -> list[str]:
    block = "4k" if job.startswith("rand") else "1m"
    return [
        "fio",
        f"--name={job}",
        f"--rw={job}",
        f"--bs={block}",
        f"--size={_SIZE_MB}m",
        f"--directory={directory}",
        "--filename=fio.tmp",
        "--ioengine=psync",
        f"--runtime={_SECONDS}",
        "--time_based",
        "--output-format=json",
        "--end_fsync=1",
    ]


def _rate(output: bytes, job: str) -> float:
    """Megabytes per second."""
    side: dict[str, Any] = json.loads(output[output.index(b"{") :])["jobs"][0]["write" if "write" in job else "read"]
    return float(side["bw_bytes"]) / 1e6


def _fio_image(bench: Pods) -> str:
    """Debian with fio, made by the tests' image builder."""
    from tests.e2e import images

    layout = images.cached("fio", lambda new, scratch: images._base(new, scratch, "fio"))
    bench.ctl("pull", "-q", f"oci:{layout}:test")
    found = json.loads(bench.ctl("images", "--format", "json").stdout)
    return next(i["id"] for i in found if not any("busybox" in n for n in i.get("names", [])))


def files_table(space: str, runs: int) -> list[list[str]]:
    """A row per place: rates, with the ratio to the host's."""
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="hyb") as directory:
        bench = Pods(Path(directory), space, runs)
        try:
            host = Path(directory) / "host"
            host.mkdir()
            rates["host"] = bench.on_host(host)
            for name, path in bench.places(_fio_image(bench)).items():
                print(f"measuring files on {name} ...", file=sys.stderr, flush=True)
                rates[name] = bench.in_guest(path)
            bench.ctl("pod", "rm", "-f", "files")
        finally:
            bench.close()
    columns = [*_JOBS, "small files"]
    rows = []
    for name, found in rates.items():
        cells = [
            f"{found[c]:.1f} ({found[c] / rates['host'][c]:.2f})"
            if c != "small files"
            else f"{1 / found[c]:.2f} s ({found[c] / rates['host'][c]:.2f})"
            for c in columns
        ]
        rows.append([name, *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pods", description="Start times of pods; file throughput as ratios to the host's."
    )
    parser.add_argument("--runs", type=int, default=7, help="runs of each short command")
    args = parser.parse_args()
    with namespace() as space:
        with tempfile.TemporaryDirectory(prefix="hyb") as directory:
            bench = Pods(Path(directory), space, args.runs)
            try:
                figures = bench.start_times()
            finally:
                bench.close()
        print_table(HEAD, [f.row() for f in figures])
        print()
        head = ["FILE SYSTEM", "4k random read", "4k random write", "1m read", "1m write", "2000 small files"]
        print_table(head, files_table(space, args.runs))
    print("\nMB/s, and seconds for the small files; in brackets the rate relative to the host's own file system")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
