# SPDX-License-Identifier: Apache-2.0
"""Containers: made, found, started and ended. Their streams are in modules of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from ..engine import naming
from ..engine.processors import warnings
from ..errors import Conflict, InvalidArgument, InvalidState, NotFound
from ..model.status import Container, ContainerStatus
from . import container_fields as fields
from . import container_view as view
from . import missing
from .container_list import sizes
from .container_mounts import without_source
from .container_request import spec_of
from .router import Call, Routes

routes = Routes()
_ID = "/containers/{name}"


@routes.post("/containers/create", status=201)
async def create(c: Call) -> dict[str, Any]:
    """A container; its image must be here: clients pull it when they hear that it is not."""
    raw = await c.body(dict[str, Any])
    name = c.text("name").removeprefix("/")
    _check_name(name)
    spec = spec_of(raw, name, c.text("platform"))
    given = {
        "Config": fields.noted({k: raw.get(k) for k in _GIVEN}),
        "HostConfig": fields.noted(raw.get("HostConfig") or {}),
    }
    spec = msgspec.structs.replace(spec, given=given)
    await c.engine.builds.catch_up()
    _check_image(c, spec.image, spec.platform)
    for request in spec.networks:
        _check_network(c, request.name)
    try:
        container = await c.engine.containers.create(spec)
    except Conflict as error:
        if holder := _holder(c, name):
            raise _taken(name, holder) from error
        raise
    except NotFound as error:  # 404 is the image's alone: clients would pull it
        raise InvalidArgument(without_source(spec.mounts) or error.message) from error
    return {"Id": container.id, "Warnings": warnings(c.engine.registry.pod(container.pod))}


def _check_name(name: str) -> None:
    """:raise InvalidArgument: it is none; "" is hyperd's to choose."""
    try:
        naming.check("container", name or "any")
    except InvalidArgument as error:
        allowed = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
        raise InvalidArgument(f"Invalid container name ({name}), only {allowed} are allowed") from error


_GIVEN = ("AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce", "OnBuild", "Shell", "Healthcheck")


def _check_image(c: Call, name: str, platform: str) -> None:
    """:raise NotFound: in the words after which clients pull it."""
    try:
        c.engine.images.find(name, platform=platform)
    except NotFound as error:
        if platform and _is_here(c, name):
            raise
        raise missing.image(name) from error
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid reference format: {error.message}") from error


def _check_network(c: Call, name: str) -> None:
    """:raise InvalidArgument: there is none; 404 is the image's."""
    try:
        c.engine.networks.find(name)
    except NotFound as error:
        raise InvalidArgument(f"network {name} not found") from error


def _is_here(c: Call, name: str) -> bool:
    with contextlib.suppress(NotFound):
        return bool(c.engine.images.find(name))
    return False


def _holder(c: Call, name: str) -> Container | None:
    with contextlib.suppress(NotFound, InvalidArgument):
        found = c.engine.registry.container(name)
        return found if found.name == name else None
    return None


def _taken(name: str, holder: Container) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{holder.id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


@routes.get(f"{_ID}/json")
async def inspect(c: Call) -> dict[str, Any]:
    """All that is known of one."""
    container = c.container
    size = await sizes(c.engine, container) if c.flag("size") else {}
    return view.inspect(c.engine, container) | size


@routes.post(f"{_ID}/start")
async def start(c: Call) -> web.Response | None:
    """304 when it runs already."""
    if c.container.state.status is ContainerStatus.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    return None if await c.engine.containers.start(c.container.id) else web.Response(status=304)


@routes.post(f"{_ID}/stop")
async def stop(c: Call) -> web.Response | None:
    """304 when it does not run."""
    ran = await c.engine.containers.stop(c.container.id, _grace(c), c.text("signal"))
    return None if ran else web.Response(status=304)


def _grace(c: Call) -> int | None:
    seconds = c.number("t")
    return seconds if seconds is None or seconds >= 0 else 1 << 31


@routes.post(f"{_ID}/restart")
async def restart(c: Call) -> None:
    """Stopped, if it runs, and started."""
    await c.engine.containers.restart(c.container.id, _grace(c), c.text("signal"))


@routes.post(f"{_ID}/kill")
async def kill(c: Call) -> None:
    """A signal to its main process."""
    container = c.container
    with _worded(f"cannot kill container: {c.name}: container {container.id} is not running"):
        await c.engine.containers.kill(container.id, c.text("signal") or "KILL")


@routes.post(f"{_ID}/pause")
async def pause(c: Call) -> None:
    """Its processes stand still."""
    container = c.container
    already = container.state.status is ContainerStatus.PAUSED
    message = f"Container {container.id} is already paused" if already else f"container {container.id} is not running"
    with _worded(message):
        await c.engine.containers.pause(container.id)


@routes.post(f"{_ID}/unpause")
async def unpause(c: Call) -> None:
    """They go on; so does a pod that is suspended, for which Docker has the same word."""
    container = c.container
    if container.state.status is ContainerStatus.SUSPENDED:
        await c.engine.containers.start(container.id)
        return
    with _worded(f"Container {container.id} is not paused"):
        await c.engine.containers.unpause(container.id)


@contextlib.contextmanager
def _worded(message: str) -> Iterator[None]:
    """What its state does not allow, in Docker's words."""
    try:
        yield
    except InvalidState as error:
        raise Conflict(message) from error


@routes.post(f"{_ID}/rename")
async def rename(c: Call) -> None:
    """Another name."""
    container, name = c.container, c.text("name").removeprefix("/")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    if name == container.name:
        raise InvalidArgument("Renaming a container with the same name as its current name")
    _check_name(name)
    try:
        c.engine.containers.rename(container.id, name)
    except Conflict as error:
        if holder := _holder(c, name):
            raise Conflict(f"Error when allocating new name: {_taken(name, holder).message}") from error
        raise


@routes.delete(_ID)
async def remove(c: Call) -> None:
    """With `v` also the volumes that were made for it and have no name."""
    if c.flag("link"):
        raise InvalidArgument("links are lines of /etc/hosts here: there is none to remove")
    container = c.container
    status = container.state.status
    how = "is paused and must be unpaused first" if status is ContainerStatus.PAUSED else (
        f"is {status}: stop the container before removing or force remove"
    )  # fmt: skip
    try:
        await c.engine.containers.remove(container.id, force=c.flag("force"), volumes=c.flag("v"))
    except Conflict as error:
        raise Conflict(f'cannot remove container "/{container.name}": container {how}') from error
