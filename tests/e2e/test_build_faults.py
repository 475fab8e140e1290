# SPDX-License-Identifier: Apache-2.0
"""Real builds that end otherwise than they should: each is told in a sentence, and the next build works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hyperbuilder import build as hyperbuilder

from .conftest import BIN, Daemon, launched
from .test_build import context, docker

pytestmark = pytest.mark.slow
SLOW = "FROM busybox\nRUN echo begun; sleep 1000\n"
QUICK = "FROM busybox\nCOPY file /file\nCMD cat /file\n"


@contextlib.contextmanager
def begun(daemon: Daemon, where: Path) -> Iterator[subprocess.Popen[bytes]]:
    """hyperctl, whose build is in the midst of the step of SLOW."""
    with subprocess.Popen(
        [BIN / "hyperctl", "build", where], stderr=subprocess.PIPE, env=daemon.environment
    ) as process:
        assert process.stderr
        while b"begun" not in (line := process.stderr.readline()) or b"RUN" in line:
            assert line, "the build ended before it began"
        yield process


def said(process: subprocess.Popen[bytes]) -> str:
    """By a build that fails."""
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1, text
    return text.decode()


def test_the_builders_machine_ends(tmp_path: Path) -> None:
    """What it had not written to its disk is missing there, and no build may begin with that."""
    hyperbuilder.build()
    with launched(tmp_path / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("build", "-t", "busy", context(tmp_path / "busy", "FROM busybox\nRUN echo busy >/busy\n"))
        with begun(daemon, context(tmp_path / "slow", SLOW)) as process:
            found = daemon.out("inspect", "--format", "{{.id}}", "hyper-builder")
            machine = subprocess.run(["pgrep", "-f", f"name hyper-{found[:12]}"], capture_output=True, check=True)
            os.kill(int(machine.stdout.split()[0]), signal.SIGKILL)
            assert "the builder's virtual machine ended during the build: build it again" in said(process)
        first, second = (context(tmp_path / name, QUICK, file=name) for name in ("one", "two"))
        # Two at once, of which the second is by Docker's own client, have one builder.
        with subprocess.Popen([BIN / "hyperctl", "build", "-qt", "one", first], env=daemon.environment) as other:
            docker(daemon, tmp_path, "build", "-t", "two", second, DOCKER_BUILDKIT="0")
            assert other.wait(60) == 0
        assert [daemon.out("run", "--rm", name) for name in ("one", "two")] == ["one", "two"]
        daemon.ctl("builder", "stop")
        daemon.remove_all()


def test_hyperd_ends(tmp_path: Path) -> None:
    """The builder goes on; what the step did goes with its client."""
    hyperbuilder.build()
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            with begun(daemon, context(tmp_path / "slow", SLOW)) as process:
                before = daemon.out("inspect", "--format", "{{.id}}", "hyper-builder")
                daemon.stop(signal.SIGKILL)
                assert "hyperd went away" in said(process)
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            daemon.ctl("build", "-t", "one", context(tmp_path / "one", QUICK, file="one"))
            assert daemon.out("run", "--rm", "one") == "one"
            assert daemon.out("inspect", "--format", "{{.id}}", "hyper-builder") == before
            assert "sleep 1000" not in daemon.out("exec", "hyper-builder", "ps", "-o", "args")
            daemon.ctl("builder", "stop")
            daemon.remove_all()


def test_the_builders_disk_is_full(tmp_path: Path) -> None:
    hyperbuilder.build()
    (config := tmp_path / "hyperd.toml").write_text('[builder]\ncache = "64m"\n')
    with launched(tmp_path / "root", "--config", str(config)) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        where = context(tmp_path / "large", "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=300\n")
        done = daemon.ctl("build", where, check=False)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr and "raise `cache` of [builder]" in done.stderr
        daemon.ctl("build", "-t", "one", context(tmp_path / "one", QUICK, file="one"))
        assert daemon.out("run", "--rm", "one") == "one"
        daemon.ctl("builder", "stop")
        daemon.remove_all()
