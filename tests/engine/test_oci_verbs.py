# SPDX-License-Identifier: Apache-2.0
"""hyper-runtime's verbs, by the installed command, with an engine over fakes behind REST."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.hypervisor.driver import VirtioFs
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import TAKES, FakeDriver
from hypercontainer.jail.jail import Started
from hypercontainer.sys.proc import start_time
from hypercontainer.volumes import share

from .served import Served, served
from .stage import Stage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a stand-in has namespaces of its own, which take root")
COMMAND = Path(sys.executable).parent / "hyper-runtime"
LIMIT = 60.0  # seconds for any one command
KINDS = ("pid", "network", "ipc", "uts", "mount")


@dataclass
class Runtime:
    """The command with directories of its own."""

    place: Path
    host: Path

    def bundle(self, name: str, *args: str, **fields: Any) -> Path:
        """Its root has the programs that the fake guest knows."""
        root = self.place / name / "rootfs"
        (root / "bin").mkdir(parents=True)
        for program in ("sleep", "exit", "echo", "no-such-program"):
            (root / "bin" / program).touch()
        process = {"args": args, "cwd": "/", "env": ["PATH=/bin"]}
        linux = {"namespaces": [{"type": kind} for kind in KINDS]}
        config = {"process": process, "root": {"path": "rootfs"}, "linux": linux, **fields}
        (root.parent / "config.json").write_text(json.dumps(config))
        return root.parent

    async def __call__(self, *args: str | Path) -> tuple[int, str, str]:
        """Its exit status, and what it printed. Files take that: a pipe would be held open by what stands for it."""
        outputs = [self.place / "out", self.place / "err"]
        with open(outputs[0], "wb") as out, open(outputs[1], "wb") as err:
            options = ("--root", self.place / "state", "--hyper-host", self.host)
            started = await asyncio.create_subprocess_exec(
                COMMAND, *options, *args, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err
            )
            status = await asyncio.wait_for(started.wait(), LIMIT)
        return status, *(path.read_text() for path in outputs)  # type: ignore[return-value]

    async def does(self, *args: str | Path) -> str:
        """What it prints; it succeeds."""
        status, out, err = await self(*args)
        assert status == 0, f"{args}: {status} {err}"
        return out

    async def fails(self, *args: str | Path) -> str:
        """Its sentence."""
        status, out, err = await self(*args)
        assert status == 1 and err.startswith("hyper-runtime: "), f"{args}: {status} {out}{err}"
        assert err.count("\n") == 1, err
        return err.removeprefix("hyper-runtime: ").strip()

    async def status(self, id_: str) -> str:
        return str(json.loads(await self.does("state", id_))["status"])

    async def pid(self, id_: str) -> int:
        return int(json.loads(await self.does("state", id_))["pid"])

    async def stops(self, pid: int) -> None:
        """What stands for a process has ended."""
        async with asyncio.timeout(LIMIT):
            while start_time(pid):
                await asyncio.sleep(0.02)


async def _served_by(binary: str, directory: Path, *_: object, **__: bool) -> tuple[socket.socket, Started]:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours, Started(4711, 1)


def _with_directories(s: Stage) -> None:
    s.drivers = lambda: Drivers([FakeDriver(s.host, takes=TAKES | {VirtioFs})])


@contextlib.asynccontextmanager
async def runtime(
    template: Path, place: Path, monkeypatch: pytest.MonkeyPatch, first: Callable[[Stage], None] = _with_directories
) -> AsyncIterator[tuple[Runtime, Served]]:  # fmt: skip
    """At the end there is nothing of a container anywhere."""
    monkeypatch.setattr(share, "start_virtiofsd", _served_by)
    monkeypatch.setattr(share, "find_virtiofsd", lambda: "/virtiofsd")
    async with served(template, first=first, virtiofs=True) as daemon:
        yield Runtime(place, daemon.path), daemon
        assert not daemon.stage.engine.registry.pods() and not list((place / "state").glob("*"))


async def test_a_life(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(template, tmp_path, monkeypatch) as (run, daemon):
        bundle = run.bundle("b", "sleep", "1000", annotations={"a": "b"}, hostname="named")
        await run.does("create", "-b", bundle, "--pid-file", tmp_path / "pid", "one")
        pid = int((tmp_path / "pid").read_text())
        assert await run.status("one") == "created" and await run.pid("one") == pid
        assert await run.fails("exec", "one", "echo") == "cannot exec in a created container"
        assert await run.fails("create", "-b", bundle, "one") == "container with given ID already exists: one"
        await run.does("start", "one")
        assert await run.fails("start", "one") == "cannot start a container that is running: one"
        (container,) = daemon.stage.engine.registry.containers()
        assert container.hostname == "named" and container.spec.annotations == {"a": "b"}
        assert (await run("exec", "one", "exit", "3"))[0] == 3
        assert await run.does("exec", "one", "echo", "hi") == "hi\n"
        assert "executable file not found" in await run.fails("exec", "one", "nosuch")
        await run.does("pause", "one")
        assert await run.status("one") == "paused"
        assert await run.fails("exec", "one", "echo") == "cannot exec in a paused container"
        await run.does("resume", "one")
        await run.does("update", "--pids-limit", "77", "one")
        assert daemon.stage.engine.registry.container(container.id).spec.resources.pids == 77
        assert json.loads(await run.does("ps", "--format", "json", "one")) == [pid]
        assert "one" in await run.does("list") and await run.does("list", "-q") == "one\n"
        assert "that is not stopped: running" in await run.fails("delete", "one")
        await run.does("kill", "one", "KILL")
        await run.stops(pid)
        assert await run.status("one") == "stopped"
        assert await run.fails("kill", "one") == "container not running"
        await run.does("kill", "--all", "one")
        await run.does("delete", "one")
        assert await run.fails("delete", "one") == "container 'one' does not exist"
        await run.does("delete", "--force", "one")


async def _carried(*_: object) -> None: ...


def _by_stream(s: Stage) -> None:
    """As Firecracker: there is no device for directories, and a stream for them."""
    s.drivers = lambda: Drivers([FakeDriver(s.host, takes=TAKES - {VirtioFs})])


def _without_directories(s: Stage) -> None:
    """As Xen."""
    s.drivers = lambda: Drivers([FakeDriver(s.host, takes=TAKES - {VirtioFs}, bare=True)])


async def test_a_root_comes_by_a_stream_too(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "start_carrier", _carried)
    async with runtime(template, tmp_path, monkeypatch, _by_stream) as (run, daemon):
        await run.does("create", "-b", run.bundle("b", "sleep", "1000"), "one")
        await run.does("start", "one")
        (machine,) = daemon.stage.host.machines.values()
        assert daemon.stage.guest(machine).volumes["share"] == "stream"
        await run.does("delete", "--force", "one")


async def test_a_driver_without_directories_is_said(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was made."""
    async with runtime(template, tmp_path, monkeypatch, _without_directories) as (run, daemon):
        said = await run.fails("create", "-b", run.bundle("b", "sleep", "1000"), "one")
        assert "does not support directories of the host" in said
        assert not daemon.stage.engine.registry.containers() and not daemon.stage.host.machines


