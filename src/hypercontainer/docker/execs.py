# SPDX-License-Identifier: Apache-2.0
"""Further processes of a container."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..engine.attach.session import AttachOptions
from ..errors import InvalidArgument
from ..model.detach_keys import parse_detach_keys
from ..model.specs import ExecSpec
from .attaching import size_of
from .hijack import STDERR, STDOUT, HijackedPeer
from .router import Call, Routes

routes = Routes()


class ExecConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What is asked for."""

    user: str | None = ""
    privileged: bool | None = False
    tty: bool | None = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool | None = False
    attach_stdout: bool | None = False
    attach_stderr: bool | None = False
    detach: bool | None = False
    detach_keys: str | None = ""
    env: list[str] | None = None
    working_dir: str | None = ""
    cmd: list[str] | str | None = None


class ExecStart(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """How it is started; `tty` as it was created."""

    detach: bool | None = False
    tty: bool | None = False
    console_size: tuple[int, int] | None = None


@routes.post("/containers/{name}/exec", status=201)
async def create(c: Call) -> dict[str, str]:
    """Create a further process."""
    wanted = await c.body(ExecConfig)
    command = [wanted.cmd] if isinstance(wanted.cmd, str) else wanted.cmd or []
    if not command:
        raise InvalidArgument("no exec command specified")
    spec = ExecSpec(
        command=command, env=wanted.env or [], workdir=wanted.working_dir or "", user=wanted.user or "",
        tty=bool(wanted.tty), stdin=bool(wanted.attach_stdin), privileged=bool(wanted.privileged),
        stdout=bool(wanted.attach_stdout), stderr=bool(wanted.attach_stderr), detach_keys=wanted.detach_keys or "",
    )  # fmt: skip
    await c.engine.containers.rouse(c.container.id)
    return {"Id": c.engine.execs.create(c.container.id, spec).id}


@routes.post("/exec/{name}/start")
async def start(c: Call) -> web.StreamResponse:
    """Start it, and attach unless it is detached."""
    wanted = await c.body(ExecStart, empty=ExecStart())
    exec_ = c.engine.execs.get(c.name)
    spec, size = exec_.spec, wanted.console_size or (0, 0)
    if wanted.detach:
        await c.engine.execs.start(exec_, size)
        return web.Response(status=200)
    c.engine.execs.check_startable(exec_)
    told = {STDOUT: spec.stdout, STDERR: spec.stderr}
    options = AttachOptions(
        outputs=frozenset(stream for stream, on in told.items() if on), size=size,
        detach_keys=parse_detach_keys(spec.detach_keys),
    )  # fmt: skip
    peer = HijackedPeer(c.request, c.version, tty=spec.tty, takes_input=spec.stdin)
    await c.engine.attachments.exec(exec_, options).run(peer)
    return peer.response


@routes.post("/exec/{name}/resize")
async def resize(c: Call) -> web.Response:
    """Resize its terminal."""
    await c.engine.execs.resize(c.name, *size_of(c))
    return web.Response(status=200)


@routes.get("/exec/{name}/json")
async def inspect(c: Call) -> dict[str, Any]:
    """Inspect it."""
    exec_ = c.engine.execs.get(c.name)
    info, spec = exec_.info(), exec_.spec
    return {
        "ID": info.id,
        "Running": info.running,
        "ExitCode": info.exit_code,
        "ProcessConfig": {
            "tty": spec.tty,
            "entrypoint": spec.command[0],
            "arguments": spec.command[1:],
            "privileged": spec.privileged,
            **({"user": spec.user} if spec.user else {}),
        },
        "OpenStdin": spec.stdin,
        "OpenStderr": spec.stderr,
        "OpenStdout": spec.stdout,
        "CanRemove": False,
        "ContainerID": info.container,
        "DetachKeys": spec.detach_keys,
        "Pid": info.pid,
    }
