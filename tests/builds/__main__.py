# SPDX-License-Identifier: Apache-2.0
"""Build all, compare, print a table; a difference fails the run."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e import conftest
from tests.e2e.conftest import Daemon, launched
from tests.e2e.test_build import buildx

from .cases import CASES, Case
from .image import differences, read
from .outside import docker, dockerd

_PATIENCE = 900.0  # seconds for a build, with the builder's start, on a machine that has other things to do
REPEATED = 5  # rebuilds of the first one with nothing changed


class Comparison:
    """Both, and what is told of them."""

    def __init__(self, directory: Path, daemon: Daemon, host: str) -> None:
        self.directory, self.daemon, self.host = directory, daemon, host
        self.contexts = directory / "contexts"
        self._begun = int(time.time())  # one case begins with the image of another

    def compare(self, case: Case) -> list[str]:
        context = case.make(self.contexts)
        name = f"compare:{case.name}"
        options = [option.format(context) for option in case.options]
        self.daemon.ctl("build", "-q", "-t", name, *options, context)
        docker(self.host, "buildx", "build", "-q", "--provenance=false", "-t", name, *options, context)
        theirs = docker(self.host, "save", name).stdout
        path = self.directory / "ours.tar"
        self.daemon.ctl("save", "-o", path, name)
        return differences(read(path.read_bytes()), read(theirs), self._begun)

    def rebuilds(self, case: Case) -> tuple[float, float]:
        """Seconds of a build in which nothing has changed: here, and outside; medians of several by turns."""
        context = self.contexts / case.name
        ours, theirs = [], []
        for _ in range(REPEATED):
            begun = time.monotonic()
            self.daemon.ctl("build", "-q", "-t", f"compare:{case.name}", context)
            ours.append(time.monotonic() - begun)
            begun = time.monotonic()
            docker(self.host, "buildx", "build", "-q", "--provenance=false", "-t", f"compare:{case.name}", context)
            theirs.append(time.monotonic() - begun)
        return statistics.median(ours), statistics.median(theirs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.builds", description=__doc__)
    parser.add_argument("names", nargs="*", help="which Dockerfiles; all")
    wanted = parser.parse_args().names
    conftest.DEADLINE = _PATIENCE
    bad = 0
    with tempfile.TemporaryDirectory(prefix="builds") as temporary:
        directory = Path(temporary)
        plugins = directory / "docker/cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-buildx").symlink_to(buildx(directory))
        os.environ["DOCKER_CONFIG"] = str(directory / "docker")
        with dockerd(directory) as host, launched(directory / "hyper") as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl("save", "-o", directory / "busybox.tar", "busybox")
            docker(host, "load", "-i", directory / "busybox.tar")
            comparison = Comparison(directory, daemon, host)
            for case in CASES:
                if wanted and case.name not in wanted:
                    continue
                try:
                    found = comparison.compare(case)
                except (RuntimeError, AssertionError, subprocess.TimeoutExpired) as error:
                    found = [f"it is not built: {error}"]
                bad += bool(found)
                print(f"| `{case.name}` | {case.about} | {'the same' if not found else 'differs'} |", flush=True)
                for line in found:
                    print(f"    {line}", file=sys.stderr, flush=True)
            here, outside = comparison.rebuilds(CASES[0])
            print(f"nothing changed: {here:.2f} s here, {outside:.2f} s outside: {here / outside:.1f}x", flush=True)
            daemon.ctl("builder", "stop")
            daemon.remove_all()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
