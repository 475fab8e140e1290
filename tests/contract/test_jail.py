# SPDX-License-Identifier: Apache-2.0
"""What every jail does: the program gets what it is handed, and is our child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.jail.fake import FakeJail
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.jail.jail import Entry, Jail, Order, Started
from hypercontainer.jail.libraries import libraries
from hypercontainer.jail.plain import PlainJail
from hypercontainer.sys import users

SHELL = Path("/bin/sh").resolve()


@pytest.fixture(params=["hyperjail", "plain", "fake"])
def jail(request: pytest.FixtureRequest, tmp_path: Path) -> Jail:
    made: dict[str, Callable[[], Jail]] = {
        "hyperjail": lambda: HyperJail(tmp_path / "jail"),
        "plain": PlainJail,
        "fake": FakeJail,
    }
    found = made[request.param]()
    if why := found.hindrance():
        pytest.skip(f"this host has no jail: {why}")
    return found


class Output:
    """What a program prints."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)

    def text(self) -> str:
        return self._path.read_text()


@pytest.fixture
def output(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Output(tmp_path / "output")
    yield made
    os.close(made.fd)


def shell(script: str, output: Output, **how: object) -> Order:
    files = tuple(Entry(p) for p in (SHELL, *libraries(SHELL)))
    null = (Path("/dev/null"),)
    order: dict[str, object] = {"devices": null, "user": users.pick(), "output": output.fd, "files": files, **how}
    return Order((str(SHELL), "-c", script), **order)  # type: ignore[arg-type]


def ended(started: Started) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])


async def test_arguments_environment_and_status(jail: Jail, output: Output) -> None:
    script = 'echo "$0 $A ${PATH_OF_OURS-none}"; exit 7'
    order = shell(script, output, environment={"A": "1"})
    os.environ["PATH_OF_OURS"] = "secret"
    try:
        started = await jail.spawn(order)
    finally:
        del os.environ["PATH_OF_OURS"]
    assert ended(started) == 7
    assert output.text() == f"{SHELL} 1 none\n"


async def test_the_daemons_umask_is_not_in_the_way(jail: Jail, output: Output) -> None:
    """hyperd's own is 077, and what a jail makes for a program is to be passed through by that."""
    before = os.umask(0o077)
    try:
        assert ended(await jail.spawn(shell("exit 3", output))) == 3
    finally:
        os.umask(before)


def children() -> set[int]:
    """Processes that are our children, also those that have ended and were not waited for."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(") ")[2].split()[1] == str(os.getpid()):
                found.add(int(path.parent.name))
    return found


def end(pids: set[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_start_that_is_given_up_leaves_nothing(jail: Jail, output: Output, steps: int) -> None:
    """Whoever gives up while the process's number is on its way does not hear it any more; it is ended all the same."""
    before = children()
    start = asyncio.ensure_future(jail.spawn(shell("while :; do :; done", output)))
    for _ in range(steps):
        await asyncio.sleep(0)
    start.cancel()
    try:
        os.kill((await start).pid, signal.SIGKILL)  # it was there before that
    except asyncio.CancelledError:
        assert children() == before
    finally:
        end(children() - before)


async def test_who_asked_hears_of_the_process_first(jail: Jail, output: Output) -> None:
    heard: list[Started] = []
    started = await jail.spawn(shell("true", output), heard.append)
    assert heard == [started]
    assert ended(started) == 0


async def test_descriptors_and_no_others(jail: Jail, output: Output) -> None:
    handed, other = ends = os.pipe()
    try:
        script = f"test -e /proc/self/fd/{handed} && echo handed; test -e /proc/self/fd/{other} && echo another; true"
        assert ended(await jail.spawn(shell(script, output, descriptors=(handed,)))) == 0
        assert output.text() == "handed\n"
    finally:
        for fd in ends:
            os.close(fd)


async def test_nothing_to_read(jail: Jail, output: Output) -> None:
    assert ended(await jail.spawn(shell("read line && echo got $line; true", output))) == 0
    assert output.text() == ""


async def test_a_program_that_is_not_there(jail: Jail, output: Output) -> None:
    order = Order(("/nothing/here",), users.pick(), output.fd)
    with pytest.raises(Unavailable, match="/nothing/here"):
        await jail.spawn(order)


async def test_a_program_by_its_name(output: Output) -> None:
    """As `unshare` is, which makes a user's daemon its namespaces."""
    order = Order(("sh", "-c", "exit 7"), users.pick(), output.fd, environment={"PATH": "/usr/bin:/bin"})
    assert ended(await PlainJail().spawn(order)) == 7


async def test_a_hyperjail_of_another_version(
    jail: Jail, output: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """hyperd asks for what an earlier one does not know: both the start and hyperd's own look say what to do."""
    if not isinstance(jail, HyperJail):
        pytest.skip("the others have no program of their own")
    words = HyperJail._words
    monkeypatch.setattr(HyperJail, "_words", lambda self, order: ["word-of-tomorrow", *words(self, order)])
    sentence = 'hyperjail is of another version than hyperd: it does not know "word-of-tomorrow"'
    with pytest.raises(Unavailable) as refused:
        await jail.spawn(shell("true", output))
    assert refused.value.message == sentence and "make setup" in refused.value.hint
    assert HyperJail(tmp_path / "another").hindrance().startswith(f"{sentence}; run `make setup`")


_forked: list[Path] = []  # where a fork of this process says so


def _say_so() -> None:
    for path in _forked:
        path.touch()


os.register_at_fork(after_in_child=_say_so)


async def test_no_fork_of_ours_runs(jail: Jail, output: Output, tmp_path: Path) -> None:
    """It would be a copy of a process with threads, in any state: gRPC's handlers end many such children."""
    _forked.append(seen := tmp_path / "seen")
    try:
        assert ended(await jail.spawn(shell("exit 3", output, dies_with_us=True))) == 3
    finally:
        _forked.clear()
    assert not seen.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose")
async def test_another_user(jail: Jail, output: Output) -> None:
    order = shell("id -u 2>/dev/null || echo no id; exec 3<&0; while read name rest; do "
                  'case $name in Uid:) echo "$rest";; esac; done < /proc/self/status', output)  # fmt: skip
    assert ended(await jail.spawn(order)) == 0
    assert output.text().splitlines()[-1].split() == [str(order.user)] * 4
