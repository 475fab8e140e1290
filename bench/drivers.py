# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.drivers`: each driver that works on this host beside podman with runc, in one run.

Both sides run the same image without a network, in turns; QEMU is measured with each of its machine types. Goals are
those of a host with KVM: an emulated processor misses them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import libvirtd

from hypercontainer.hyperctl.output import print_table

from . import mappings, waterfall
from .measure import HEAD, Figure, alternating, stdout_rate
from .peers import BUSYBOX, Hyper, Podman, daemon, machines, memory, namespace

GROUPS = ("starts", "inside", "memory")
TYPES = ("microvm", "q35")  # QEMU's, of which the second is what older ones have
GOALS = {"pool": 0.6, "clone": 0.8, "cold": 2.5, "exec": 1.0}  # times podman
PRIVATE, PSS = 16, 24  # MB, of an idle pod
_RUN = ("run", "--rm", "--network", "none")
_MB = 1024  # kilobytes


@dataclass(frozen=True)
class Subject:
    """A driver, as a daemon is told of it."""

    driver: str
    machine_type: str
    can: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.driver}:{self.machine_type}" if self.machine_type else self.driver


@dataclass(frozen=True)
class Plan:
    """What is asked for on the command line."""

    runs: int
    pods: int
    only: frozenset[str]  # groups of figures
    megabytes: int  # of output
    waterfalls: bool
    mappings: bool


