# SPDX-License-Identifier: Apache-2.0
"""QMP: what is asked of a running QEMU. One connection per need; QEMU takes one at a time.

https://www.qemu.org/docs/master/interop/qmp-spec.html. Lines of JSON on a unix
socket: a greeting, `qmp_capabilities`, then commands, which QEMU takes in
their order, with their answers and events between. Written here because a
machine of the pool waits for it; see docs/adr/0005.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...errors import Conflict, Unavailable
from ...sys import deadlines
from ...sys.documents import UNREADABLE

_READ = 64 << 10
_EVENTS_MAX = 1000  # that nobody has asked for yet
_ANSWER_MAX = 4 << 20  # bytes of an answer; the longest that we ask for has some tens of thousands
_BACKLOG_PAUSE = 0.05


class Command(NamedTuple):
    """One command; a descriptor travels with it."""

    name: str
    arguments: dict[str, Any] | None = None
    fd: int | None = None


def _words(error: Any) -> str:
    return str(error.get("desc", "")) if isinstance(error, dict) else str(error)


def results(commands: Sequence[Command], answers: Sequence[dict[str, Any]]) -> list[Any]:
    """What QEMU gives for each.

    :raise Unavailable: it has refused one, with its words.
    """
    for command, answer in zip(commands, answers, strict=True):
        if "error" in answer:
            raise Unavailable(f"QEMU did not take {command.name!r}: {_words(answer['error'])}")
        if "return" not in answer:
            raise Unavailable(f"QEMU's answer to {command.name!r} is none")
    return [answer["return"] for answer in answers]


class Monitor:
    """Connected for the time of an `async with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX)
        self._buffer = b""
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_MAX)

    async def __aenter__(self) -> Monitor:
        self._sock.setblocking(False)
        try:
            await self._connect()
        except (OSError, TimeoutError) as error:
            self._sock.close()
            raise Unavailable(f"QEMU's monitor cannot be reached: {error}") from error
        try:
            await self.execute("qmp_capabilities")
        except BaseException:
            self._sock.close()
            raise
        return self

    async def _connect(self) -> None:
        """A full backlog says "later" on a unix socket, which an event loop takes for "in progress"."""
        async with asyncio.timeout(deadlines.MONITOR):
            while True:
                try:
                    return self._sock.connect(str(self._path))
                except BlockingIOError:
                    await asyncio.sleep(_BACKLOG_PAUSE)

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def execute(self, name: str, arguments: dict[str, Any] | None = None, fd: int | None = None) -> Any:
        """:raise Unavailable: when QEMU refuses, with its words, or does not answer."""
        return (await self.execute_all([Command(name, arguments, fd)]))[0]

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """All at once, without a wait between them; `execute` says what is raised."""
        return results(commands, await self.ask(commands))

    async def ask(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """What QEMU answers to each, also where it refuses.

        :raise Unavailable: it does not answer.
        """
        try:
            async with asyncio.timeout(deadlines.MONITOR):
                for command in commands:
                    await self._send(command)
                return [await self._answer() for _ in commands]
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"QEMU did not answer {commands[0].name!r}: {error or 'no time left'}") from error

    async def _send(self, command: Command) -> None:
        document: dict[str, Any] = {"execute": command.name}
        if command.arguments is not None:
            document["arguments"] = command.arguments
        data = msgspec.json.encode(document) + b"\n"
        if command.fd is not None:  # short, and the buffer is empty: it is taken at once
            data = data[socket.send_fds(self._sock, [data], [command.fd]) :]
        if data:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _answer(self) -> dict[str, Any]:
        while True:
            message = await self._message()
            if "event" in message:
                self._events.append(message)
            elif "QMP" not in message:
                return message

    async def _message(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = await asyncio.get_running_loop().sock_recv(self._sock, _READ)
            if not data:
                raise ConnectionError("it closed its monitor")
            self._buffer += data
            if len(self._buffer) > _ANSWER_MAX:
                raise ConnectionError("it answers without end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        except UNREADABLE as error:
            raise ConnectionError(f"its answer is not understood: {error}") from None
        return message

    async def event(self, name: str, timeout: float) -> dict[str, Any]:
        """The next one of this name since the connection began: its data.

        :raise TimeoutError: none came in so many seconds. :raise Unavailable: QEMU has ended.
        """
        try:
            async with asyncio.timeout(timeout):
                while not any(e.get("event") == name for e in self._events):
                    self._events.append(await self._message())
        except TimeoutError:
            raise
        except OSError as error:
            raise Unavailable(f"QEMU ended while {name} was awaited: {error}") from error
        found = next(e for e in self._events if e.get("event") == name)
        self._events.remove(found)
        data: dict[str, Any] = found.get("data", {})
        return data

    async def human(self, line: str) -> None:
        """A command that has no counterpart in QMP; any answer is a complaint.

        :raise Conflict: with that answer.
        """
        answer = await self.execute("human-monitor-command", {"command-line": line})
        if answer.strip() and "removed" not in answer:
            raise Conflict(f"QEMU refused {line!r}: {answer.strip()}")
