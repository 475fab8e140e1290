# SPDX-License-Identifier: Apache-2.0
"""Containers and execs over REST."""

from __future__ import annotations

import contextlib

import msgspec
from aiohttp import web

from ..engine.attach.session import AttachOptions, AttachSession
from ..engine.attachments import check_readable
from ..engine.execs import Exec
from ..engine.processors import warnings
from ..engine.usage import PRUNE_FILTERS
from ..errors import HyperError, InvalidArgument
from ..model.base import Model
from ..model.container_filters import NAMES
from ..model.detach_keys import parse_detach_keys
from ..model.filters import decode_filters
from ..model.frames import STDERR, STDOUT
from ..model.images import CommitRequest, LoadedImage
from ..model.moments import write_moment
from ..model.reference import parse_reference
from ..model.specs import ContainerSpec, ContainerUpdate, ExecSpec
from ..model.statistics import ContainerStats
from ..model.status import Container, ContainerSize, ExecInfo, ExitCode, ProcessInfo, Pruned
from ..model.trace import Span
from ..sys import spans
from .router import FRAMES, Context, Routes, error_response
from .upgrade import CELLS_MAX, UpgradedPeer, WindowSize

routes = Routes()
_ID = "/containers/{id}"
_ATTACH_QUERY = {
    "rows": "height of the terminal",
    "columns": "width of the terminal",
    "detachKeys": "keys that detach a terminal [ctrl-p,ctrl-q]",
}


class Started(Model, frozen=True, kw_only=True):
    """Whether the call changed anything."""

    changed: bool


_ENDING = {"timeout": "seconds until SIGKILL", "signal": "that comes before it, by name or number [the container's]"}
_ID_HEADER = "Hyper-Id"
_WARNING_HEADER = "Hyper-Warning"  # what who made it should know, in one sentence


@routes.post(
    "/containers",
    query={
        "start": "start it too, and attach if the connection is upgraded",
        "trace": "tell where the time went",
        **_ATTACH_QUERY,
    },
    body=ContainerSpec,
    result=Container,
    status=201,
)
async def create(c: Context) -> web.StreamResponse:
    """Create a container; its image must be in the store.

    With `start` it is started too, and attached if the connection is upgraded.
    """
    await c.engine.builds.catch_up()
    with spans.recording(c.flag("trace")) as found:
        return await _create(c, found)


async def _create(c: Context, found: list[Span]) -> web.StreamResponse:
    options = _options(c)
    with spans.span("request read"):
        spec = await c.body(ContainerSpec)
    with spans.span("container created"):
        container = await c.engine.containers.create(spec, starting=c.flag("start"))
    headers = {_ID_HEADER: container.id}
    if told := warnings(c.engine.registry.pod(container.pod)):
        headers[_WARNING_HEADER] = "; ".join(told)
    if c.flag("start") and c.upgrades:
        session = c.engine.attachments.container(container.id, options, starts=True)
        return await _run(c, session, headers=headers, trace=found)
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


@routes.get(
    "/containers",
    query={
        "all": "also those that do not run",
        "system": "also the daemon's own",
        "limit": "the last so many, whatever their state",
        "filters": f"JSON object of lists, as Docker's: {', '.join(NAMES)}",
    },
)
async def list_(c: Context) -> list[Container]:
    """List containers, newest first."""
    filters = decode_filters(c.text("filters"), NAMES)
    return c.engine.listing.containers(
        filters, everything=c.flag("all"), limit=c.number("limit", 0) or 0, system=c.flag("system")
    )


@routes.get(_ID)
async def inspect(c: Context) -> Container:
    """Inspect a container."""
    return c.engine.registry.container(c.id)


@routes.get(f"{_ID}/size")
async def size(c: Context) -> ContainerSize:
    """What it takes of the disk."""
    return await c.engine.listing.size(c.id)


@routes.post(f"{_ID}/start")
async def start(c: Context) -> Started:
    """Start a container."""
    return Started(changed=await c.engine.containers.start(c.id))


@routes.post(f"{_ID}/stop", query=_ENDING)
async def stop(c: Context) -> Started:
    """Signal, wait, kill."""
    return Started(changed=await c.engine.containers.stop(c.id, c.number("timeout"), c.text("signal")))


@routes.post(f"{_ID}/restart", query=_ENDING)
async def restart(c: Context) -> None:
    """Stop and start."""
    await c.engine.containers.restart(c.id, c.number("timeout"), c.text("signal"))


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


@routes.post(f"{_ID}/update", body=ContainerUpdate)
async def update(c: Context) -> Container:
    """Change limits and restart policy, at once where it runs."""
    return await c.engine.updates.update(c.id, await c.body(ContainerUpdate))


@routes.delete(_ID, query={"force": "kill it first if it runs"})
async def remove(c: Context) -> Container:
    """Remove a container."""
    return await c.engine.containers.remove(c.id, force=c.flag("force"), volumes=c.flag("volumes"))


@routes.post(f"{_ID}/wait", scope="read")
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
        "since": "RFC 3339 to the nanosecond, seconds since the epoch, or a duration before now",
        "until": "the same",
        "follow": "go on with what is added",
    },
    stream="application/x-ndjson",
)
async def logs(c: Context) -> web.StreamResponse:
    """The log, a record per line."""
    container = c.engine.registry.container(c.id)
    since, until = ("" if m is None else write_moment(m) for m in (c.moment("since"), c.moment("until")))
    check_readable(container)
    found = c.engine.logs(container.id, tail=c.number("tail"), since=since, until=until, follow=c.flag("follow"))
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


