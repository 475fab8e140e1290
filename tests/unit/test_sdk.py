# SPDX-License-Identifier: Apache-2.0
"""The SDK without a daemon: the synchronous classes, archives, what is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripts import make_sync_sdk

from hypercontainer import sdk
from hypercontainer.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Container, ContainerState, ContainerStatus, Process
from hypercontainer.sdk import (
    AsyncConnection,
    AsyncFiles,
    AsyncInterpreter,
    AsyncProcess,
    AsyncProcesses,
    AsyncSandbox,
    AsyncWatch,
    Sandbox,
    archives,
    runner,
)
from hypercontainer.sdk.api import Api
from hypercontainer.sdk.exchange import Exchange, connect
from hypercontainer.sdk.frames import Frames
from hypercontainer.sdk.interpreter import COMMAND
from hypercontainer.sdk.limits import Deadline, within
from hypercontainer.sdk.spec import sandbox_spec
from tests import sdk_calls


@pytest.mark.parametrize("module", make_sync_sdk.MODULES)
def test_the_synchronous_classes_are_as_they_are_made(repository: Path, module: str) -> None:
    kept = (repository / f"src/hypercontainer/sdk/sync/{module}.py").read_text()
    assert kept == make_sync_sdk.made(module), "run `make sync-sdk`"


def test_each_asynchronous_class_has_its_synchronous_one() -> None:
    names = [name for name in sdk.__all__ if name.startswith("Async")]
    assert names and {name.removeprefix("Async") for name in names} < set(sdk.__all__)
    for name in names:
        methods = [m for m in vars(getattr(sdk, name)) if not m.startswith("_")]
        assert [m for m in vars(getattr(sdk, name.removeprefix("Async"))) if not m.startswith("_")] == methods


def test_every_call_has_a_timeout() -> None:
    """`close` waits for nothing."""
    without = [
        f"{name}.{method}"
        for name in sdk.__all__
        if name.startswith("Async")
        for method, found in inspect.getmembers(getattr(sdk, name), inspect.isroutine)
        if not method.startswith("_") and "timeout" not in inspect.signature(found).parameters
    ]
    assert {each.partition(".")[2] for each in without} == {"close"}


def test_all_that_is_exported_is_there() -> None:
    module = importlib.import_module("hypercontainer.sdk")
    assert sorted(sdk.__all__) == sdk.__all__ and all(hasattr(module, name) for name in sdk.__all__)


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[str]:
    """A socket that accepts and never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path := str(tmp_path / "s"))
        listener.listen(1024)
        yield path


def test_a_daemon_that_does_not_answer(deaf: str) -> None:
    with pytest.raises(DeadlineExceeded, match=r"a sandbox of x took longer than 0.3 s: hyperd does not answer"):
        Sandbox.create("x", host=deaf, timeout=0.3)
    with pytest.raises(DeadlineExceeded, match="finding the sandbox took longer than 0.3 s: hyperd does not answer"):
        Sandbox.connect("x", host=deaf, timeout=0.3)


def test_no_call_is_forgotten() -> None:
    assert sdk_calls.missing() == []


async def _unanswered(path: str) -> Exchange:
    """A connection on which nothing comes, and which takes nothing more."""
    exchange = Exchange(*await connect(path))
    exchange.status, exchange.headers = 200, {"transfer-encoding": "chunked"}
    exchange.writer.write(sdk_calls.MUCH)
    return exchange


