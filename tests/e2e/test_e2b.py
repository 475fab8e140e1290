# SPDX-License-Identifier: Apache-2.0
"""E2B's own package, unmodified, with sandboxes of ours."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import e2b
import httpx
import pytest

from .conftest import BIN, DEADLINE, Daemon, wait_for

KEY = "e2b_of_a_test"


@contextlib.contextmanager
def serving(hyper: Daemon) -> Iterator[dict[str, Any]]:
    """A server of ours; what its clients are given."""
    command = [BIN / "hyperctl", "e2b", "serve", "--port", "0", "--image", "busybox"]
    environment = {**hyper.environment, "E2B_API_KEY": KEY}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(server.stdout, selectors.EVENT_READ)
                assert selector.select(DEADLINE), "the server does not say where it is"
            found = re.fullmatch(
                r"export E2B_API_URL=(\S+) E2B_SANDBOX_URL=\1 E2B_VOLUME_API_URL=\1 E2B_API_KEY=(\S+)\n",
                server.stdout.readline(),
            )
            assert found and found[2] == KEY
            yield {"api_key": KEY, "api_url": found[1], "sandbox_url": found[1]}
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE) == 0


@pytest.fixture
def client(hyper: Daemon) -> Iterator[dict[str, Any]]:
    with serving(hyper) as options:
        yield options


@pytest.fixture
def sandbox(client: dict[str, Any]) -> Iterator[e2b.Sandbox]:
    made = e2b.Sandbox.create(envs={"A": "1"}, metadata={"who": "a test"}, **client)
    yield made
    made.kill()


def state_of(sandbox: e2b.Sandbox) -> str:
    return sandbox.get_info().state.value


def test_commands(sandbox: e2b.Sandbox) -> None:
    done = sandbox.commands.run("echo out $A; echo err >&2; pwd", cwd="/tmp")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "out 1\n/tmp\n", "err\n")
    with pytest.raises(e2b.CommandExitException) as failed:
        sandbox.commands.run("id -u; exit 3", user="1")
    assert (failed.value.exit_code, failed.value.stdout) == (3, "1\n")
    seen: list[str] = []
    sandbox.commands.run("echo one; echo two", on_stdout=seen.append)
    assert "".join(seen) == "one\ntwo\n"
    with pytest.raises(e2b.TimeoutException):
        sandbox.commands.run("sleep 1000", timeout=1)
    wait_for(lambda: sandbox.commands.list() == [], "the end of the command")


def test_commands_in_the_background(sandbox: e2b.Sandbox) -> None:
    command = sandbox.commands.run("read x; echo got $x; cat", background=True, stdin=True)
    assert [p.pid for p in sandbox.commands.list()] == [command.pid]
    command.disconnect()
    again = sandbox.commands.connect(command.pid)
    sandbox.commands.send_stdin(command.pid, "this\n")
    sandbox.commands.stream_input(command.pid, ["and ", b"that"])
    sandbox.commands.close_stdin(command.pid)
    assert again.wait().stdout == "got this\nand that"
    assert sandbox.commands.list() == []
    other = sandbox.commands.run("sleep 1000", background=True)
    assert other.kill() and not sandbox.commands.kill(99999)
    with pytest.raises(e2b.CommandExitException, match="137"):
        other.wait()


def test_a_terminal(sandbox: e2b.Sandbox) -> None:
    terminal = sandbox.pty.create(e2b.PtySize(rows=30, cols=100))
    sandbox.pty.resize(terminal.pid, e2b.PtySize(rows=40, cols=90))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit 4\n")
    seen: list[bytes] = []
    with pytest.raises(e2b.CommandExitException) as ended:
        terminal.wait(on_pty=seen.append)
    assert ended.value.exit_code == 4 and b"40 90" in b"".join(seen)


def test_files(sandbox: e2b.Sandbox) -> None:
    files = sandbox.files
    assert files.write("/data/deep/x", "text").path == "/data/deep/x"
    files.write_files([{"path": "/data/y", "data": b"\x00\xff"}, {"path": "/data/z", "data": "z"}])
    large = b"0123456789abcdef" * 200_000
    files.write("/data/large", iter([large]))
    assert files.read("/data/deep/x") == "text" and files.read("/data/y", format="bytes") == b"\x00\xff"
    assert files.read("/data/large", format="bytes") == large
    assert {(e.name, e.type) for e in files.list("/data")} == {
        ("deep", e2b.FileType.DIR), ("y", e2b.FileType.FILE), ("z", e2b.FileType.FILE), ("large", e2b.FileType.FILE)
    }  # fmt: skip
    assert "/data/deep/x" in [e.path for e in files.list("/data", depth=2)]
    assert files.make_dir("/data/a/b") and not files.make_dir("/data/a/b")
    assert files.rename("/data/z", "/data/a/z").path == "/data/a/z" and not files.exists("/data/z")
    found = files.get_info("/data/a/z")
    assert (found.name, found.size, found.permissions, found.owner) == ("z", 1, "rw-r--r--", "root")
    files.remove("/data/a")
    assert not files.exists("/data/a")
    for wrong in (lambda: files.read("/none"), lambda: files.list("/none"), lambda: files.get_info("/none")):
        with pytest.raises(e2b.FileNotFoundException):
            wrong()
    with pytest.raises(e2b.InvalidArgumentException, match="root"):
        files.write("/data/x", "x", user="somebody")
    assert httpx.get(sandbox.download_url("/data/deep/x", use_signature_expiration=1000)).text == "text"
    assert httpx.get(sandbox.download_url("/data/deep/x").replace("deep", "else")).status_code == 401


def test_changes_of_files(sandbox: e2b.Sandbox) -> None:
    sandbox.files.make_dir("/watched/in")
    watch = sandbox.files.watch_dir("/watched", recursive=True)
    sandbox.commands.run("echo x >/watched/in/file")
    seen: list[str] = []

    def told() -> bool:
        seen.extend(f"{e.type.value} {e.name}" for e in watch.get_new_events())
        return {"create in/file", "write in/file"} <= set(seen)

    wait_for(told, "the changes")
    watch.stop()


def test_pauses(sandbox: e2b.Sandbox, client: dict[str, Any]) -> None:
    sandbox.files.write("/x", "kept")
    assert sandbox.is_running() and sandbox.pause() and not sandbox.pause()
    assert state_of(sandbox) == "paused" and not sandbox.is_running()
    with pytest.raises(e2b.TimeoutException):
        sandbox.commands.run("true")
    again = e2b.Sandbox.connect(sandbox.sandbox_id, **client)
    assert again.files.read("/x") == "kept" and state_of(again) == "running"
    assert again.get_metrics()[0].mem_used > 0


def test_the_end_of_its_time_is_a_pause(sandbox: e2b.Sandbox, client: dict[str, Any]) -> None:
    sandbox.set_timeout(0)
    wait_for(lambda: state_of(sandbox) == "paused", "the pause")
    mortal = e2b.Sandbox.create(lifecycle={"on_timeout": "kill"}, **client)
    waking = e2b.Sandbox.create(lifecycle={"on_timeout": "pause", "auto_resume": True}, **client)
    mortal.set_timeout(0)
    waking.set_timeout(0)
    try:
        wait_for(lambda: state_of(waking) == "paused", "the pause")
        assert waking.commands.run("echo again").stdout == "again\n"

        def gone() -> bool:
            with contextlib.suppress(e2b.SandboxNotFoundException):
                mortal.get_info()
                return False
            return True

        wait_for(gone, "the end")
    finally:
        assert waking.kill() and not mortal.kill()


def test_which_there_are(sandbox: e2b.Sandbox, client: dict[str, Any]) -> None:
    other = e2b.Sandbox.create(template="busybox", metadata={"who": "other"}, timeout=1000, **client)
    try:
        listed = e2b.Sandbox.list(limit=1, **client)
        found = listed.next_items() + listed.next_items()
        assert not listed.has_next and [s.sandbox_id for s in found] == [other.sandbox_id, sandbox.sandbox_id]
        (only,) = e2b.Sandbox.list(query=e2b.SandboxQuery(metadata={"who": "other"}), **client).next_items()
        assert (only.sandbox_id, only.template_id, only.metadata) == (other.sandbox_id, "busybox", {"who": "other"})
        assert 900 < only.end_at.timestamp() - time.time() <= 1000
    finally:
        assert other.kill() and not other.kill()
    with pytest.raises(e2b.SandboxNotFoundException):
        e2b.Sandbox.connect("nothing", **client)
    with pytest.raises(e2b.AuthenticationException):
        e2b.Sandbox.create(**{**client, "api_key": "wrong"})
    with pytest.raises(e2b.SandboxException, match="no `iam`"):
        e2b.Sandbox.create(iam={"tokens": {"a": {"audience": "b", "token_type": "jwt"}}}, **client)


def test_a_server_that_comes_after_another(hyper: Daemon) -> None:
    with serving(hyper) as client:
        made = e2b.Sandbox.create(timeout=1000, metadata={"a": "b"}, **client)
    with serving(hyper) as client:
        (found,) = e2b.Sandbox.list(**client).next_items()
        assert found.sandbox_id == made.sandbox_id and found.metadata == {"a": "b"}
        again = e2b.Sandbox.connect(made.sandbox_id, **client)
        assert again.commands.run("echo here").stdout == "here\n" and again.kill()


def test_its_time_goes_on_without_a_server(hyper: Daemon) -> None:
    """It is paused then, and stays."""
    with serving(hyper) as client:
        made = e2b.Sandbox.create(**client)
        made.set_timeout(1)
    wait_for(lambda: hyper.sandboxes()[0]["state"] == "suspended", "the pause")
    with serving(hyper) as client:
        again = e2b.Sandbox.connect(made.sandbox_id, **client)
        assert again.commands.run("echo here").stdout == "here\n"
        assert again.get_info().end_at > datetime.datetime.now(datetime.UTC)
        assert again.kill()


def test_volumes(hyper: Daemon, client: dict[str, Any]) -> None:
    hyper.ctl("volume", "create", "of-another")
    volume = e2b.Volume.create("data", **client)
    with pytest.raises(e2b.VolumeException, match="data"):
        e2b.Volume.create("data", **client)
    assert [v.name for v in e2b.Volume.list(**client)] == ["data"]
    assert e2b.Volume.connect("data", **client).volume_id == volume.volume_id == "data"
    for text in ("first", "second"):
        with e2b.Sandbox.create(volume_mounts={"/mnt/data": volume}, **client) as sandbox:
            assert sandbox.get_info().volume_mounts == [{"name": "data", "path": "/mnt/data"}]
            done = sandbox.commands.run(f"cat /mnt/data/x; echo {text} >/mnt/data/x")
            assert done.stdout == ("first\n" if text == "second" else ""), "what the one before wrote"
            with pytest.raises(e2b.VolumeException, match="in use by"):
                e2b.Volume.destroy("data", **client)
    with pytest.raises(e2b.SandboxException, match="no such volume"):
        e2b.Sandbox.create(volume_mounts={"/mnt": "of-another"}, **client)
    with pytest.raises(e2b.VolumeException, match="in a sandbox that mounts it"):
        volume.read_file("/x", api_url=client["api_url"])
    assert not e2b.Volume.destroy("of-another", **client) and e2b.Volume.destroy("data", **client)
    assert not e2b.Volume.destroy("data", **client)


@pytest.mark.slow
def test_forks_and_snapshots(sandbox: e2b.Sandbox, client: dict[str, Any]) -> None:
    sandbox.files.write("/x", "kept")
    (fork,) = sandbox.fork()
    assert isinstance(fork, e2b.Sandbox)
    assert fork.files.read("/x") == "kept" and fork.kill()
    saved = sandbox.create_snapshot()
    assert saved.snapshot_id in [s.snapshot_id for s in e2b.Sandbox.list_snapshots(**client).next_items()]
    restored = e2b.Sandbox.create(saved.snapshot_id, **client)
    assert restored.files.read("/x") == "kept" and restored.kill()
    assert e2b.Sandbox.delete_snapshot(saved.snapshot_id, **client)


async def test_the_asynchronous_client(client: dict[str, Any]) -> None:
    async with await e2b.AsyncSandbox.create(**client) as sandbox:
        assert (await sandbox.commands.run("echo out")).stdout == "out\n"
        await sandbox.files.write("/w/x", "text")
        assert await sandbox.files.read("/w/x") == "text"
        seen: list[str] = []
        watch = await sandbox.files.watch_dir("/w", on_event=lambda event: seen.append(event.name))
        command = await sandbox.commands.run("read x; echo >/w/$x", background=True, stdin=True)
        await sandbox.commands.send_stdin(command.pid, "new\n")
        assert (await command.wait()).exit_code == 0
        async with asyncio.timeout(DEADLINE):
            while "new" not in seen:
                await asyncio.sleep(0.05)
        await watch.stop()
        assert await sandbox.pause()
