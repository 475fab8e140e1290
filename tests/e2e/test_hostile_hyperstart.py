# SPDX-License-Identifier: Apache-2.0
"""A guest whose init breaks the protocol in every way that tests/hostile knows: that pod ends or can be ended,
hyperd answers and does not grow, and its neighbour feels nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hypercontainer.guest.initramfs import cached
from tests import hostile

from .conftest import BIN, Daemon, launched, wait_for

_GROWTH = 32 << 20  # bytes of hyperd's memory that a guest may cost
_BOOT = 20  # seconds that hyperd waits for a guest
_GROUPS = 6  # so many times some guests at once
_PATIENCE = 15.0  # seconds for a guest that does nothing any more
_TIME = 1.0  # seconds that a guest has for what it does once its container runs


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that boots each machine, and a container on it from before any guest was hostile."""
    root = tmp_path_factory.mktemp("hostile") / "root"
    with launched(root, "--no-factory", "--boot-timeout", str(_BOOT)) as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "neighbour", "--network", "none", "busybox", "sleep", "100000")
        yield daemon
        daemon.remove_all()


def initramfs_of_host(hyper: Daemon) -> Path:
    """What machines of this host's architecture boot with; there may be others."""
    return cached(hyper.root / "cache")


@pytest.fixture
def initramfs(hyper: Daemon) -> Iterator[Path]:
    """The file that hyperd boots guests with; what it was is put back."""
    path = initramfs_of_host(hyper)
    kept = path.read_bytes()
    yield path
    path.write_bytes(kept)


def memory(daemon: Daemon) -> int:
    """Bytes that hyperd holds."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def replace(path: Path, data: bytes) -> None:
    """A machine that boots has the old file open."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def test_the_double_does_what_a_guest_does(hyper: Daemon, initramfs: Path) -> None:
    """Of which the other tests say what goes wrong."""
    replace(initramfs, hostile.initramfs_of(0))
    hyper.ctl("run", "-d", "--name", "honest", "--network", "none", "busybox", "true")
    assert hyper.out("inspect", "-f", "{{.state.status}}", "honest") == "running"
    hyper.ctl("kill", "honest")
    wait_for(lambda: hyper.out("inspect", "-f", "{{.state.status}}", "honest") == "exited", "its end")
    assert hyper.out("inspect", "-f", "{{.state.exitCode}}", "honest") == "137"
    hyper.ctl("rm", "honest")


_NAMES = [n for n in hostile.CASES if n != "nothing wrong"]


@pytest.mark.turns(3)
@pytest.mark.parametrize("names", [_NAMES[i::_GROUPS] for i in range(_GROUPS)], ids="; ".join)
def test_guests_that(hyper: Daemon, initramfs: Path, names: list[str]) -> None:
    before = memory(hyper)
    with contextlib.ExitStack() as stack:
        runs = {name: stack.enter_context(_run(hyper, initramfs, name)) for name in names}
        with ThreadPoolExecutor(len(runs)) as beside:  # most of them wait for what never comes
            words = dict(zip(runs, beside.map(lambda name: _watch(hyper, name, runs[name]), runs), strict=True))
    for name, said in words.items():
        assert "Traceback" not in said and "internal" not in said.lower(), f"{name}: {said}"
    assert memory(hyper) - before < _GROWTH
    assert hyper.out("exec", "neighbour", "echo", "well") == "well"


def _container(name: str) -> str:
    return name.replace(" ", "-")


def _run(hyper: Daemon, initramfs: Path, name: str) -> subprocess.Popen[bytes]:
    """A container in such a guest; its machine has the guest's file open."""
    replace(initramfs, hostile.initramfs_of(hostile.CASES[name]))
    machines = set(hyper.run.glob("pods/*/pid"))
    command = [BIN / "hyperctl", "run", "--name", _container(name), "--network", "none", "busybox", "true"]
    run = subprocess.Popen(
        command, env=hyper.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: run.poll() is not None or set(hyper.run.glob("pods/*/pid")) - machines, f"the guest that {name}")
    return run


def _watch(hyper: Daemon, name: str, run: subprocess.Popen[bytes]) -> str:
    """While the guest does what it does, and then `rm -f`.

    :return: what the command said.
    """
    container = _container(name)
    end = time.monotonic() + _PATIENCE
    began = 0.0
    while run.poll() is None and time.monotonic() < end:
        hyper.ctl("version")  # hyperd answers whatever the guest does
        status = hyper.ctl("inspect", "-f", "{{.state.status}}", container, check=False).stdout.strip()
        if status == "running":
            began = began or time.monotonic()
            if time.monotonic() - began > _TIME:
                break
    hyper.ctl("rm", "-f", container, check=False)
    assert run.wait(15) not in (0, None), name
    assert run.stderr
    words = run.stderr.read().decode()
    gone = f"the end of the container in the guest that {name}"
    wait_for(lambda: not hyper.ctl("inspect", container, check=False).stdout.strip("[]\n "), gone)
    return words