@routes.post(f"{_ID}/logs/reopen")
async def logs_reopen(c: Context) -> None:
    """Go on in a new file, when the log's was moved away."""
    c.engine.containers.reopen_log(c.id)


# -- attach and exec --------------------------------------------------------------


def _window(c: Context) -> tuple[int, int]:
    """Rows and columns; 0 where it is not said. :raise InvalidArgument: more than a terminal can have."""
    size = c.number("rows", 0) or 0, c.number("columns", 0) or 0
    if max(size) > CELLS_MAX:
        raise InvalidArgument(f"a terminal cannot have {size[0]} rows and {size[1]} columns", hint="each has 16 bits")
    return size


def _options(c: Context) -> AttachOptions:
    """:raise InvalidArgument: detach keys that are none."""
    bound, keys = c.flag("bound"), c.text("detachKeys")
    return AttachOptions(
        outputs=frozenset(() if c.flag("noOutput") else (STDOUT, STDERR)), logs=c.flag("logs"),
        stream=c.flag("stream") or not c.text("stream"), size=_window(c), bound=bound,
        detach_keys=parse_detach_keys(keys) if keys or not bound else b"",  # else all keys are the process's
    )  # fmt: skip


async def _run(
    c: Context, session: AttachSession, *, headers: dict[str, str] | None = None, trace: list[Span] | None = None
) -> web.StreamResponse:
    c.require_upgrade()
    peer = UpgradedPeer(c.request, headers or {}, trace)
    await session.run(peer)
    return peer.response


@routes.post(
    f"{_ID}/attach",
    query={
        "start": "start it too",
        "early": "attach before somebody else starts it",
        "bound": "kill it when this client goes; no keys detach that, unless they are said",
        "noOutput": "send no output",
        "logs": "send what the log has, first",
        "stream": "go on with what comes [1]; 0 ends after the log",
        "trace": "tell where the time went",
        **_ATTACH_QUERY,
    },
    stream=FRAMES,
)
async def attach(c: Context) -> web.StreamResponse:
    """Attach to the main process."""
    await c.engine.containers.rouse(c.id)
    with spans.recording(c.flag("trace")) as found:
        session = c.engine.attachments.container(
            c.id, _options(c), starts=c.flag("start"), early=c.flag("early")
        )  # fmt: skip
        return await _run(c, session, trace=found)


@routes.post(f"{_ID}/resize", body=WindowSize)
async def resize(c: Context) -> None:
    """Resize the terminal."""
    c.engine.registry.container(c.id)
    size = await c.body(WindowSize)
    await c.engine.containers.resize(c.id, size.rows, size.columns)


@routes.post(
    f"{_ID}/exec",
    query={"start": "start it too, and attach: the connection is upgraded", **_ATTACH_QUERY},
    body=ExecSpec,
    result=ExecInfo,
    status=201,
)
async def exec_create(c: Context) -> ExecInfo | web.StreamResponse:
    """Create a further process."""
    spec = await c.body(ExecSpec)
    await c.engine.containers.rouse(c.id)
    exec_ = c.engine.execs.create(c.id, spec)
    if c.flag("start") and c.upgrades:
        return await _attach_exec(c, exec_)
    return exec_.info()


@routes.post("/execs/{id}/start", query=_ATTACH_QUERY, stream=FRAMES)
async def exec_start(c: Context) -> web.StreamResponse | None:
    """Start it, and attach unless detached."""
    exec_ = c.engine.execs.get(c.id)
    if exec_.spec.detach:
        await c.engine.execs.start(exec_)
        return None
    return await _attach_exec(c, exec_)


async def _attach_exec(c: Context, exec_: Exec) -> web.StreamResponse:
    return await _run(c, c.engine.attachments.exec(exec_, _options(c)), headers={_ID_HEADER: exec_.id})


@routes.post(
    "/execs/{id}/attach",
    query={"bound": "kill it when this client goes; no keys detach that, unless they are said", **_ATTACH_QUERY},
    stream=FRAMES,
)
async def exec_attach(c: Context) -> web.StreamResponse:
    """Attach before somebody else starts it."""
    return await _run(c, c.engine.attachments.exec(c.engine.execs.get(c.id), _options(c), starts=False))


@routes.get("/execs/{id}")
async def exec_inspect(c: Context) -> ExecInfo:
    """Inspect a further process."""
    return c.engine.execs.get(c.id).info()


@routes.post(
    "/execs/{id}/kill",
    query={"signal": "name or number, TERM if none", "group": "to what it has started, too: its process group"},
)
async def exec_signal(c: Context) -> None:
    """Send it a signal."""
    await c.engine.execs.signal(c.id, c.text("signal", "TERM"), group=c.flag("group"))


@routes.post("/containers/prune", query={"filters": f"JSON object of lists: {', '.join(PRUNE_FILTERS)}"})
async def prune(c: Context) -> Pruned:
    """Remove all containers that do not run and are no part of a pod of several."""
    return await c.engine.usage.prune_containers(decode_filters(c.text("filters"), PRUNE_FILTERS))


@routes.post(f"{_ID}/commit", body=CommitRequest, status=201)
async def commit(c: Context) -> LoadedImage:
    """Make an image of a container."""
    made = await c.engine.commits.commit(c.id, await c.body(CommitRequest))
    names = [parse_reference(name).familiar for name in made.names]
    return LoadedImage(id=made.image.id, names=names, replaced=made.replaced)
