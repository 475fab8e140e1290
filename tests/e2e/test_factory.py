# SPDX-License-Identifier: Apache-2.0
"""hyperctl factory, and hyperctl run --trace."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import machines

from .conftest import Daemon, launched, wait_for


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon of which nobody else has asked anything."""
    with launched(tmp_path_factory.mktemp("factory") / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        yield daemon


def status(daemon: Daemon) -> dict[str, object]:
    found: dict[str, object] = json.loads(daemon.out("factory", "status", "--format", "json"))
    return found


def test_warm_status_run_drain(factory: Daemon) -> None:
    shown = factory.out("factory", "warm", "-n", "2").splitlines()
    assert shown[0].startswith("Templates: ") and any(
        line.split()[:4] == ["1cpu-256m-user", "any", "2", "2"] for line in shown
    )
    waiting = machines(factory.run, factory=True)
    assert len(waiting) == 2
    before = status(factory)["started"]["pool"]  # type: ignore[index]
    assert factory.out("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert status(factory)["started"]["pool"] == before + 1  # type: ignore[index]
    assert factory.out("factory", "status", "-f", "{{.Enabled}}") == "true"
    assert int(factory.out("factory", "drain", "--templates")) >= 1
    left = status(factory)
    assert left["templates"] == [] and left["pool"] == [] and machines(factory.run, factory=True) == []


def test_the_second_run_is_not_a_boot(factory: Daemon) -> None:
    factory.ctl("run", "--rm", "busybox", "true")
    wait_for(lambda: bool(status(factory)["templates"]), "a template")
    before: dict[str, int] = status(factory)["started"]  # type: ignore[assignment]
    factory.ctl("run", "--rm", "busybox", "true")
    factory.ctl("run", "--rm", "--isolation=fresh", "busybox", "true")
    after: dict[str, int] = status(factory)["started"]  # type: ignore[assignment]
    assert (
        after["cold"] == before["cold"] + 1 and after["pool"] + after["clone"] == before["pool"] + before["clone"] + 1
    )
    factory.ctl("factory", "drain", "--templates")


def test_a_factory_that_is_off(tmp_path: Path) -> None:
    with launched(tmp_path / "root", "--no-factory") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        assert daemon.out("run", "--rm", "busybox", "echo", "hi") == "hi"
        assert daemon.out("factory", "status") == "The factory is off: every virtual machine boots."
        done = daemon.ctl("factory", "warm", check=False)
        assert done.returncode == 1 and "the factory is off: start hyperd with --factory" in done.stderr
        assert machines(daemon.run, factory=True) == []


def test_traces(factory: Daemon, tmp_path: Path) -> None:
    done = factory.ctl("run", "--rm", "--trace", "-", "busybox", "echo", "hi")
    assert done.stdout == "hi\n"
    lines = [line.split(None, 3) for line in done.stderr.splitlines()]
    lanes = {line[2] for line in lines[1:]}
    assert lanes == {"hyperctl", "hyperd", "qemu", "guest"} and {"program runs", "disks found"} <= {
        line[3] for line in lines
    }
    factory.ctl("run", "--rm", "--trace", tmp_path / "run.json", "busybox", "true")
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    spans = {e["name"]: e for e in events if e["ph"] == "X"}
    begin, runs = spans["Python, flags read"], spans["program runs"]
    assert begin["ts"] <= runs["ts"] + 5000 and all(
        e["dur"] > -5000 for e in spans.values()
    )  # the guest's clock: to some ms
    factory.ctl("run", "--rm", "--trace", tmp_path / "run.svg", "busybox", "true")
    drawn = ET.parse(tmp_path / "run.svg").getroot()
    texts = [t.text for t in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert drawn.tag.endswith("svg") and "program runs" in texts and len(texts) > 20
    factory.ctl("factory", "drain", "--templates")


def test_a_traced_run_that_cannot_be_written(factory: Daemon, tmp_path: Path) -> None:
    done = factory.ctl("run", "--rm", "--trace", tmp_path / "none/run.svg", "busybox", "true", check=False)
    assert done.returncode == 125 and "cannot write" in done.stderr and "No such file or directory" in done.stderr


def test_the_quick_way_and_the_commands_answer_alike(factory: Daemon) -> None:
    """`--log-opt` is not for the quick way; what is said of a failure does not depend on it."""
    for command in (["nosuch"], ["sh", "-c", "echo out; echo err >&2; exit 3"]):
        quick = factory.ctl("run", "--rm", "busybox", *command, check=False)
        slow = factory.ctl("run", "--rm", "--log-opt", "max-file=1", "busybox", *command, check=False)
        assert (quick.returncode, quick.stdout, quick.stderr) == (slow.returncode, slow.stdout, slow.stderr)
    failed = [
        factory.ctl("run", "-d", *more, "busybox", "nosuch", check=False) for more in ([], ["--log-opt", "max-file=1"])
    ]
    for done in failed:
        assert done.returncode == 127 and len(done.stdout.strip()) == 64  # it is there, to be looked at
        factory.ctl("rm", done.stdout.strip())
    assert failed[0].stderr == failed[1].stderr
