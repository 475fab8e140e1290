# SPDX-License-Identifier: Apache-2.0
"""Run the hyperd of a revision of this repository, kill it, keep the state that it leaves, and upgrade it for real."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.conftest import Daemon, launched, wait_for
from tests.e2e.test_wedged import machine_of

from . import HERE, State, keep, scenario

_TOP = HERE.parents[1]
_OPTIONS = ("--network", "user", "--user-network", "slirp")


@contextlib.contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    """A tree of it, with its programs in C built."""
    with tempfile.TemporaryDirectory(prefix="hyper-upgrade-") as place:
        tree = Path(place) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, revision], cwd=_TOP, check=True)
        try:
            subprocess.run([sys.executable, "hyperstart/build.py"], cwd=tree, check=True)
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=_TOP, check=True)


class _Earlier(Daemon):
    """One of the revision, with its own command line."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "PYTHONPATH": str(self.root.parent / "tree/src")}

    @property
    def command(self) -> list[str | Path]:
        return [sys.executable, "-m", "hypercontainer.hyperctl"]


def _earlier(tree: Path, root: Path, run: Path) -> tuple[int, State]:
    """Begin with the revision's hyperd, and kill it: the process of the machine that it leaves, and its state."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    revision = subprocess.run(words, cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
    program = [sys.executable, "-m", "hypercontainer.hyperd", "--root", str(root), "--run", str(run), *_OPTIONS]
    with open(root.parent / "earlier.log", "wb") as log:
        environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
        process = subprocess.Popen(program, env=environment, stdout=log, stderr=log)
    daemon = _Earlier(process, root, run)
    try:
        wait_for(lambda: daemon.ctl("info", check=False).returncode == 0, "its answer")
        scenario(daemon)
        id_ = daemon.out("inspect", "-f", "{{.id}}", "x")
        pid = int((run / "pods" / id_[:12] / "pid").read_text().split()[0])
    except BaseException:
        daemon.stop()  # and its machines
        raise
    daemon.stop(signal.SIGKILL)
    return pid, keep(root, run, revision)


def _upgraded(root: Path, run: Path, pid: int) -> None:
    """Today's hyperd takes up what is there; and ends it."""
    with launched(root, run=run) as daemon:
        assert machine_of(daemon, "x") == pid
        daemon.ctl("exec", "x", "touch", "/go", check=False)
        wait_for(lambda: daemon.out("inspect", "-f", "{{.state.restartCount}}", "x") != "0", "the end of its program")
        lines = daemon.out("logs", "x").splitlines()
        assert lines[:4] == ["line 0", "line 1", "line 2", "line 3"], lines[:4]
        daemon.ctl("rm", "-f", "x", "old")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.upgrades", description=__doc__)
    parser.add_argument("revision")
    options = parser.parse_args()
    with _checked_out(options.revision) as tree, tempfile.TemporaryDirectory(prefix="hyu") as run:
        root = tree.parent / "root"
        pid, state = _earlier(tree, root, Path(run))
        try:
            _upgraded(root, Path(run), pid)
        except BaseException:
            print((root.parent / "root-hyperd.log").read_text(), file=sys.stderr)
            raise
    path = HERE / f"schema-{state['schema']}.json"
    path.write_text(json.dumps(state, indent=1) + "\n")
    print(f"{path.name}: of {state['revision']}; upgraded with its pod running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
