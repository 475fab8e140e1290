# SPDX-License-Identifier: Apache-2.0
"""Sandboxes as tools of the Model Context Protocol, by its own SDK: `hyperctl mcp`.

A session may use what it made, and all of that ends with it. Who speaks is a language model: what tools say is short,
and what goes wrong is a sentence that says what to do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from .. import __version__
from ..client.sources import is_place
from ..errors import DeadlineExceeded, HyperError, InvalidArgument, NotFound, Unsupported
from ..model.status import ContainerStatus
from ..sdk import AsyncSandbox
from ..sdk.files import read_part
from ..sdk.process import fed
from ..sdk.spec import LABEL

OUTPUT_MAX = 32 << 10  # bytes of each output of a command; what is between its beginning and its end is left out
FILE_MAX = 256 << 10  # bytes of one answer about a file
ENTRIES_MAX = 500  # of one list
RUN_MAX = 600.0  # seconds of one command
_END = 20.0  # seconds to end a session's sandboxes
SANDBOXES_MAX = 20  # of one session at a time

INSTRUCTIONS = """Sandboxes are virtual machines made of container images, for code that nobody has looked at. Make one
with sandbox_create, run commands in it with run, end it with sandbox_end. Its files and programs stay between calls.
sandbox_fork makes copies that go on from where it is: try several ways at once, and keep the one that works."""


@dataclass(frozen=True)
class Made:
    """A sandbox."""

    sandbox: str  # what other tools take
    image: str
    running: bool = True


@dataclass(frozen=True)
class Result:
    """A command; `exit_code` is null when it was killed because its time was over."""

    exit_code: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Contents:
    """A part of a file. What is not UTF-8 text is base64."""

    content: str
    encoding: Literal["utf-8", "base64"]
    size: int  # bytes of the whole file
    offset: int
    more: bool


@dataclass(frozen=True)
class Listed:
    """An entry of a directory."""

    path: str
    kind: str
    size: int


class _Output:
    """The beginning and the end of what a command says."""

    def __init__(self) -> None:
        self._head, self._tail, self._lost = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        """The next piece."""
        room = OUTPUT_MAX // 2 - len(self._head)
        self._head += data[:room]
        self._tail += data[max(0, room) :]
        over = len(self._tail) - OUTPUT_MAX // 2
        if over > 0:
            del self._tail[:over]
            self._lost += over

    def text(self) -> str:
        """With what was left out."""
        head, tail = (bytes(part).decode(errors="replace") for part in (self._head, self._tail))
        return f"{head}\n[{self._lost} bytes are left out]\n{tail}" if self._lost else head + tail


class Tools:
    """Those of one session; each method without _ is one. `ttl`: seconds without a call, after which a sandbox is
    ended. hyperd keeps that time, so that nothing stays when the session is killed.
    """

    def __init__(self, host: str | None, image: str, ttl: float) -> None:
        self._host = host
        self._image = image
        self._ttl = ttl
        self._sandboxes: dict[str, AsyncSandbox] = {}
        self._coming = 0  # sandboxes that are being made
        self._making: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._ending: list[asyncio.Task[None]] = []
        self._snapshots: set[str] = set()

    def all(self) -> list[Callable[..., Coroutine[Any, Any, Any]]]:
        """For the server."""
        return [
            self.sandbox_create, self.sandbox_list, self.sandbox_end, self.run, self.file_read, self.file_write,
            self.file_list, self.sandbox_fork, self.snapshot_create, self.sandbox_restore,
        ]  # fmt: skip

    async def sandbox_create(
        self, image: str = "", env: dict[str, str] | None = None, memory: str = "", network: bool = True
    ) -> Made:
        """Make a sandbox of a container image (such as python:3 or debian); its files and programs stay until it is
        ended. memory: such as 512m. network: false for one that reaches nothing."""
        if is_place(image):
            raise InvalidArgument(f"{image} is no image's name", hint="name one as registries do, such as debian:12")

        async def work() -> list[AsyncSandbox]:
            return [await AsyncSandbox.create(
                image or self._image, env=env, memory=memory or None, network=None if network else "none",
                labels={LABEL: "mcp"}, ttl=self._ttl, host=self._host,
            )]  # fmt: skip

        return (await self._make(1, work))[0]

    async def sandbox_list(self) -> list[Made]:
        """The sandboxes of this session."""
        found = []
        for name, sandbox in tuple(self._sandboxes.items()):
            try:
                status = (await sandbox.info()).state.status
                found.append(Made(name, sandbox.image, status is ContainerStatus.RUNNING))
            except NotFound:  # its time was over
                self._sandboxes.pop(name, None)
        return found

    async def sandbox_end(self, sandbox: str) -> str:
        """End a sandbox, with all that is in it."""
        await (await self._find(sandbox)).kill()
        self._sandboxes.pop(sandbox, None)
        return f"{sandbox} has ended"

    async def run(
        self, sandbox: str, command: str, stdin: str = "", workdir: str = "", user: str = "", timeout: float = 60
    ) -> Result:
        """Run a shell command in a sandbox, and wait for its end. Of long output the beginning and the end are told.
        timeout: seconds, after which it is killed; what is to go on is put in the background by the command itself
        (such as `nohup server >log 2>&1 &`)."""
        if not 0 < timeout <= RUN_MAX:
            raise InvalidArgument(f"a timeout is more than 0 and at most {RUN_MAX:g} seconds")
        outputs = {"stdout": _Output(), "stderr": _Output()}
        code: int | None = None
        async with self._used(sandbox) as found:
            process = await found.exec(command, stdin=bool(stdin), workdir=workdir, user=user)
            async with process, fed(process, stdin or None, timeout):
                try:
                    async for piece in process.output(timeout=timeout):
                        outputs[piece.stream].add(piece.data)
                    code = process.exit_code
                except DeadlineExceeded:
                    outputs["stderr"].add(f"\n[it was killed after {timeout:g} s]".encode())
        return Result(code, outputs["stdout"].text(), outputs["stderr"].text())

    async def file_read(self, sandbox: str, path: str, offset: int = 0, limit: int = FILE_MAX) -> Contents:
        """Read a file of a sandbox, or a part of it: from byte `offset` on, at most `limit` bytes."""
        if offset < 0 or not 0 < limit <= FILE_MAX:
            raise InvalidArgument(f"offset is 0 or more, limit is 1 to {FILE_MAX}")
        part, size = await read_part((await self._find(sandbox)).files, path, offset, limit)
        more = offset + limit < size
        try:
            return Contents(part.decode(), "utf-8", size, offset, more)
        except UnicodeDecodeError:
            return Contents(base64.b64encode(part).decode(), "base64", size, offset, more)

    async def file_write(
        self, sandbox: str, path: str, content: str, encoding: Literal["utf-8", "base64"] = "utf-8"
    ) -> str:
        """Write a file of a sandbox; directories above it are made, what was there is replaced."""
        try:
            data = base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
        except ValueError:
            raise InvalidArgument("the content is not base64") from None
        await (await self._find(sandbox)).files.write(path, data)
        return f"{path} has {len(data)} bytes"

    async def file_list(self, sandbox: str, path: str = "/", depth: int = 1) -> list[Listed]:
        """List a directory of a sandbox; depth: how many levels."""
        found = await (await self._find(sandbox)).files.list(path, depth=depth)
        if len(found) > ENTRIES_MAX:
            raise InvalidArgument(f"{path} has {len(found)} entries, more than {ENTRIES_MAX}", hint="list less of it")
        return [Listed(f"{path.rstrip('/')}/{entry.name}", entry.kind, entry.size) for entry in found]

    async def sandbox_fork(self, sandbox: str, count: int = 1) -> list[Made]:
        """Make sandboxes that go on from where this one is now, with its files, memory and running programs; it runs
        on."""
        found = await self._find(sandbox)
        return await self._make(count, lambda: found.fork(count))

    async def snapshot_create(self, sandbox: str, name: str = "") -> str:
        """Save a sandbox as it is now, and answer with the snapshot's id, for sandbox_restore. It stays when the
        session ends."""
        made = await (await self._find(sandbox)).snapshot(name)
        self._snapshots |= {made.id, made.name}
        return made.id

    async def sandbox_restore(self, snapshot: str) -> Made:
        """Make a sandbox that goes on from a snapshot of this session."""
        if snapshot not in self._snapshots:
            raise NotFound(f"this session has no snapshot {snapshot}", hint="snapshot_create makes one")

        async def work() -> list[AsyncSandbox]:
            return [await AsyncSandbox.restore(snapshot, host=self._host)]

        return (await self._make(1, work))[0]

    # -- what the session has ------------------------------------------------------------

    async def _make(self, count: int, work: Callable[[], Coroutine[Any, Any, list[AsyncSandbox]]]) -> list[Made]:
        """So many, unless they are too many with those that others make meanwhile."""
        if self._are_many(count):
            await self.sandbox_list()  # which forgets those that have ended
        if self._closed or count < 1 or self._are_many(count):
            raise InvalidArgument(f"a session has at most {SANDBOXES_MAX} sandboxes", hint="end some with sandbox_end")

        async def kept() -> list[Made]:  # also when nobody waits for it any more
            return [self._keep(made) for made in await work()]

        self._coming += count
        task = asyncio.create_task(kept())
        self._making.add(task)
        try:
            return await task
        finally:
            self._making.discard(task)
            self._coming -= count

    def _are_many(self, more: int) -> bool:
        return len(self._sandboxes) + self._coming + more > SANDBOXES_MAX

    def _keep(self, made: AsyncSandbox) -> Made:
        self._sandboxes[made.name] = made
        return Made(made.name, made.image)

    async def _find(self, name: str) -> AsyncSandbox:
        """Its time begins anew."""
        if found := self._sandboxes.get(name):
            try:
                await found.set_lifetime(ttl=self._ttl)
                return found
            except NotFound:
                self._sandboxes.pop(name, None)
        raise NotFound(f"this session has no sandbox {name}", hint="sandbox_list lists them, sandbox_create makes one")

    @contextlib.asynccontextmanager
    async def _used(self, name: str) -> AsyncIterator[AsyncSandbox]:
        """Its time does not end meanwhile, and begins anew at the end."""
        found = await self._find(name)
        renewing = asyncio.create_task(self._renew(found))
        try:
            yield found
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with contextlib.suppress(HyperError):
                await found.set_lifetime(ttl=self._ttl)

    async def _renew(self, sandbox: AsyncSandbox) -> None:
        while True:
            await asyncio.sleep(self._ttl / 3)
            with contextlib.suppress(HyperError):
                await sandbox.set_lifetime(ttl=self._ttl)

    async def close(self) -> None:
        """End what the session made; whoever asks again waits for the same ends."""
        self._closed = True
        for task in tuple(self._making):  # hyperd gives up what nobody waits for
            task.cancel()
        await asyncio.gather(*self._making, return_exceptions=True)
        ending, self._sandboxes = self._sandboxes, {}
        self._ending = [*self._ending, *(asyncio.create_task(_end(sandbox)) for sandbox in ending.values())]
        await asyncio.gather(*self._ending)


async def _end(sandbox: AsyncSandbox) -> None:
    """What cannot be ended is told on stderr: nobody else is there to hear it."""
    import sys

    try:
        await sandbox.kill(timeout=_END)
    except HyperError as error:
        print(f"hyperctl: sandbox {sandbox.name} did not end: {error}", file=sys.stderr)


def make_server(tools: Tools) -> Any:
    """A server of the SDK's.

    :raise Unsupported: that is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        raise Unsupported(
            "the package mcp is not installed, or is older than 2", hint="pip install 'hypercontainer[mcp]'"
        ) from None

    def told(tool: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        @functools.wraps(tool)
        async def call(*args: Any, **given: Any) -> Any:
            try:
                return await tool(*args, **given)
            except HyperError as error:
                raise ToolError(str(error)) from error

        return call

    server: MCPServer[Any] = MCPServer(
        "hypercontainer", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    for tool in tools.all():
        server.add_tool(told(tool))
    return server


async def serve(tools: Tools) -> None:
    """On stdin and stdout, until the client closes them or this is asked to end.

    :raise Unsupported: the SDK is not installed.
    """
    server = make_server(tools)
    leaving: set[asyncio.Task[None]] = set()

    async def leave() -> None:
        await tools.close()
        os._exit(0)  # a thread waits for stdin, which nobody can interrupt

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: leaving.add(asyncio.create_task(leave())))
    try:
        await server.run_stdio_async()
    finally:
        await tools.close()
