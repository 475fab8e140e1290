# SPDX-License-Identifier: Apache-2.0
"""A container's main process: who is attached to it, its terminal's size, its end."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from aiohttp import web

from ..engine.attach.session import AttachOptions
from ..engine.containers import WaitFor
from ..errors import InvalidArgument
from ..model.detach_keys import parse_detach_keys
from ..model.status import Container
from .hijack import STDERR, STDOUT, HijackedPeer
from .router import Call, Routes
from .versions import ApiVersion

routes = Routes()
_WAITS_AT_ONCE = ApiVersion(1, 30)  # from which on the head of an answer to `wait` comes before the end


@routes.post("/containers/{name}/attach")
async def attach(c: Call) -> web.StreamResponse:
    """Attach to the main process, also before it starts."""
    container = c.container
    await c.engine.containers.rouse(container.id)
    session = c.engine.attachments.container(container.id, options(c, container), early=True)
    peer = HijackedPeer(c.request, c.version, tty=container.spec.tty, takes_input=c.flag("stdin"))
    await session.run(peer)
    return peer.response


def options(c: Call, container: Container) -> AttachOptions:
    """Of a container that was made without StdinOnce, stdin stays open when a client goes.

    :raise InvalidArgument: detach keys that are none.
    """
    wanted = {STDOUT: c.flag("stdout"), STDERR: c.flag("stderr")}
    return AttachOptions(
        outputs=frozenset(stream for stream, on in wanted.items() if on), logs=c.flag("logs"), stream=c.flag("stream"),
        detach_keys=parse_detach_keys(c.text("detachKeys")),
        keeps_stdin="Config" in container.spec.given and not container.spec.given["Config"].get("StdinOnce"),
    )  # fmt: skip


@routes.post("/containers/{name}/wait", scope="read")
async def wait(c: Call) -> web.StreamResponse | dict[str, Any]:
    """Wait for an end. Clients start the container when they have the head of the answer."""
    if c.version < _WAITS_AT_ONCE:
        return {"StatusCode": (await c.engine.containers.await_end(c.container.id)()).exit_code}
    try:
        until = WaitFor(c.text("condition") or WaitFor.NOT_RUNNING)
    except ValueError:
        raise InvalidArgument(f'invalid condition: "{c.text("condition")}"') from None
    ended = c.engine.containers.await_end(c.container.id, until)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(c.request)
    end = await ended()
    found: dict[str, Any] = {"StatusCode": end.exit_code}
    if end.error:
        found["Error"] = {"Message": end.error}
    with contextlib.suppress(ConnectionError):
        await response.write(msgspec.json.encode(found) + b"\n")
        await response.write_eof()
    return response


def size_of(c: Call) -> tuple[int, int]:
    """Rows and columns. :raise InvalidArgument: they are missing, or no numbers."""
    rows, columns = c.number("h"), c.number("w")
    if rows is None or columns is None:
        raise InvalidArgument("a terminal's size takes the query parameters h and w")
    if not (0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise InvalidArgument(f"a terminal of {rows} rows and {columns} columns: each has 16 bits")
    return rows, columns


@routes.post("/containers/{name}/resize")
async def resize(c: Call) -> web.Response:
    """Resize the terminal."""
    await c.engine.containers.resize(c.container.id, *size_of(c))
    return web.Response(status=200)