async def _made(name: str, path: str, opened: contextlib.ExitStack) -> Any:
    api, id_ = Api(path), CONTAINER.id
    if name == "AsyncSandbox":
        return AsyncSandbox(api, CONTAINER)
    if name in ("AsyncFiles", "AsyncProcesses"):
        return AsyncFiles(api, id_, "/") if name == "AsyncFiles" else AsyncProcesses(api, id_)
    exchange = await _unanswered(path)
    opened.callback(exchange.close)
    process = AsyncProcess(api, id_, "exec", Frames(exchange))
    return {
        "AsyncProcess": process, "AsyncInterpreter": AsyncInterpreter(process),
        "AsyncConnection": AsyncConnection(api, id_, Frames(exchange)), "AsyncWatch": AsyncWatch(api, id_, exchange),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", sdk_calls.CALLS)
async def test_each_call_ends_with_its_cause(deaf: str, name: str) -> None:
    """hyperd, or nothing of it but the socket, stands still."""
    with contextlib.ExitStack() as opened:
        calls = {
            m: (getattr(await _made(name, deaf, opened), m), given, {}) for m, given in sdk_calls.CALLS[name].items()
        }
        if name == "AsyncSandbox":
            calls |= {m: (getattr(AsyncSandbox, m), args, {"host": deaf}) for m, args in sdk_calls.CLASS_CALLS.items()}
        found = await asyncio.gather(*(sdk_calls.timed(call, args, 0.5, **more) for call, args, more in calls.values()))
    for method, (_, raised) in zip(calls, found, strict=True):
        assert isinstance(raised, DeadlineExceeded), (method, raised)
        assert str(raised).endswith("longer than 0.5 s: hyperd does not answer"), (method, raised)


CONTAINER = Container(
    id="c" * 64, name="c", pod="p", created_at="", image="x", image_id="", hostname="",
    process=Process(args=[], env=[], cwd="/", user="", stop_signal=15), spec=ContainerSpec(image="x"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "stats", "cause"),
    [
        (ContainerStatus.RUNNING, False, "the sandbox's virtual machine does not answer"),
        (ContainerStatus.RUNNING, True, "it is still at work"),
        (ContainerStatus.PAUSED, False, "the sandbox is paused"),
    ],
)
async def test_what_does_not_answer(tmp_path: Path, status: ContainerStatus, stats: bool, cause: str) -> None:
    """A hyperd that knows its containers, of which one's machine stands still."""
    container = msgspec.structs.replace(CONTAINER, state=ContainerState(status=status))
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        if asked.endswith(b"/stats HTTP/1.1\r\n") and not stats:
            await answered.wait()
        if b"GET" in asked:
            body = b"{}" if b"/stats" in asked else msgspec.json.encode(container)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        else:
            await answered.wait()
        writer.close()

    async with await asyncio.start_unix_server(answer, path=(path := str(tmp_path / "s"))):
        sandbox = await AsyncSandbox.connect("c", host=path)
        with pytest.raises(DeadlineExceeded) as caught:
            await sandbox.run("true", timeout=2)
        answered.set()
    assert str(caught.value) == f"the command's begin took longer than 2 s: {cause}"


async def test_what_is_said_of_a_command_that_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle(*_: object, **__: object) -> Any:
        return msgspec.structs.replace(CONTAINER, state=ContainerState(status=ContainerStatus.RUNNING))

    monkeypatch.setattr(Api, "call", idle)
    monkeypatch.setattr(Api, "do", idle)
    with pytest.raises(DeadlineExceeded, match=r"^the command took longer than 0.5 s: it was killed$"):
        await within(Api("/none"), "c", Deadline(0.5), "the command", asyncio.sleep(100), busy="it was killed")


class Runner:
    """What is sent into sandboxes, as a process of this host."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._number = 0
        self.tell([Path(runner.__file__).read_text(), "plain"])
        assert self.told()["ready"] == "plain"

    def tell(self, what: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        assert self.process.stdout
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def run(self, code: str, timeout: float = 60.0) -> dict[str, Any]:
        """All that is told, by its kind; texts are joined."""
        self._number += 1
        self.tell({"id": self._number, "code": code, "timeout": timeout})
        found: dict[str, Any] = {"stdout": "", "stderr": "", "results": []}
        while not (told := self.told()).get("done"):
            assert told.pop("id") == self._number
            for name in ("stdout", "stderr"):
                found[name] += told.get(name, "")
            found["results"] += [told["result"]["text/plain"]] if "result" in told else []
            found |= {"error": told["error"]["name"]} if "error" in told else {}
        return found


@pytest.fixture
def code() -> Iterator[Runner]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *COMMAND[1:]], **pipes) as process:  # type: ignore[call-overload]
        yield Runner(process)
        process.stdin.close()
        assert process.wait(30) == 0


def told(stdout: str = "", *results: str, **more: str) -> dict[str, Any]:
    return {"stdout": stdout, "stderr": "", "results": list(results), **more}


def test_code_is_run(code: Runner) -> None:
    assert code.run("x = 20\nprint('ä')\nx + 1") == told("ä\n", "21")
    assert code.run("import os; os.system('echo child >&2'); x") == {**told("", "20"), "stderr": "child\n"}
    assert code.run("1 / 0") == told(error="ZeroDivisionError")
    assert code.run("def f(:") == told(error="SyntaxError")
    assert code.run("input()") == told(error="EOFError")
    assert code.run("raise SystemExit(3)") == told(error="SystemExit")
    assert code.run("display(1, 'a'); None") == told("", "1", "'a'")
    assert code.run("import asyncio\nawait asyncio.sleep(0, x)") == told("", "20")
    assert code.run("while True: pass", timeout=0.2) == told(error="TimeoutError")
    assert code.run("x") == told("", "20")


async def test_a_call_that_is_cancelled_leaves_no_task(deaf: str) -> None:
    task = asyncio.create_task(AsyncSandbox.list(host=deaf))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_nobody_listens_where_hyperd_was_named(tmp_path: Path) -> None:
    """None is started: somebody else's was meant."""
    with pytest.raises(Unavailable, match="cannot connect to hyperd at .*/none: No such file or directory"):
        Sandbox.list(host=str(tmp_path / "none"))


def test_several_threads_have_one_loop(deaf: str) -> None:
    def call() -> None:
        with pytest.raises(DeadlineExceeded):
            Sandbox.list(host=deaf, timeout=0.2)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(t.name == "hypercontainer.sdk" for t in threading.enumerate()) == 1


_NAMES = (
    "command", "name", "cpus", "memory", "env", "workdir", "user", "network", "labels", "pull", "ttl", "idle_timeout",
)  # fmt: skip
NOTHING: dict[str, Any] = {**dict.fromkeys(_NAMES), "ports": [], "volumes": [], "keep": False}


def asked(spec: ContainerSpec | None = None, **given: Any) -> ContainerSpec:
    return sandbox_spec("x", spec, **{**NOTHING, **given})


def test_what_is_asked_for() -> None:
    found = asked(
        ContainerSpec(image="", hostname="h"), memory="64m", env={"A": "1"}, ports=[80, "8080:81"],
        volumes=["data:/data:ro"],
    )  # fmt: skip
    assert (found.image, found.hostname, found.resources.memory, found.env) == ("x", "h", 64 << 20, ["A=1"])
    assert [(p.host_ip, p.host_port, p.container_port) for p in found.ports] == [("127.0.0.1", 0, 80), ("", 8080, 81)]
    assert found.mounts[0].read_only and found.auto_remove and found.entrypoint == ["/sbin/docker-init"]
    with pytest.raises(InvalidArgument, match="invalid size '1 potato'"):
        asked(memory="1 potato")
    with pytest.raises(InvalidArgument, match="image: must be text, not 7"):
        sandbox_spec(7, None, **NOTHING)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="resources.cpus: must be a number"):
        asked(cpus="many")