async def test_who_shares_a_machine(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an annotation, and by the namespaces of a process that stands for one; who began it ends it for all."""
    async with runtime(template, tmp_path, monkeypatch) as (run, daemon):
        await run.does("run", "--detach", "-b", run.bundle("a", "sleep", "1000"), "first")
        joins = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "first"}
        second = run.bundle("b", "sleep", "1000", annotations=joins)
        own, shown = f"/proc/{await run.pid('first')}/ns", {"network": "net", "ipc": "ipc", "uts": "uts"}
        namespaces = [{"type": kind, "path": f"{own}/{name}"} for kind, name in shown.items()]
        namespaces += [{"type": "pid"}, {"type": "mount"}]
        third = run.bundle("c", "sleep", "1000", linux={"namespaces": namespaces})
        registry = daemon.stage.engine.registry
        for name, bundle in (("second", second), ("third", third)):
            await run.does("create", "-b", bundle, name)
        assert len(registry.pods()) == 1 and len(registry.containers()) == 3
        pids = [await run.pid(name) for name in ("second", "third")]
        await run.does("delete", "third")
        assert len(registry.containers()) == 2 and await run.status("first") == "running"
        await run.does("delete", "--force", "first")
        await asyncio.gather(*map(run.stops, pids))
        assert await run.status("second") == "stopped"
        await run.does("delete", "second")


async def test_what_goes_wrong_leaves_nothing(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(template, tmp_path, monkeypatch) as (run, daemon):
        registry = daemon.stage.engine.registry
        missing = run.bundle("a", "nosuch")
        assert await run.fails("create", "-b", missing, "x") == 'exec: "nosuch": executable file not found in $PATH'
        failing = run.bundle("b", "echo", hooks={"createRuntime": [{"path": "/bin/false"}]})
        assert "the hook /bin/false failed with status 1" in await run.fails("create", "-b", failing, "x")
        gone = run.bundle("c", "echo", mounts=[{"type": "bind", "source": "/nowhere", "destination": "/n"}])
        assert "/nowhere of this host: No such file" in await run.fails("create", "-b", gone, "x")
        terminal = run.bundle("d", "echo", process={"args": ["echo"], "terminal": True})
        assert await run.fails("create", "-b", terminal, "x") == "a process with a terminal needs --console-socket"
        assert not registry.pods() and await run.does("list", "-q") == ""
        unknown = run.bundle("e", "no-such-program")
        await run.does("create", "-b", unknown, "x")
        assert "executable file not found in $PATH" in await run.fails("start", "x")
        await run.stops(json.loads((tmp_path / "state/x/state.json").read_text())["pid"])
        assert await run.status("x") == "stopped"
        await run.does("delete", "x")
        await run.does("create", "-b", run.bundle("f", "sleep", "1000"), "y")
        os.kill(pid := await run.pid("y"), signal.SIGKILL)
        await run.stops(pid)
        assert await run.fails("start", "y") == "cannot start a container that is stopped: y"
        await run.does("delete", "y")
        nobody = Runtime(tmp_path, tmp_path / "nobody")
        assert "no hyperd listens at" in await nobody.fails("create", "-b", unknown, "z")
        assert not list((tmp_path / "state").iterdir())


async def test_signals_for_who_waits_go_to_the_process(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has not started ends by them."""
    async with runtime(template, tmp_path, monkeypatch) as (run, _):
        await run.does("create", "-b", run.bundle("a", "sleep", "1000"), "created")
        pid = await run.pid("created")
        await run.does("kill", "created", "TERM")
        await run.stops(pid)
        await run.does("delete", "created")
        for which in (signal.SIGINT, signal.SIGTERM):
            options = ("--root", tmp_path / "state", "--hyper-host", run.host)
            bundle = run.bundle(which.name, "sleep", "1000")
            # Whoever runs the tests in the background has it ignored by all that they start.
            command = ("env", "--default-signal=INT", COMMAND, *options, "run", "-b", bundle, which.name)
            running = await asyncio.create_subprocess_exec(*command)
            async with asyncio.timeout(LIMIT):
                while '"running"' not in (await run("state", which.name))[1]:
                    pass
                running.send_signal(which)
                assert await running.wait() == 128 + which


async def test_what_is_killed_while_it_makes_something(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is already goes with the id, which is free again then."""
    async with runtime(template, tmp_path, monkeypatch) as (run, daemon):
        bundle = run.bundle("a", "sleep", "1000")
        for _ in range(2):
            await run.does("create", "-b", bundle, "one")
            os.kill(pid := await run.pid("one"), signal.SIGKILL)
            await run.stops(pid)
            (tmp_path / "state/one/state.json").unlink()  # it is written when the container has been made
            await run.does("delete", "--force", "one")
            assert not daemon.stage.engine.registry.pods()
        for name in ("a+b", "a-b", "x" * 101, "x" * 102):  # no two have one name in hyperd
            await run.does("create", "-b", bundle, name)
        for name in (await run.does("list", "-q")).split():
            await run.does("delete", name)


async def test_a_further_process_whose_number_cannot_be_told_ends(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime(template, tmp_path, monkeypatch) as (run, daemon):
        await run.does("run", "--detach", "-b", run.bundle("a", "sleep", "1000"), "one")
        failing = ("exec", "--detach", "--pid-file", tmp_path / "nowhere/pid", "one", "sleep", "1000")
        assert "No such file" in await run.fails(*failing)
        (container,) = daemon.stage.engine.registry.containers()
        async with asyncio.timeout(LIMIT):
            for further in daemon.stage.engine.execs.of(container.id):
                await further.ended.wait()
        await run.does("delete", "--force", "one")
