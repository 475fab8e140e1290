# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that stand still, and machines that run while PID 1 in them is silent.

Every verb ends within its deadline, and so do the daemon's start and end.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Daemon, alive, launched, wait_for

_MARGIN = 3.0  # seconds that a host may add which has a core for each thing that runs


@pytest.fixture(scope="module")
def hyper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with launched(tmp_path_factory.mktemp("wedged") / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        yield daemon
        daemon.remove_all()


@pytest.fixture(scope="module")
def starve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This host's chrt with what it is linked to: a directory."""
    path = tmp_path_factory.mktemp("starve") / "rt"
    path.mkdir()
    program = shutil.which("chrt")
    assert program, "chrt is of the package util-linux"
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for file in (program, *re.findall(r"(/\S+) \(0x", linked)):
        shutil.copy(file, path)
    return path


_SILENCE = """
    echo -1 > /proc/sys/kernel/sched_rt_runtime_us || exit
    trap 'exec /rt/ld-linux-x86-64.so.2 --library-path /rt /rt/chrt -f 99 sh -c "while :; do :; done"' USR1
    echo ready; while :; do sleep 0.1; done
"""


def silence(hyper: Daemon, name: str, starve: Path) -> int:
    """Start a container that leaves PID 1 of its machine no time: real time, without a limit; the machine's process."""
    hyper.ctl("create", "--privileged", "--name", name, "busybox", "sh", "-c", _SILENCE)
    hyper.ctl("cp", starve, f"{name}:/")
    hyper.ctl("start", name)
    pid = machine_of(hyper, name)
    wait_for(lambda: "ready" in hyper.out("logs", name), "the program's word")
    hyper.ctl("kill", "-s", "USR1", name, check=False)  # its answer may be the first that does not come
    # A question, which has a deadline: a program that began before the silence is waited for as long as it takes.
    wait_for(lambda: hyper.ctl("top", name, check=False).returncode != 0, "silence")
    assert alive(pid) and state(pid) != "T"
    return pid


def margin() -> float:
    """Seconds that the host may add as it is now, with all else that runs on it."""
    return _MARGIN * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]


@pytest.fixture(params=["stopped", "silent"])
def wedged(hyper: Daemon, starve: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], tuple[str, int]]]:
    """Containers whose QEMU is stopped, or whose PID 1 does nothing while QEMU runs: name and process."""
    made: list[tuple[str, int]] = []

    def make() -> tuple[str, int]:
        name = f"w{len(made)}-{time.monotonic_ns()}"
        if request.param == "silent":
            pid = silence(hyper, name, starve)
        else:
            hyper.ctl("run", "-d", "--name", name, "busybox", "sleep", "1000")
            pid = machine_of(hyper, name)
            os.kill(pid, signal.SIGSTOP)
        made.append((name, pid))
        return name, pid

    yield make
    hyper.ctl("rm", "-f", *(name for name, _ in made), check=False)


def machine_of(hyper: Daemon, name: str) -> int:
    id_ = hyper.out("inspect", "-f", "{{.id}}", name)
    for found in (hyper.run / "pods").glob("*/pid"):
        if found.parent.name in id_ or id_.startswith(found.parent.name):
            return int(found.read_text().split()[0])
    raise AssertionError(f"no machine of {name} ({id_}): {list((hyper.run / 'pods').iterdir())}")


def timed(hyper: Daemon, *args: str | Path, within: float) -> subprocess.CompletedProcess[str]:
    began = time.monotonic()
    done = hyper.ctl(*args, check=False)
    took = time.monotonic() - began
    assert took < within + margin(), f"{args} took {took:.1f} s\n{done.stderr}"
    return done


@pytest.mark.turns(3)
def test_questions_fail_with_a_sentence(hyper: Daemon, wedged: Callable[[], tuple[str, int]], tmp_path: Path) -> None:
    name, pid = wedged()
    questions = [
        ("top", name),
        ("stats", "--no-stream", name),
        ("exec", name, "true"),
        ("cp", f"{name}:/etc/hosts", tmp_path),
    ]
    with ThreadPoolExecutor() as beside:  # each waits for its deadline
        answers = list(beside.map(lambda args: timed(hyper, *args, within=10), questions))
    for done in (*answers, timed(hyper, "pause", name, within=10)):
        assert done.returncode != 0 and "did not answer" in done.stderr, done
        assert "Traceback" not in done.stderr
    for args in (("ps",), ("inspect", name), ("logs", name), ("version",)):
        assert timed(hyper, *args, within=0.5).returncode == 0
    if state(pid) != "T":
        return
    os.kill(pid, signal.SIGCONT)  # nothing was broken by it
    assert hyper.out("exec", name, "echo", "awake") == "awake"
    assert "sleep" in hyper.out("top", name)


@pytest.mark.turns(3)
@pytest.mark.parametrize(
    ("args", "within"),
    [(("kill", "-s", "KILL"), 5), (("rm", "-f"), 5), (("stop", "-t", "3"), 8)],
    ids=["kill", "rm", "stop"],
)
def test_ended(hyper: Daemon, wedged: Callable[[], tuple[str, int]], args: tuple[str, ...], within: float) -> None:
    name, pid = wedged()
    assert timed(hyper, *args, name, within=within).returncode == 0
    assert not alive(pid)


@pytest.mark.turns(3)
def test_restarted(hyper: Daemon, wedged: Callable[[], tuple[str, int]]) -> None:
    name, pid = wedged()
    assert timed(hyper, "restart", "-t", "1", name, within=10).returncode == 0
    assert not alive(pid)
    assert hyper.out("exec", name, "echo", "again") == "again"


@pytest.mark.turns(3)
def test_daemon_starts_and_ends(tmp_path: Path, starve: Path) -> None:
    with launched(tmp_path / "root") as first:
        first.ctl("pull", "-q", "builtin:busybox")
        for name in ("well", "stopped", "killed"):
            first.ctl("run", "-d", "--name", name, "busybox", "sleep", "1000")
        first.ctl("run", "-d", "--name", "woken", "busybox", "sh", "-c", "sleep 1000")
        pids = {n: machine_of(first, n) for n in ("well", "stopped", "killed", "woken")}
        pids["silent"] = silence(first, "silent", starve)
        first.process.kill()
        first.process.wait(10)
        for name in ("stopped", "killed", "woken"):
            os.kill(pids[name], signal.SIGSTOP)
        began = time.monotonic()
        with launched(first.root, run=first.run) as second:
            assert time.monotonic() - began < 5 + margin()
            assert second.out("exec", "well", "echo", "yes") == "yes"
            assert timed(second, "kill", "-s", "KILL", "killed", within=5).returncode == 0
            assert not alive(pids["killed"])
            os.kill(pids["woken"], signal.SIGCONT)
            wait_for(lambda: second.ctl("exec", "woken", "true", check=False).returncode == 0, "the one that was woken")
            os.kill(pids["woken"], signal.SIGSTOP)
            began = time.monotonic()
            second.process.send_signal(signal.SIGTERM)
            second.process.wait(60)
            assert time.monotonic() - began < 10 + 10 + margin()
            assert not any(map(alive, pids.values()))


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with launched(tmp_path / "root") as daemon:
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl(
            "run", "-d", "--stop-timeout", "100", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; sleep 1000"
        )
        pid = machine_of(daemon, "deaf")
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: timed(daemon, "version", within=2).returncode != 0, "the end's beginning")
        assert daemon.process.poll() is None, "it waits for the container"
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(30)
        assert time.monotonic() - began < 3 + margin()
        wait_for(lambda: not alive(pid), "the machine's end")