def tree(path: Path) -> None:
    (path / "sub").mkdir(parents=True)
    (path / "sub/file").write_text("text")
    (path / "link").symlink_to("sub/file")


def test_a_tree_there_and_back(tmp_path: Path) -> None:
    tree(tmp_path / "a")
    archive = io.BytesIO()
    archives.pack(tmp_path / "a", "/x/y", archive)
    with tarfile.open(fileobj=archive) as tar:
        assert {m.name for m in tar} == {"x/y", "x/y/sub", "x/y/sub/file", "x/y/link"}
    archive.seek(0)
    archives.unpack(archive, tmp_path / "b")
    assert (tmp_path / "b/sub/file").read_text() == "text" and (tmp_path / "b/link").readlink() == Path("sub/file")


@pytest.mark.parametrize("name", ["../outside", "/outside", "top/../../outside"])
def test_nothing_is_unpacked_elsewhere(tmp_path: Path, name: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        top = tarfile.TarInfo("top")
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        tar.addfile(tarfile.TarInfo(name))
    archive.seek(0)
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidArgument, match="cannot be unpacked here"):
        archives.unpack(archive, tmp_path / "in/local")
    assert not list(tmp_path.rglob("outside"))


def link(name: str, target: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made


def directory(name: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = tarfile.DIRTYPE
    return made


def hostile(*members: tarfile.TarInfo) -> io.BytesIO:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for each in (directory("top"), *members):
            tar.addfile(each)
    archive.seek(0)
    return archive


def long_way() -> list[tarfile.TarInfo]:
    """Links whose resolution is too long for a path, so that some versions of Python leave `..` in it as it is."""
    members, at, deep = [], "top", "d" * 247
    for step in "abcdefghijklmnop":
        members += [directory(f"{at}/{deep}"), link(f"{at}/{step}", deep)]
        at += f"/{deep}"
    steps = "/".join("abcdefghijklmnop")
    far = f"{steps}/{'l' * 254}"
    return [*members, link(f"top/{far}", "../" * 16), link("top/escape", f"{far}/../../victim")]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("mine")
    local = tmp_path / "in/local"
    (tmp_path / "in").mkdir()
    inside = directory("top/escape")
    inside.mode = 0o777
    for member in (tarfile.TarInfo("top/escape/file"), inside, tarfile.TarInfo("top/escape/new")):
        with pytest.raises(InvalidArgument, match="cannot be unpacked here"):
            archives.unpack(hostile(*long_way(), member), local)
    with pytest.raises(InvalidArgument, match="sub is a symbolic link"):
        archives.unpack(hostile(directory("top/real"), link("top/sub", "real"), tarfile.TarInfo("top/sub/x")), local)
    assert [p.name for p in victim.iterdir()] == ["file"] and (victim / "file").read_text() == "mine"
    assert victim.stat().st_mode & 0o777 == 0o700


def test_a_link_that_is_here_gives_way(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    (tmp_path / "local").mkdir()
    (tmp_path / "local/x").symlink_to(tmp_path / "own")
    archives.unpack(hostile(tarfile.TarInfo("top/x")), tmp_path / "local")
    assert (tmp_path / "own").read_text() == "mine" and not (tmp_path / "local/x").is_symlink()


def test_where_nothing_can_be_written_here(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="file/local cannot be written: Not a directory"):
        archives.unpack(hostile(), tmp_path / "file/local")


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or directory here"):
        archives.pack(tmp_path / "none", "/x", io.BytesIO())
