# SPDX-License-Identifier: Apache-2.0
"""Containers and execs over REST."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from ..engine.execs import Exec
from ..engine.streams import FanOut
from ..errors import HyperError, InvalidArgument, InvalidState
from ..model.base import Model
from ..model.specs import ContainerSpec, ExecSpec
from ..model.status import Change, Container, ContainerStats, ContainerStatus, ExecInfo, ExitCode, PathStat, ProcessInfo
from ..model.trace import Span
from ..sys import spans, tasks
from .router import Context, Routes, error_body, error_response
from .upgrade import STDERR, STDOUT, Ended, UpgradedStream, WindowSize

routes = Routes()
_ID = "/containers/{id}"
_WINDOW_QUERY = {"rows": "height of the terminal", "columns": "width of the terminal"}
_FRAMES = "application/vnd.hyper.frames"

_ALIVE = (ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.RESTARTING)


class Started(Model, frozen=True, kw_only=True):
    """Whether the call changed anything."""

    changed: bool


_REMOVAL = 10.0  # seconds that a client waits for the end of what it runs
_ID_HEADER = "Hyper-Id"


@routes.post(
    "/containers",
    query={
        "start": "start it too, and attach if the connection is upgraded",
        "trace": "tell where the time went",
        **_WINDOW_QUERY,
    },
    body=ContainerSpec,
    result=Container,
    status=201,
)
async def create(c: Context) -> web.StreamResponse:
    """Create a container; its image must be in the store.

    With `start` it is started too, and attached if the connection is upgraded.
    """
    with spans.recording(c.flag("trace")) as found:
        return await _create(c, found)


async def _create(c: Context, found: list[Span]) -> web.StreamResponse:
    with spans.span("request read"):
        spec = await c.body(ContainerSpec)
    with spans.span("container created"):
        container = await c.engine.containers.create(spec, starting=c.flag("start"))
    headers = {_ID_HEADER: container.id}
    if c.flag("start") and c.upgrades:
        return await _attach(c, container, starts=True, headers=headers, trace=found)
    if c.flag("start"):
        try:
            await c.engine.containers.start(container.id, _window(c))
        except HyperError as error:
            return error_response(error, headers)
        if c.engine.registry.exists(container.id):
            container = c.engine.registry.container(container.id)
    return web.Response(
        body=msgspec.json.encode(container), status=201, headers=headers, content_type="application/json"
    )


@routes.get("/containers", query={"all": "also those that do not run"})
async def list_(c: Context) -> list[Container]:
    """List containers, newest first."""
    everything = c.flag("all")
    return [x for x in c.engine.registry.containers() if everything or x.state.status in _ALIVE]


@routes.get(_ID)
async def inspect(c: Context) -> Container:
    """Inspect a container."""
    return c.engine.registry.container(c.id)


@routes.post(f"{_ID}/start")
async def start(c: Context) -> Started:
    """Start a container."""
    return Started(changed=await c.engine.containers.start(c.id))


@routes.post(f"{_ID}/stop", query={"timeout": "seconds until SIGKILL"})
async def stop(c: Context) -> Started:
    """Signal, wait, kill."""
    return Started(changed=await c.engine.containers.stop(c.id, c.number("timeout")))


@routes.post(f"{_ID}/restart", query={"timeout": "seconds until SIGKILL"})
async def restart(c: Context) -> None:
    """Stop and start."""
    await c.engine.containers.restart(c.id, c.number("timeout"))


@routes.post(f"{_ID}/kill", query={"signal": "name or number, KILL if none"})
async def kill(c: Context) -> None:
    """Send a signal to the main process."""
    await c.engine.containers.kill(c.id, c.text("signal", "KILL"))


@routes.post(f"{_ID}/pause")
async def pause(c: Context) -> None:
    """Freeze all processes."""
    await c.engine.containers.pause(c.id)


@routes.post(f"{_ID}/unpause")
async def unpause(c: Context) -> None:
    """Thaw all processes."""
    await c.engine.containers.unpause(c.id)


@routes.post(f"{_ID}/rename", query={"name": "the new name"})
async def rename(c: Context) -> Container:
    """Rename a container."""
    return c.engine.containers.rename(c.id, c.text("name"))


@routes.delete(_ID, query={"force": "kill it first if it runs"})
async def remove(c: Context) -> Container:
    """Remove a container."""
    return await c.engine.containers.remove(c.id, force=c.flag("force"))


@routes.post(f"{_ID}/wait")
async def wait(c: Context) -> ExitCode:
    """Wait until the container has stopped."""
    return ExitCode(exit_code=await c.engine.containers.wait(c.id))


@routes.get(f"{_ID}/top")
async def top(c: Context) -> list[ProcessInfo]:
    """Processes."""
    return await c.engine.monitor.top(c.id)


@routes.get(f"{_ID}/stats")
async def stats(c: Context) -> ContainerStats:
    """Use of resources, now."""
    return await c.engine.monitor.stats(c.id)


@routes.get(
    f"{_ID}/logs",
    query={
        "tail": "the last so many lines",
        "since": "RFC 3339",
        "until": "RFC 3339",
        "follow": "go on with what is added",
    },
    stream="application/x-ndjson",
)
async def logs(c: Context) -> web.StreamResponse:
    """The log, a record per line."""
    container = c.engine.registry.container(c.id)
    found = c.engine.logs(
        container.id, tail=c.number("tail"), since=c.text("since"), until=c.text("until"), follow=c.flag("follow")
    )  # fmt: skip
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(c.request)
    encode = msgspec.json.Encoder().encode
    with contextlib.suppress(ConnectionError):
        async with contextlib.aclosing(found) as records:  # a reader that leaves lets go of the files
            async for batch in records:
                if batch:  # one at a time: the next is read when this one is on its way
                    await response.write(b"".join(encode(r) + b"\n" for r in batch))
        await response.write_eof()
    return response


# -- attach and exec --------------------------------------------------------------


def _window(c: Context) -> tuple[int, int]:
    return c.number("rows", 0) or 0, c.number("columns", 0) or 0


async def _converse(
    c: Context,
    fan_out: FanOut,
    *,
    begin: Callable[[], Awaitable[Any]],
    finish: Callable[[], Awaitable[Ended]],
    close_stdin: bool,
    headers: dict[str, str] | None = None,
) -> web.StreamResponse:
    """Upgrade, start what is to be started, copy both ways, tell the exit code."""
    stream = UpgradedStream(c.request, headers or {})
    reader = fan_out.attach()
    response = await stream.open()
    wanted = frozenset({STDOUT, STDERR} if not c.flag("noOutput") else ())
    copy_in = asyncio.create_task(stream.copy_input(fan_out, close_stdin=close_stdin))
    copy_out = asyncio.create_task(stream.copy_output(reader, wanted))
    try:
        try:
            await begin()
        except Exception as error:
            await stream.send_status({"error": error_body(error)})
            if not isinstance(error, HyperError):
                raise
            return response
        await asyncio.wait({copy_in, copy_out}, return_when=asyncio.FIRST_COMPLETED)
        if copy_out.done() and not copy_out.exception():
            ended = await finish()
            if reader.lost:
                why = (
                    f"{reader.lost} bytes of output are not shown: they were not read in time; "
                    "`hyperctl logs` has them if there is a log"
                )
                ended = msgspec.structs.replace(ended, message="; ".join(filter(None, (ended.message, why))))
            await stream.send_status(ended)
    finally:
        reader.close()
        for task in (copy_in, copy_out):
            task.cancel()
        await asyncio.gather(copy_in, copy_out, return_exceptions=True)
    return response


@routes.post(
    f"{_ID}/attach",
    query={"start": "start it too", "noOutput": "send no output", "trace": "tell where the time went", **_WINDOW_QUERY},
    stream=_FRAMES,
)
async def attach(c: Context) -> web.StreamResponse:
    """Attach to the main process."""
    container = c.engine.registry.container(c.id)
    with spans.recording(c.flag("trace")) as found:
        return await _attach(c, container, starts=c.flag("start"), trace=found)


async def _attach(
    c: Context,
    container: Container,
    *,
    starts: bool,
    headers: dict[str, str] | None = None,
    trace: list[Span] | None = None,
) -> web.StreamResponse:
    owner = c.engine.containers.supervisor(container)
    if not starts and container.state.status not in _ALIVE:
        raise InvalidState(
            f"container {container.name} is not running", hint=f"start it with `hyperctl start -a {container.name}`"
        )

    async def begin() -> None:
        if starts:
            await c.engine.containers.start(container.id, _window(c))

    async def finish() -> Ended:
        await owner.stopped.wait()
        if container.spec.auto_remove:  # its name, ports and volumes are free when the client returns
            with contextlib.suppress(TimeoutError):
                await tasks.within(owner.removed.wait(), _REMOVAL)
        return Ended(exit_code=owner.exit_code, message=owner.error, trace=trace or [])

    close_stdin = container.spec.stdin and not container.spec.tty
    return await _converse(c, owner.fan_out, begin=begin, finish=finish, close_stdin=close_stdin, headers=headers)


@routes.post(f"{_ID}/resize", body=WindowSize)
async def resize(c: Context) -> None:
    """Resize the terminal."""
    container = c.engine.registry.container(c.id)
    size = await c.body(WindowSize)
    runtime = c.engine.containers.runtime(container)
    await runtime.handles[container.id].resize(size.rows, size.columns)


@routes.post(
    f"{_ID}/exec",
    query={"start": "start it too, and attach: the connection is upgraded", **_WINDOW_QUERY},
    body=ExecSpec,
    result=ExecInfo,
    status=201,
)
async def exec_create(c: Context) -> ExecInfo | web.StreamResponse:
    """Create a further process."""
    exec_ = c.engine.execs.create(c.id, await c.body(ExecSpec))
    if c.flag("start") and c.upgrades:
        return await _attach_exec(c, exec_)
    return exec_.info()


@routes.post("/execs/{id}/start", query=_WINDOW_QUERY, stream=_FRAMES)
async def exec_start(c: Context) -> web.StreamResponse | None:
    """Start it, and attach unless detached."""
    exec_ = c.engine.execs.get(c.id)
    if exec_.spec.detach:
        await c.engine.execs.start(exec_)
        return None
    return await _attach_exec(c, exec_)


async def _attach_exec(c: Context, exec_: Exec) -> web.StreamResponse:

    async def begin() -> None:
        await c.engine.execs.start(exec_, _window(c))

    async def finish() -> Ended:
        await exec_.ended.wait()
        return Ended(exit_code=exec_.exit_code or 0)

    headers = {_ID_HEADER: exec_.id}
    return await _converse(
        c, exec_.fan_out, begin=begin, finish=finish, close_stdin=not exec_.spec.tty, headers=headers
    )


@routes.get("/execs/{id}")
async def exec_inspect(c: Context) -> ExecInfo:
    """Inspect a further process."""
    return c.engine.execs.get(c.id).info()


@routes.post("/execs/{id}/kill", query={"signal": "name or number, TERM if none"})
async def exec_signal(c: Context) -> None:
    """Send it a signal."""
    await c.engine.execs.signal(c.id, c.text("signal", "TERM"))


# -- archives -----------------------------------------------------------------------


@routes.get(f"{_ID}/archive/stat", query={"path": "absolute path"})
async def archive_stat(c: Context) -> PathStat:
    """A path of the container."""
    return await c.engine.archives.stat(c.id, c.text("path"))


@routes.get(
    f"{_ID}/archive", query={"path": "absolute path", "follow": "follow a symbolic link"}, stream="application/x-tar"
)
async def archive_read(c: Context) -> web.StreamResponse:
    """A path of the container as a tar stream."""
    return await _send_tar(c, c.engine.archives.read(c.id, c.text("path"), follow=c.flag("follow")))


@routes.get(f"{_ID}/export", stream="application/x-tar")
async def export(c: Context) -> web.StreamResponse:
    """The whole root file system as a tar stream."""
    return await _send_tar(c, c.engine.archives.export(c.id))


@routes.get(f"{_ID}/changes")
async def changes(c: Context) -> list[Change]:
    """What differs from the image."""
    return await c.engine.archives.changes(c.id)


async def _send_tar(c: Context, chunks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    first = await anext(chunks, b"")  # errors of the path come before the answer begins
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(c.request)
    async with contextlib.aclosing(chunks):
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response


@routes.put(f"{_ID}/archive", query={"path": "absolute path"})
async def archive_write(c: Context) -> None:
    """Unpack a tar stream below a directory of the container."""
    if not c.text("path"):
        raise InvalidArgument("query parameter path is missing", hint="name a directory of the container")
    await c.engine.archives.write(c.id, c.text("path"), c.request.content.iter_any())
