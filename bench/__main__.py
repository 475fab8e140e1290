# SPDX-License-Identifier: Apache-2.0
"""`make bench`: figures beside podman's with runc, of the same images, in one run.

The peers are run alternately on one machine; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

from hypercontainer.hyperctl.output import print_table

from . import charts
from .measure import HEAD, Figure, alternating, median_of, run, seconds, stdout_rate
from .peers import BUSYBOX, NGINX, Hyper, Podman, daemon, docker, first_answer, namespace
from .scale import AT_A_TIME, Scale

MEGABYTES = 200
PORT = 8090


class Bench:
    """The figures, one method for each group."""

    def __init__(self, directory: Path, space: str, runs: int, pictures: Path | None) -> None:
        self.directory, self.space, self.runs, self.charts = directory, space, runs, pictures
        self.podman = Podman(space)

    def start(self, name: str, *options: str) -> contextlib.AbstractContextManager[Hyper]:
        return daemon(self.directory / name, self.space, *options)

    def starts(self) -> list[Figure]:
        """`run --rm busybox true` on the daemon's default network; podman has none, which is faster for it."""
        words = ("run", "--rm", "busybox", "true")
        peer = lambda: self.podman.run("--rm", "--network", "none", BUSYBOX, "true")  # noqa: E731
        figures = []
        with self.start("pool") as hyper:
            source = f"{hyper.root}/images:docker.io/library/busybox:latest"
            self.podman.load(source, BUSYBOX)
            hyper.ctl(*words)
            ours, theirs = alternating(lambda: hyper.ctl(*words), peer, self.runs, before=hyper.pool_ready)
            figures.append(Figure("run --rm busybox true, pool", ours, "s", theirs, 0.6))
            none = ("run", "--rm", "--network", "none", "busybox", "true")
            hyper.ctl(*none)
            ours, theirs = alternating(lambda: hyper.ctl(*none), peer, self.runs, before=hyper.pool_ready)
            figures.append(Figure("the same with --network none, pool", ours, "s", theirs, 0.6))
        with self.start("clone", "--pool-memory", "0") as hyper:
            hyper.ctl(*words)
            hyper.templates_ready()
            ours, theirs = alternating(lambda: hyper.ctl(*words), peer, self.runs)
            figures.append(Figure("run --rm busybox true, clone", ours, "s", theirs, 1.1))
            cold = ("run", "--rm", "--isolation", "fresh", "busybox", "true")
            figures.append(
                Figure("run --rm busybox true, cold", median_of(lambda: hyper.ctl(*cold), self.runs), "s", None, 0.8)
            )
            figures.append(Figure("version", median_of(lambda: hyper.ctl("version"), self.runs), "s", None, 0.08))
        return figures

    def docker(self) -> list[Figure]:
        """Docker's own client, on hyperd's socket and on that of podman's service."""
        with self.start("docker") as hyper, self.podman.service(self.directory) as peer:
            self.podman.load(f"{hyper.root}/images:docker.io/library/busybox:latest", BUSYBOX)
            words = ("run", "--rm", "--network", "none")
            docker(hyper.docker_socket, *words, "busybox", "true")
            ours, theirs = alternating(
                lambda: docker(hyper.docker_socket, *words, "busybox", "true"),
                lambda: docker(peer, *words, BUSYBOX, "true"),
                self.runs,
                before=hyper.pool_ready,
            )
            return [Figure("docker run --rm busybox true, without a network, pool", ours, "s", theirs, 0.8)]

    def with_network(self) -> list[Figure]:
        """A network of the host, a published port and a named volume, on both sides; nginx to its first answer."""
        from tests.e2e.images import nginx

        figures = []
        options = ("--rm", "-p", f"{PORT}:80", "-v", "bench:/data")
        with self.start("network") as hyper:
            words = ("run", *options, "busybox", "true")
            hyper.ctl(*words)
            try:
                ours, theirs = alternating(
                    lambda: hyper.ctl(*words),
                    lambda: self.podman.run(*options, BUSYBOX, "true"),
                    self.runs,
                    before=hyper.pool_ready,
                )
            finally:
                self.podman("volume", "rm", "-f", "bench")
            figures.append(Figure("run with network, port and volume, pool", ours, "s", theirs, 1.0))
            layout = f"{nginx()}:test"
            self.podman.load(layout, NGINX)
            image = hyper.ctl("pull", "-q", f"oci:{layout}").stdout.decode().strip()
            served = first_answer(self.space, PORT)
            mine, peers = [], []
            for index in range(self.runs + 1):
                hyper.pool_ready()
                times = []
                for begin, remove in (
                    (
                        lambda: hyper.ctl("run", "-d", "--name", "bench-web", "-p", f"{PORT}:80", image),
                        lambda: hyper.ctl("rm", "-f", "bench-web"),
                    ),
                    (
                        lambda: self.podman.run("-d", "--name", "bench-web", "-p", f"{PORT}:80", NGINX),
                        lambda: self.podman("rm", "-f", "-t", "0", "bench-web"),
                    ),
                ):
                    times.append(seconds(lambda: (begin(), run(served))))  # noqa: B023
                    remove()
                if index:
                    mine.append(times[0])
                    peers.append(times[1])
            figures.append(
                Figure(
                    "nginx from run -d -p to its first 200, pool",
                    statistics.median(mine),
                    "s",
                    statistics.median(peers),
                    1.2,
                )
            )
        return figures

    def inside(self) -> list[Figure]:
        """exec, and output."""
        with self.start("inside") as hyper:
            hyper.ctl("run", "-d", "--name", "bench-exec", "busybox", "sleep", "100000")
            self.podman.run("-d", "--name", "hyper-bench-exec", "--network", "none", BUSYBOX, "sleep", "100000")
            try:
                hyper.pool_ready()
                ours, theirs = alternating(
                    lambda: hyper.ctl("exec", "bench-exec", "true"),
                    lambda: self.podman("exec", "hyper-bench-exec", "true"),
                    self.runs,
                )
            finally:
                hyper.ctl("rm", "-f", "bench-exec")
                self.podman("rm", "-f", "-t", "0", "hyper-bench-exec")
            return [Figure("exec true in a running container", ours, "s", theirs, 1.0), self._throughput(hyper)]

    def _throughput(self, hyper: Hyper) -> Figure:
        """What runs without output is taken off."""
        runs = max(3, self.runs // 3)
        ours = stdout_rate(lambda script: hyper.ctl("run", "--rm", "busybox", "sh", "-c", script), MEGABYTES, runs)
        theirs = stdout_rate(
            lambda script: self.podman.run("--rm", "--network", "none", BUSYBOX, "sh", "-c", script), MEGABYTES, runs
        )
        print(f"stdout: podman {theirs:.0f} MB/s", file=sys.stderr)
        return Figure(f"stdout of {MEGABYTES} MB (podman: {theirs:.0f} MB/s)", ours, "MB/s", None, 150, at_least=True)

    def pull(self) -> list[Figure]:
        from tests.e2e.images import nginx

        from .registry import Registry

        with contextlib.suppress(RuntimeError):  # layers that are there already would not be pulled
            self.podman("rmi", "-f", NGINX)
        with (
            self.start("pull") as hyper,
            tempfile.TemporaryDirectory() as store,
            Registry(Path(store), self.space) as address,
        ):
            name = f"{address}/nginx:bench"
            inside = ["nsenter", f"--net=/run/netns/{self.space}"]
            run(
                [
                    *inside,
                    "skopeo",
                    "--insecure-policy",
                    "copy",
                    "-q",
                    "--dest-tls-verify=false",
                    f"oci:{nginx()}:test",
                    f"docker://{name}",
                ]
            )
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(min(self.runs, 5)):
                times["ours"].append(seconds(lambda: hyper.ctl("pull", "-q", name)))
                hyper.ctl("rmi", name)
                times["theirs"].append(seconds(lambda: self.podman("pull", "-q", "--tls-verify=false", name)))
                self.podman("rmi", name)
            ours, theirs = (statistics.median(times[who]) for who in ("ours", "theirs"))
        return [Figure("pull and convert nginx (5 layers, 170 MB)", ours, "s", theirs, 1.5)]

    def build(self) -> list[Figure]:
        from . import builds

        (directory := self.directory / "builds").mkdir()
        with self.start("build") as hyper:
            return builds.measure(hyper, directory, self.runs)

    def many(self) -> list[Figure]:
        scale = Scale(self.directory, self.space)
        figures = scale.measure()
        if self.charts:
            charts.curve(scale.curve, self.charts / "hundred-pods.png", AT_A_TIME)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Figures beside podman's, as medians with ratios."
    )
    parser.add_argument("--runs", type=int, default=15, help="runs of each short command")
    parser.add_argument(
        "--only", nargs="*", default=[], help="groups: starts docker with_network inside pull build many"
    )
    parser.add_argument("--charts", type=Path, help="a directory for pictures")
    args = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="hyb") as directory, namespace() as space:
        bench = Bench(Path(directory), space, args.runs, args.charts)
        for step in (bench.starts, bench.docker, bench.with_network, bench.inside, bench.pull, bench.build, bench.many):
            if not args.only or step.__name__ in args.only:
                print(f"measuring {step.__name__} ...", file=sys.stderr, flush=True)
                figures += (found := step())
                for figure in found:
                    print("  " + "  ".join(filter(None, figure.row())), file=sys.stderr, flush=True)
        with bench.start("info") as hyper:
            info = hyper.json("info")
    print(
        f"accelerator {info['accelerator']}, {info['driver']}, kernel {info['kernelVersion']}, "
        f"medians of {args.runs} runs\n"
    )
    print_table(HEAD, [f.row() for f in figures])
    if args.charts:
        charts.figures(figures, args.charts / "figures.png")


if __name__ == "__main__":
    main()
