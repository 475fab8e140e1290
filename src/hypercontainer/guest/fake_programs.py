# SPDX-License-Identifier: Apache-2.0
"""What runs in a fake guest: programs by their names, and what hyperstart does itself."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import tarfile
from collections.abc import Sequence
from typing import Protocol

from ..protocol.constants import Builtin
from ..protocol.messages import ExitStatus
from ..sys import tasks
from .fake_process import FakeContainer, FakeProcess, Program


async def _echo(p: FakeProcess) -> int:
    await p.write(" ".join(p.args[1:]).encode() + b"\n")
    return 0


async def _cat(p: FakeProcess) -> int:
    while data := await p.read():
        await p.write(data)
    return 0


async def _sleep(p: FakeProcess) -> int:
    await asyncio.sleep(float(p.args[1]))
    return 0


async def _after(p: FakeProcess) -> int:
    """after SECONDS CODE"""
    await asyncio.sleep(float(p.args[1]))
    return int(p.args[2])


async def _ignore_term(p: FakeProcess) -> int:
    p.ignored |= {signal.SIGTERM, signal.SIGINT}
    await asyncio.get_running_loop().create_future()
    return 0


async def _graceful(p: FakeProcess) -> int:
    """graceful SECONDS: ends so long after SIGTERM, with status 0"""
    await p.until(signal.SIGTERM)
    await asyncio.sleep(float(p.args[1]))
    return 0


async def _flood(p: FakeProcess) -> int:
    """flood BYTES"""
    left = int(p.args[1])
    while left > 0:
        await p.write(b"x" * min(left, 1023) + b"\n")
        left -= 1024
    return 0


async def _oom(p: FakeProcess) -> int:
    p.end(ExitStatus(signal=signal.SIGKILL, oom=True))
    return 0


async def _exit(p: FakeProcess) -> int:
    return int(p.args[1]) if len(p.args) > 1 else 0


async def _false(p: FakeProcess) -> int:
    return 1


async def _hyperstart(p: FakeProcess) -> int:
    """The factory's own image has nothing else."""
    await p.write(b"hyperstart fake\n")
    return 0


async def _env(p: FakeProcess) -> int:
    await p.write("".join(f"{k}={v}\n" for k, v in p.env.items()).encode())
    return 0


async def _drain(p: FakeProcess) -> int:
    """Reads its input and says nothing."""
    while await p.read():
        pass
    return 0


_DIRECTORIES = ("/", "/etc", "/srv", "/tmp")  # of every container
PROGRAMS: dict[str, Program] = {
    "true": _exit, "false": _false, "exit": _exit, "echo": _echo, "cat": _cat, "sh": _cat, "sleep": _sleep,
    "after": _after, "ignore-term": _ignore_term, "graceful": _graceful, "flood": _flood, "oom": _oom, "env": _env,
    "drain": _drain, "/hyperstart": _hyperstart,
}  # fmt: skip


class Files(Protocol):
    """What hyperstart does its own work on."""

    volumes: dict[str, str]
    held: set[str]
    containers: dict[str, FakeContainer]
    failing: dict[Builtin, tuple[int, str]]
    servers: dict[int, Program]


async def run_builtin(guest: Files, kind: Builtin, process: FakeProcess) -> int:
    """What hyperstart does itself, with the files that a container was given in place of a file system."""
    container = guest.containers.get(process.container)
    if kind in guest.failing:
        status, words = guest.failing[kind]
        await process.write(words.encode(), 2)
        return status
    if kind is Builtin.MOUNT:
        guest.volumes[process.args[0]] = process.args[2]
    elif kind is Builtin.SHARE:
        guest.volumes[process.args[0]] = process.args[1]
    elif kind is Builtin.UNMOUNT:
        guest.volumes.pop(process.args[0], None)
    elif kind is Builtin.TAR_EXTRACT and container:
        await _extract(container, process)
    elif kind is Builtin.TAR_CREATE and not _is_there(container, process.args[0]):
        return 2
    elif kind in (Builtin.TAR_CREATE, Builtin.EXPORT):
        await process.write(_archived(container, process.args[0] if kind is Builtin.TAR_CREATE else "/"))
    elif kind is Builtin.DIFF:
        for change in guest.containers[process.args[0]].changes:
            await process.write(change.encode() + b"\0")
    elif kind is Builtin.LAYER:
        await process.write(_layer(guest.containers[process.args[0]], process.args[1:]))
    elif kind is Builtin.FILES and container:
        return await _files(container, process)
    elif kind is Builtin.RELAY and (server := guest.servers.get(int(process.args[0]))):
        return await server(process)
    elif kind is Builtin.RELAY:
        await process.write(f"connecting to port {process.args[0]} within the pod: Connection refused\n".encode(), 2)
        return 1
    elif kind is Builtin.HOLD:
        return await _hold(guest, process)
    elif kind is Builtin.FIREWALL:
        while await process.read():
            pass
    return 0


async def _hold(guest: Files, process: FakeProcess) -> int:
    name, *times = process.args
    if name not in guest.volumes:
        await process.write(b"the volume: No such file or directory\n", 2)
        return 1
    silence, limit = (int(ms) / 1000 for ms in times)
    guest.held.add(name)
    try:
        await process.write(b"frozen\n")
        async with asyncio.timeout(limit):
            while await tasks.within(process.read(), silence):
                pass
    except TimeoutError:
        return 3
    finally:
        guest.held.discard(name)
    return 0


async def _files(container: FakeContainer, process: FakeProcess) -> int:
    """Of the whole tree, whatever depth is asked for; what is watched stays as it is, until the process is ended."""
    verb, path, option = process.args
    above = path.rstrip("/") + "/"
    found = {name: data for name, data in container.files.items() if name == path or name.startswith(above)}
    if not found and path != "/":
        return 2
    if verb == "list":
        for name, data in found.items():
            await process.write(f"f 644 0 0 {len(data)} 0 {name[len(above) :]}\0\0".encode())
    elif verb == "watch":
        await process.write(b"R \0")
        await process.until(0)  # which does not come
    else:
        for name in found:
            data = container.files.pop(name)
            if verb == "rename":
                container.files[option + name[len(path) :]] = data
    return 0


async def _extract(container: FakeContainer, process: FakeProcess) -> None:
    data = b""
    while more := await process.read():
        data += more
    with contextlib.suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if source := archive.extractfile(member):
                container.files[f"{process.args[0].rstrip('/')}/{member.name}"] = source.read()


def _is_there(container: FakeContainer | None, path: str) -> bool:
    inside = container.files if container else ()
    return path in _DIRECTORIES or any(f == path or f.startswith(f"{path.rstrip('/')}/") for f in inside)


def _layer(container: FakeContainer, mount_points: Sequence[str]) -> bytes:
    """All files are the container's own, but those at mount points."""
    return _tar({name.lstrip("/"): data for name, data in container.files.items() if name not in mount_points})


def _archived(container: FakeContainer | None, path: str) -> bytes:
    inside = container.files.items() if container else ()
    below = path.rstrip("/") + "/"
    return _tar({name.rpartition("/")[2]: data for name, data in inside if name == path or name.startswith(below)})


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
