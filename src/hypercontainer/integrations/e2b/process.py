# SPDX-License-Identifier: Apache-2.0
"""The service process.Process: commands and terminals."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ...errors import InvalidArgument, NotFound, Unsupported
from .book import Entry
from .commands import BASH, Running, shell_of
from .connect import Call, Message

ALIVE: Message = {"event": {"keepalive": {}}}
_SIGNALS = {"SIGNAL_SIGTERM": 15, "SIGNAL_SIGKILL": 9, 15: 15, 9: 9}


class _Config(msgspec.Struct, rename="camel"):
    cmd: str = ""
    args: list[str] = []
    envs: dict[str, str] = {}
    cwd: str = ""


class _Size(msgspec.Struct):
    cols: int = 80
    rows: int = 24


class _Pty(msgspec.Struct):
    size: _Size = msgspec.field(default_factory=_Size)


class _Start(msgspec.Struct):
    process: _Config
    pty: _Pty | None = None
    tag: str = ""
    stdin: bool = True


def _read(type_: Any, message: Message) -> Any:
    try:
        return msgspec.convert(message, type_)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"the request is not understood: {error}") from None


async def start(entry: Entry, call: Call) -> AsyncIterator[Message]:
    """Begin a command, and tell of it until its end; when the client goes, it goes on."""
    asked: _Start = _read(_Start, await call.message())
    config = asked.process
    command = [await _program(entry, config.cmd), *config.args]
    size = asked.pty.size if asked.pty else _Size()
    process = await entry.sandbox.exec(
        command, env=config.envs, workdir=config.cwd, user=call.user, background=True, tty=asked.pty is not None,
        stdin=asked.stdin or asked.pty is not None, rows=size.rows, columns=size.cols,
    )  # fmt: skip
    running = Running(process, msgspec.to_builtins(config), asked.tag, tty=asked.pty is not None)
    queue = running.listen()
    running.begin(call.timeout)
    try:
        if pid := await running.number():
            entry.commands[pid] = running
            yield {"event": {"start": {"pid": pid}}}
        async for event in running.events(queue):
            yield {"event": event}
    finally:
        running.forget(queue)


async def connect(entry: Entry, call: Call) -> AsyncIterator[Message]:
    """Tell of a command that runs, from now on."""
    running = _selected(entry, await call.message())
    queue = running.listen()
    try:
        yield {"event": {"start": {"pid": running.pid}}}
        async for event in running.events(queue):
            yield {"event": event}
    finally:
        running.forget(queue)


async def list_(entry: Entry, call: Call) -> Message:
    """Those that clients began, and that run."""
    return {
        "processes": [
            {"config": r.config, "pid": pid, **({"tag": r.tag} if r.tag else {})}
            for pid, r in _alive(entry).items()
        ]
    }  # fmt: skip


async def send_input(entry: Entry, call: Call) -> Message:
    """Write to its stdin, or its terminal."""
    message = await call.message()
    await _write(_selected(entry, message), message.get("input"))
    return {}


async def stream_input(entry: Entry, call: Call) -> Message:
    """The same bit by bit."""
    running: Running | None = None
    async for message in call.messages():
        if "start" in message:
            running = _selected(entry, message["start"])
        elif "data" in message:
            if running is None:
                raise InvalidArgument("input comes before it is said whose it is")
            await _write(running, message["data"].get("input"))
    return {}


async def close_stdin(entry: Entry, call: Call) -> Message:
    """It reads the end of its input."""
    running = _selected(entry, await call.message())
    if running.tty:
        raise InvalidArgument("a terminal's input has no end: send the character 4")
    await running.process.close_stdin()
    return {}


async def send_signal(entry: Entry, call: Call) -> Message:
    """SIGTERM or SIGKILL."""
    message = await call.message()
    running = _selected(entry, message)
    signal = _SIGNALS.get(message.get("signal", ""))
    if signal is None:
        raise Unsupported("the signals are SIGTERM and SIGKILL")
    await running.process.signal(signal)
    return {}


async def update(entry: Entry, call: Call) -> Message:
    """Its terminal has another size."""
    message = await call.message()
    running = _selected(entry, message)
    if not running.tty:
        raise InvalidArgument("the command has no terminal")
    size = _read(_Pty, message.get("pty") or {}).size
    await running.process.resize(size.rows, size.cols)
    return {}


async def _program(entry: Entry, command: str) -> str:
    """Their bash is what the image has of it."""
    if command != BASH:
        return command
    if not entry.shell:
        entry.shell = await shell_of(entry.sandbox)
    return entry.shell


def _alive(entry: Entry) -> dict[int, Running]:
    entry.commands = {pid: r for pid, r in entry.commands.items() if not r.done}
    return entry.commands


def _selected(entry: Entry, message: Message) -> Running:
    """:raise NotFound: there is none such."""
    selector = message.get("process") or {}
    for pid, running in _alive(entry).items():
        if pid == selector.get("pid") or (running.tag and running.tag == selector.get("tag")):
            return running
    raise NotFound(f"no such command runs: {selector.get('pid') or selector.get('tag')}")


async def _write(running: Running, given: Any) -> None:
    value = (given or {}).get("pty" if running.tty else "stdin")
    if not isinstance(value, str):
        raise InvalidArgument(f"the command has {'a terminal' if running.tty else 'no terminal'}")
    try:
        data = base64.b64decode(value)
    except ValueError:
        raise InvalidArgument("the input is not base64") from None
    await running.process.write(data)


SERVER_STREAMS = {"Start": start, "Connect": connect}
UNARY = {
    "List": list_,
    "SendInput": send_input,
    "CloseStdin": close_stdin,
    "SendSignal": send_signal,
    "Update": update,
}
CLIENT_STREAMS = {"StreamInput": stream_input}