class Bench:
    """The figures of one driver after the other; they share a root, so an image is converted once."""

    def __init__(self, directory: Path, space: str, plan: Plan, options: Sequence[str]) -> None:
        """`options` are each hyperd's."""
        self._directory, self._space, self._plan, self._options = directory, space, plan, options
        self._podman = Podman(space)

    def _start(self, *options: str) -> contextlib.AbstractContextManager[Hyper]:
        return daemon(self._directory / "hyper", self._space, *self._options, *options)

    def survey(self) -> dict[str, Any]:
        """What hyperd says of itself and of its drivers, once each was tried; podman has the image then."""
        with self._start() as hyper:
            hyper.ctl("doctor", "--probe")
            self._podman.load(f"{hyper.root}/images:docker.io/library/busybox:latest", BUSYBOX)
            info: dict[str, Any] = hyper.json("info")
            return info

    def measure(self, subject: Subject, accelerator: str) -> Iterator[Figure]:
        goals = accelerator == "kvm"
        options = ["--driver", subject.driver, "--accelerator", accelerator]
        if subject.machine_type:
            settings = self._directory / f"{subject.machine_type}.toml"
            settings.write_text(f'machine_type = "{subject.machine_type}"\n')
            options += ["--config", str(settings)]
        only = self._plan.only
        with self._start(*options, "--pool-memory", "0") as hyper:
            if "starts" in only:
                yield self._against("cold", hyper, _cold(hyper), goals)
            if "templates" in subject.can:
                self._clones(hyper)
                if "starts" in only:
                    yield self._against("clone", hyper, _run(hyper), goals)
            if "inside" in only:
                yield from self._inside(hyper, goals)
            if "memory" in only:
                yield from self._many(subject, hyper, goals)
        if "pool" in subject.can and "starts" in only:
            with self._start(*options) as hyper:
                _run(hyper)()
                yield self._against("pool", hyper, _run(hyper), goals, before=hyper.pool_ready)

    def _clones(self, hyper: Hyper) -> None:
        """From here on machines are clones."""
        _run(hyper)()
        hyper.templates_ready()

    def _against(
        self, kind: str, hyper: Hyper, ours: Callable[[], object], goals: bool, before: Callable[[], None] | None = None
    ) -> Figure:
        podman = lambda: self._podman.run("--rm", "--network", "none", BUSYBOX, "true")  # noqa: E731
        mine, theirs = alternating(ours, podman, self._plan.runs, before=before)
        if self._plan.waterfalls:
            options = ["--network", "none", *(["--isolation", "fresh"] if kind == "cold" else [])]
            spans = waterfall.median_run(hyper, self._directory, *options, pool=kind == "pool", runs=self._plan.runs)
            with contextlib.redirect_stdout(sys.stderr):
                waterfall.show(kind, spans)
        return Figure(f"run --rm busybox true, {kind}", mine, "s", theirs, GOALS[kind] if goals else None)

    def _inside(self, hyper: Hyper, goals: bool) -> Iterator[Figure]:
        """exec, and output."""
        hyper.ctl("run", "-d", "--network", "none", "--name", "bench-exec", "busybox", "sleep", "100000")
        self._podman.run("-d", "--name", "hyper-bench-exec", "--network", "none", BUSYBOX, "sleep", "100000")
        try:
            mine, theirs = alternating(
                lambda: hyper.ctl("exec", "bench-exec", "true"),
                lambda: self._podman("exec", "hyper-bench-exec", "true"),
                self._plan.runs,
            )
        finally:
            hyper.ctl("rm", "-f", "bench-exec")
            self._podman("rm", "-f", "-t", "0", "hyper-bench-exec")
        yield Figure("exec true in a running container", mine, "s", theirs, GOALS["exec"] if goals else None)
        amount, runs = self._plan.megabytes, max(1, self._plan.runs // 3)
        ours = stdout_rate(lambda script: hyper.ctl(*_RUN, "busybox", "sh", "-c", script), amount, runs)
        peer = stdout_rate(
            lambda script: self._podman.run("--rm", "--network", "none", BUSYBOX, "sh", "-c", script), amount, runs
        )
        yield Figure(f"stdout of {amount} MB", ours, "MB/s", peer or None)

    def _many(self, subject: Subject, hyper: Hyper, goals: bool) -> Iterator[Figure]:
        """Memory of idle pods; where machines are no processes of this host there is nothing to see."""
        names = [f"bench-{number}" for number in range(self._plan.pods)]
        try:
            for name in names:
                hyper.ctl("run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "100000")
            pids = machines(hyper)
            if len(pids) == len(names):
                private = statistics.median(memory(pid, "Private_Clean", "Private_Dirty") for pid in pids) / _MB
                pss = statistics.median(memory(pid, "Pss") for pid in pids) / _MB
                yield Figure(
                    f"private memory of an idle pod, of {len(pids)}", private, "MB", None, PRIVATE if goals else None
                )
                yield Figure("the same, PSS", pss, "MB", None, PSS if goals else None)
            if pids and self._plan.mappings:
                with contextlib.redirect_stdout(sys.stderr):
                    print_table(["PRIVATE", "MAPPED"], mappings.rows(pids[-1]))
        finally:
            hyper.ctl("rm", "-f", *names)


def _run(hyper: Hyper) -> Callable[[], object]:
    return lambda: hyper.ctl(*_RUN, "busybox", "true")


def _cold(hyper: Hyper) -> Callable[[], object]:
    return lambda: hyper.ctl(*_RUN, "--isolation", "fresh", "busybox", "true")


def subjects(info: dict[str, Any], wanted: list[str]) -> list[Subject]:
    """Those that work here; `wanted` has names of drivers, or of QEMU's with a machine type (`qemu:q35`).

    :raise SystemExit: one of these names is of none that works.
    """
    found = []
    for driver in info["drivers"]:
        for machine_type in TYPES if driver["name"] == "qemu" else ("",):
            subject = Subject(driver["name"], machine_type, tuple(driver["can"]))
            if driver["usable"] and (not wanted or {subject.name, subject.driver} & set(wanted)):
                found.append(subject)
    if unknown := set(wanted) - {name for s in found for name in (s.name, s.driver)}:
        raise SystemExit(
            f"bench.drivers: no driver {' or '.join(sorted(unknown))} works on this host: see hyperctl doctor"
        )
    return found


def as_json(info: dict[str, Any], figures: dict[str, list[Figure]]) -> str:
    rows = [
        {"driver": name, "figure": f.name, "value": f.value, "unit": f.unit, "podman": f.peer, "goal": f.goal,
         "met": f.met}
        for name, found in figures.items()
        for f in found
    ]  # fmt: skip
    return json.dumps({"accelerator": info["accelerator"], "kernel": info["kernelVersion"], "figures": rows}, indent=2)


def _count(text: str) -> int:
    """:raise ArgumentTypeError: it is none, of which there is one at least."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: it is 1 at least")
    return int(text)


def _plan() -> tuple[Plan, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m bench.drivers", description="Each driver beside podman, as medians with ratios."
    )
    parser.add_argument("--runs", type=_count, default=7, help="runs of each short command")
    parser.add_argument("--pods", type=_count, default=20, help="idle pods whose memory is looked at")
    parser.add_argument("--megabytes", type=_count, default=50, help="of output")
    parser.add_argument("--drivers", nargs="*", default=[], metavar="NAME", help="such as qemu, qemu:q35, firecracker")
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=GROUPS, help="groups of figures")
    parser.add_argument("--waterfall", action="store_true", help="where the time of each start goes, to stderr")
    parser.add_argument("--mappings", action="store_true", help="where a pod's private memory lies, to stderr")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args()
    return Plan(args.runs, args.pods, frozenset(args.only), args.megabytes, args.waterfall, args.mappings), args


def collect(bench: Bench, chosen: list[Subject], accelerator: str) -> tuple[dict[str, list[Figure]], list[str]]:
    """The figures of each, and what went wrong: a driver that fails has those that it had by then."""
    figures: dict[str, list[Figure]] = {}
    failures = []
    for subject in chosen:
        print(f"measuring {subject.name} ...", file=sys.stderr, flush=True)
        figures[subject.name] = []
        try:
            for figure in bench.measure(subject, accelerator):
                figures[subject.name].append(figure)
                print("  " + "  ".join(filter(None, figure.row())), file=sys.stderr, flush=True)
        except RuntimeError as e:
            failures.append(f"{subject.name}: {e}")
    return figures, failures


def main() -> int:
    plan, args = _plan()
    with tempfile.TemporaryDirectory(prefix="hyb") as name, namespace() as space, contextlib.ExitStack() as stack:
        directory = Path(name)
        options = []
        if not libvirtd.missing():
            options += ["--libvirt-uri", stack.enter_context(libvirtd.running(directory / "libvirt", space)).uri]
        bench = Bench(directory, space, plan, options)
        info = bench.survey()
        figures, failures = collect(bench, subjects(info, args.drivers), info["accelerator"])
    for failure in failures:
        print(f"bench.drivers: {failure}", file=sys.stderr)
    if args.format == "json":
        print(as_json(info, figures))
        return int(bool(failures))
    versions = ", ".join(f"{d['name']} {d['version']}" for d in info["drivers"] if d["usable"])
    print(
        f"accelerator {info['accelerator']}, {versions}, kernel {info['kernelVersion']}, medians of {plan.runs} runs\n"
    )
    print_table(["DRIVER", *HEAD], [[name, *f.row()] for name, found in figures.items() for f in found])
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
