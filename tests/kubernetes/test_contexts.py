# SPDX-License-Identifier: Apache-2.0
"""hyperctl with a context that is a cluster: what it runs is placed by the cluster's scheduler."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, wait_for

from .node import Node
from .space import LIMIT, Space

Ctl = Callable[..., subprocess.CompletedProcess[str]]
RUN = ("run", "--pull", "never", "--stop-timeout", "1")


@pytest.fixture
def ctl(here: Space, tmp_path: Path) -> Ctl:
    """hyperctl, whose context in use is the test's namespace."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    for name in ("HYPER_HOST", "HYPER_CONTEXT"):
        environment.pop(name, None)

    def call(*words: str | Path, status: int = 0, **how: str) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", here.cluster.name, BIN / "hyperctl", *words]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False, **how
        )  # type: ignore[call-overload]
        assert done.returncode == status, (words, done.stdout, done.stderr, here.account())
        return done  # type: ignore[no-any-return]

    call("context", "create", "test", "--kubernetes", "--kubeconfig", here.cluster.kubeconfig, "--namespace", here.name)
    call("context", "use", "test")
    return call


def test_a_command_in_the_cluster(ctl: Ctl, here: Space, first: Node) -> None:
    done = ctl(*RUN, "--rm", "-e", "WORD=hello", "busybox", "sh", "-c", "echo $WORD $(uname -r); exit 3", status=3)
    assert done.stdout.startswith("hello ") and "hyper" in done.stdout
    assert here.get("pods")["items"] == []
    assert ctl(*RUN, "--rm", "-i", "busybox", "wc", "-c", input="12345").stdout == "5\n"


def test_what_goes_on_in_the_background(ctl: Ctl, here: Space) -> None:
    script = "echo begun; exec sleep 100000"
    assert ctl(*RUN, "-d", "--name", "kept", "-m", "32m", "busybox", "sh", "-c", script).stdout == "kept\n"
    (row,) = json.loads(ctl("ps", "--format", "json").stdout)
    assert (row["name"], row["image"], row["node"], row["runtimeClass"]) == ("kept", "busybox", "node1", "hyper")
    assert row["status"].startswith("Up ") and "kept" in ctl("pod", "ls").stdout
    wait_for(lambda: ctl("logs", "kept").stdout == "begun\n", "its first words")
    assert ctl("exec", "kept", "sh", "-c", "echo in; echo out >&2; exit 5", status=5).stderr == "out\n"
    assert ctl("exec", "-i", "kept", "cat", input="given").stdout == "given"
    assert json.loads(ctl("inspect", "kept").stdout)[0]["spec"]["nodeName"] == "node1"
    assert "pod kept runs" in ctl("rm", "kept", status=1).stderr
    assert 'pods "kept" already exists' in ctl(*RUN, "--name", "kept", "busybox", "true", status=125).stderr
    assert ctl("rm", "-f", "kept").stdout == "kept\n"
    assert 'pods "none" not found' in ctl("logs", "none", status=1).stderr
    assert "kubernetes" in ctl("version").stdout


def test_a_terminal(ctl: Ctl, here: Space, tmp_path: Path) -> None:
    command = f"ip netns exec {here.cluster.name} {BIN / 'hyperctl'} {' '.join(RUN)} --rm -it busybox sh"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], input="tty; exit 4\n", capture_output=True, text=True, timeout=LIMIT,
        check=False, env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert "/dev/pts/" in done.stdout and done.returncode == 4, done.stdout


def test_what_does_not_start_is_said_and_gone(ctl: Ctl, here: Space) -> None:
    assert "no/such" in ctl(*RUN, "no/such", status=125).stderr
    missing = ctl(*RUN, "--rm", "busybox", "/no/such/program", status=127)
    assert "/no/such/program" in missing.stderr
    wait_for(lambda: here.get("pods")["items"] == [], "the end of both", LIMIT)
    assert "-p is not possible" in ctl(*RUN, "-p", "80:80", "busybox", status=125).stderr
