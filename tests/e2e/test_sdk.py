# SPDX-License-Identifier: Apache-2.0
"""The SDK with real virtual machines."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import (
    DeadlineExceeded,
    GuestError,
    HyperError,
    InvalidArgument,
    InvalidState,
    NotFound,
    StartFailed,
)
from hypercontainer.sdk import AsyncSandbox, CommandFailed, Output, Sandbox
from tests import sdk_calls

from .conftest import Daemon, wait_for
from .test_wedged import machine_of, margin


@pytest.fixture
def host(hyper: Daemon) -> str:
    return str(hyper.socket)


@pytest.fixture
def sandbox(host: str) -> Iterator[Sandbox]:
    with Sandbox.create("busybox", host=host) as made:
        yield made


def test_commands(sandbox: Sandbox) -> None:
    done = sandbox.run("echo out; echo err >&2; exit 3", env={"A": "1"})
    assert (done.exit_code, done.stdout, done.stderr, done.ok) == (3, "out\n", "err\n", False)
    assert sandbox.run(["wc", "-c"], input="x" * 300_000).stdout.strip() == "300000"
    assert sandbox.run("echo $A; pwd; id -u", env={"A": "1"}, workdir="/tmp", user="1").stdout == "1\n/tmp\n1\n"
    with pytest.raises(CommandFailed, match="exit code 1: no luck"):
        sandbox.run("echo no luck >&2; false", check=True)
    with pytest.raises(StartFailed, match="not found"):
        sandbox.run(["nothing-of-that-name"])


def test_a_process_by_pieces(sandbox: Sandbox) -> None:
    with sandbox.exec("while read x; do echo got $x; done; exit 5", stdin=True) as process:
        process.write("one\n")
        assert next(iter(process)) == Output("stdout", b"got one\n")
        assert process.info().running and process.exit_code is None
        process.close_stdin()
        assert list(process) == [] and process.exit_code == 5


def test_a_terminal(sandbox: Sandbox) -> None:
    with sandbox.exec("stty size; read x; stty size", tty=True, rows=30, columns=100, stdin=True) as process:
        assert next(iter(process)).text.strip() == "30 100"
        process.resize(40, 90)
        process.write("\n")
        assert process.wait().stdout.split() == ["40", "90"]


def test_who_is_not_in_the_background_ends_with_its_connection(sandbox: Sandbox) -> None:
    with (
        sandbox.exec("echo; exec sleep 1000") as bound,
        sandbox.exec("echo; exec sleep 2000", background=True) as other,
    ):
        next(iter(bound)), next(iter(other))
    wait_for(lambda: "sleep 1000" not in [p.command for p in sandbox.processes.list()], "the end of the process")
    (left,) = [p for p in sandbox.processes.list() if p.command == "sleep 2000"]
    with sandbox.processes.attach(other.id) as again:
        sandbox.processes.kill(left.pid, signal.SIGTERM)
        assert again.wait().exit_code == 128 + signal.SIGTERM
    with pytest.raises(NotFound, match="no such process: 99999"):
        sandbox.processes.kill(99999)


def test_what_a_command_has_started_ends_with_it(sandbox: Sandbox) -> None:
    with pytest.raises(DeadlineExceeded, match="took longer than 1 s"):
        sandbox.run("sleep 1111 | sleep 2222; true", timeout=1)
    with sandbox.exec("echo; sleep 3333; true") as process:
        next(iter(process))
        process.kill()
        assert process.wait().exit_code == 128 + signal.SIGKILL
    wait_for(lambda: not [p for p in sandbox.processes.list() if "sleep" in p.command], "the end of all of them")


def test_files(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.files.write("/data/deep/file", "text")
    assert sandbox.files.read("data/deep/file") == b"text"
    found = sandbox.files.stat("/data/deep/file")
    assert (found.name, found.size, found.kind) == ("file", 4, "file")
    sandbox.files.mkdir("/tmp")  # it stays as it was
    assert sandbox.run("stat -c %a /tmp").stdout.strip() == "1777"
    assert sandbox.files.exists("/data") and not sandbox.files.exists("/none")
    with pytest.raises(NotFound, match="no such path"):
        sandbox.files.read("/none")
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_bytes(os.urandom(3 << 20))
    sandbox.files.upload(tmp_path / "tree", "/srv/tree")
    sandbox.files.download("/srv/tree", tmp_path / "back")
    assert (tmp_path / "back/sub/file").read_bytes() == (tmp_path / "tree/sub/file").read_bytes()


def test_ports(sandbox: Sandbox) -> None:
    with sandbox.exec("nc -l -p 9000 -e cat", background=True):
        wait_for(lambda: ":2328 " in sandbox.run("cat /proc/net/tcp /proc/net/tcp6").stdout, "somebody who listens")
        with sandbox.dial(9000) as connection:
            connection.write(b"ping")
            assert connection.read() == b"ping"
            connection.write_eof()
            assert connection.read() == b""
    with sandbox.dial(9999) as connection, pytest.raises(GuestError, match="Connection refused"):
        connection.read()
    with pytest.raises(NotFound, match="port 80 of sandbox .* is not published"):
        sandbox.address(80)


async def test_forked_and_saved(host: str) -> None:
    async with await AsyncSandbox.create("busybox", host=host, labels={"of": "test"}) as sandbox:
        await sandbox.files.write("/root/state", "kept")
        saved = await sandbox.snapshot()
        (fork,) = await sandbox.fork()
        other = await AsyncSandbox.restore(saved.id, host=host)
        for each in (fork, other):
            assert (await each.run("cat /root/state")).stdout == "kept"
        found = {each.id for each in await AsyncSandbox.list(labels={"of": "test"}, host=host)}
        assert found == {sandbox.id, fork.id, other.id}
        for each in (fork, other):
            assert await each.kill() and not await each.kill()
    assert await AsyncSandbox.list(host=host) == []


def test_paused(sandbox: Sandbox, host: str) -> None:
    sandbox.pause()
    assert not sandbox.is_running()
    with pytest.raises(InvalidState, match="is paused"):
        sandbox.run("true")
    sandbox.resume()
    assert Sandbox.connect(sandbox.id, host=host).run("echo on").stdout == "on\n"
    assert sandbox.metrics().memory > 0


def test_how_long_it_is_there(hyper: Daemon, host: str) -> None:
    """hyperd keeps the time, and whose it is is listed."""
    brief = Sandbox.create("busybox", ttl=1, host=host)
    wait_for(lambda: not brief.is_running() and hyper.out("ps", "-aq") == "", "its end")
    with Sandbox.create("busybox", ttl=1000, labels={"a": "b"}, host=host) as sandbox:
        (listed,) = hyper.sandboxes()
        assert (listed["id"], listed["madeBy"], listed["ttl"], listed["state"]) == (
            sandbox.id, "sdk", 1000, "running"
        )  # fmt: skip
        assert listed["endsAt"] > listed["createdAt"] and re.search("1[3-6] minutes", hyper.out("sandbox", "ls"))
        found = sandbox.set_lifetime(ttl=0.1, ttl_action="suspend")
        assert (found.ttl, found.ttl_action) == (0.1, "suspend")
        wait_for(lambda: sandbox.info().state.status == "suspended", "that it stands still")
        sandbox.set_lifetime(ttl=0)
        sandbox.resume()
        assert sandbox.run("echo still here").stdout == "still here\n"
        with pytest.raises(InvalidArgument, match="ttl"):
            sandbox.set_lifetime(ttl=-1)


def test_its_own_program(host: str) -> None:
    with Sandbox.create("busybox", command=["sh", "-c", "echo one; echo two; exit 4"], keep=True, host=host) as sandbox:
        assert [line.text for line in sandbox.logs(follow=True)] == ["one", "two"]
        wait_for(lambda: sandbox.info().state.exit_code == 4, "its end")


def test_what_cannot_be_started_leaves_nothing(hyper: Daemon, host: str) -> None:
    with pytest.raises(StartFailed, match="not found"):
        Sandbox.create("busybox", command=["nothing-of-that-name"], host=host)
    with pytest.raises(NotFound, match="no such network"):
        Sandbox.create("busybox", network="none-such", host=host)
    assert hyper.out("ps", "-aq") == ""


def timed(seconds: float, call: object, *args: object, **how: object) -> str:
    """What it was that took too long; it was told in time."""
    began = time.monotonic()
    with pytest.raises(HyperError) as caught:
        call(*args, **how, timeout=seconds)  # type: ignore[operator]
    assert time.monotonic() - began < seconds + margin()
    assert isinstance(caught.value, DeadlineExceeded), caught.value
    return str(caught.value)


def test_a_machine_that_stands_still(hyper: Daemon, sandbox: Sandbox) -> None:
    pid = machine_of(hyper, sandbox.id)
    process = sandbox.exec("echo; exec sleep 1000")
    next(iter(process))
    os.kill(pid, signal.SIGSTOP)
    try:
        calls = [
            (process.wait,), (sandbox.run, "true"), (sandbox.files.read, "/x"), (sandbox.files.list, "/"),
        ]  # fmt: skip
        for call, *args in calls:
            # A busy hyperd may not have been asked in time; tests/unit/test_sdk.py has it to the word.
            told = timed(4, call, *args)
            assert re.search("longer than 4 s: (the sandbox's virtual machine|hyperd) does not answer$", told), told
    finally:
        os.kill(pid, signal.SIGCONT)
    process.close()
    wait_for(lambda: sandbox.is_running() and sandbox.run("true").ok, "an answer")


@pytest.mark.slow
async def test_each_call_ends_though_the_machine_stands_still(hyper: Daemon, host: str) -> None:
    """All of them, beside each other, in their time; what needs the machine says that it does not answer."""
    async with await AsyncSandbox.create("busybox", host=host) as sandbox:
        process = await sandbox.exec("echo; exec sleep 1000", stdin=True)
        of = {
            "AsyncSandbox": sandbox, "AsyncFiles": sandbox.files, "AsyncProcesses": sandbox.processes,
            "AsyncProcess": process, "AsyncConnection": await sandbox.dial(9000),
            "AsyncWatch": await sandbox.files.watch("/"),
        }  # fmt: skip
        pid, seconds = machine_of(hyper, sandbox.id), 8.0
        os.kill(pid, signal.SIGSTOP)
        try:
            calls = [(f"{name}.{m}", getattr(of[name], m), given) for name, methods in sdk_calls.CALLS.items()
                     for m, given in methods.items() if name in of and m not in ("kill", "resume")]  # fmt: skip
            found = await asyncio.gather(*(sdk_calls.timed(call, given, seconds) for _, call, given in calls))
        finally:
            os.kill(pid, signal.SIGCONT)
        for (name, *_), (took, what) in zip(calls, found, strict=True):
            assert took < seconds + margin(), (name, took, what)
        told = {name: str(what) for (name, *_), (_, what) in zip(calls, found, strict=True)
                if isinstance(what, DeadlineExceeded)}  # fmt: skip
        assert {"AsyncSandbox.run", "AsyncFiles.read", "AsyncProcess.wait", "AsyncSandbox.metrics"} <= told.keys()
        assert all(re.search("(virtual machine|hyperd) does not answer$", text) for text in told.values()), told
        for each in [*of.values(), *(what for _, what in found)]:
            if hasattr(each, "close"):
                each.close()
    wait_for(lambda: hyper.out("ps", "-aq") == "", "the end of what nobody waits for")


def test_a_daemon_that_stands_still(hyper: Daemon, sandbox: Sandbox, host: str) -> None:
    """What it was asked for meanwhile is done by nobody: who asked has gone. tests/unit/test_sdk.py has all calls."""
    os.kill(hyper.process.pid, signal.SIGSTOP)
    try:
        for call, *args in [(sandbox.run, "true"), (sandbox.info,), (sandbox.kill,), (sandbox.files.stat, "/")]:
            assert timed(1.0, call, *args).endswith("took longer than 1 s: hyperd does not answer")
        timed(1.0, lambda timeout: Sandbox.create("busybox", labels={"of": "nobody"}, host=host, timeout=timeout))
    finally:
        os.kill(hyper.process.pid, signal.SIGCONT)
    wait_for(lambda: Sandbox.list(labels={"of": "nobody"}, host=host) == [], "the end of what nobody wants")


def test_directories(sandbox: Sandbox) -> None:
    sandbox.files.write("/d/e/deep", "12345", mode=0o600)
    sandbox.run("ln -s e/deep /d/link")
    (e, link) = sorted(sandbox.files.list("/d"), key=lambda entry: entry.name)
    assert (e.name, e.kind, link.kind, link.link_target) == ("e", "directory", "link", "e/deep")
    (deep,) = [entry for entry in sandbox.files.list("/d", depth=2) if entry.name == "e/deep"]
    assert (deep.size, deep.mode, deep.uid) == (5, 0o600, 0)
    with pytest.raises(GuestError, match="not empty"):
        sandbox.files.remove("/d")
    sandbox.files.rename("/d", "/new")
    sandbox.files.remove("/new", recursive=True)
    for call in (sandbox.files.list, sandbox.files.remove, sandbox.files.watch):
        with pytest.raises(NotFound, match="no such path in the container: /new"):
            call("/new")  # type: ignore[operator]


def test_watched(sandbox: Sandbox) -> None:
    sandbox.files.mkdir("/w")
    with sandbox.files.watch("/w", recursive=True) as watch:
        with pytest.raises(DeadlineExceeded, match="the watch took longer than 0.3 s"):
            next(iter(watch.changes(timeout=0.3)))
        sandbox.run("mkdir /w/sub; echo x > /w/sub/file; mv /w/sub/file /w/moved; rm -r /w")
        seen = [(change.kind, change.path) for change in watch]
    for each in [("created", "/w/sub"), ("created", "/w/moved"), ("removed", "/w/moved"), ("removed", "/w/sub")]:
        assert each in seen
    assert seen[-1] == ("gone", "/w")
