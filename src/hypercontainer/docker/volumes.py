# SPDX-License-Identifier: Apache-2.0
"""Volumes. Docker's driver `local` is here a disk of its own (`block`), or with the option `type=directory` a
directory that the machine shares with this host."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import Conflict, InvalidArgument, NotFound, Unsupported
from ..model.filters import flag, with_unwanted
from ..model.pods import VolumeSpec
from ..model.status import VolumeInfo
from ..model.thing_filters import VOLUME_FILTERS, volume_fits
from ..model.units import parse_size
from .container_mounts import VOLUME_NAME, bad_name
from .router import Call, Routes

routes = Routes()
_ANONYMOUS = "com.docker.volume.anonymous"  # Docker's label of what nobody named
_DRIVERS = ("", "local", "block", "directory")


class Volume(msgspec.Struct, kw_only=True, rename="pascal"):
    """What `docker volume inspect` shows."""

    created_at: str
    driver: str
    labels: dict[str, str] | None
    mountpoint: str
    name: str
    options: dict[str, str] | None
    scope: str = "local"
    usage_data: dict[str, int] | UnsetType = UNSET


class Volumes(msgspec.Struct, kw_only=True, rename="pascal"):
    """The list of them."""

    volumes: list[Volume]
    warnings: list[str] | None = None


class CreateVolume(msgspec.Struct, kw_only=True, rename="pascal"):
    """What is asked for."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: Any = None


class Pruned(msgspec.Struct, kw_only=True, rename="pascal"):
    """What a prune did."""

    volumes_deleted: list[str]
    space_reclaimed: int


def view(info: VolumeInfo, *, usage: bool = False) -> Volume:
    """Of one; `usage` for `system df`."""
    volume = info.volume
    data = {"RefCount": len(info.used_by), "Size": info.disk_usage}
    return Volume(
        created_at=volume.created_at,
        driver="local",
        labels={**volume.labels, **({_ANONYMOUS: ""} if volume.anonymous else {})} or None,
        mountpoint=volume.path,
        name=volume.name,
        options=volume.options or None,
        usage_data=data if usage else UNSET,
    )


@routes.get("/volumes")
async def list_(c: Call) -> Volumes:
    """All that the filters let through."""
    filters = c.filters(VOLUME_FILTERS)
    found = [i for i in await c.engine.volumes.all() if volume_fits(i.volume, bool(i.used_by), filters)]
    return Volumes(volumes=[view(info) for info in found])


@routes.get("/volumes/{name}")
async def inspect(c: Call) -> Volume:
    """One."""
    return view(await c.engine.volumes.info(c.engine.registry.volume(c.name)))


@routes.post("/volumes/create", status=201)
async def create(c: Call) -> Volume:
    """One that is there already and is the same is given back."""
    spec = specification(await c.body(CreateVolume, empty=CreateVolume()))
    made = await c.engine.volume_snapshots.create_volume(spec)
    return view(await c.engine.volumes.info(made))


def specification(asked: CreateVolume) -> VolumeSpec:
    """As the engine takes it.

    :raise InvalidArgument: there is no such option, or its value is none. :raise NotFound: there is no such driver.
    :raise Unsupported: it is a volume of a cluster.
    """
    if asked.cluster_volume_spec is not None:
        raise Unsupported("HyperContainer has no cluster volumes: a cluster is Kubernetes' concern")
    if asked.name and not VOLUME_NAME.fullmatch(asked.name):
        raise InvalidArgument(bad_name(asked.name))
    if asked.driver not in _DRIVERS:
        plugin = f'error looking up volume plugin {asked.driver}: plugin "{asked.driver}" not found'
        raise NotFound(f"create {asked.name}: {plugin}", hint="HyperContainer has no volume drivers but local")
    options = asked.driver_opts or {}
    shared = asked.driver == "directory" or options.get("type") == "directory"
    fields: dict[str, Any] = {}
    for key, value in options.items():
        if key == "size":
            fields["size"] = parse_size(value)
        elif key == "type" and value in ("ext4", "xfs"):
            fields["fstype"] = value
        elif key == "format" and value in ("raw", "qcow2"):
            fields["format"] = value
        elif key == "snapshot" and value:
            fields["snapshot"] = value
        elif key != "type" or value not in ("directory", "block"):
            raise InvalidArgument(
                f'create {asked.name}: invalid option: "{key}"',
                hint=f"not {key}={value}: volumes have size=, type=ext4|xfs|directory, format=raw|qcow2 and snapshot=",
            )
    if shared and fields:
        raise InvalidArgument(f"a volume that is a directory has no {', '.join(fields)}")
    of_disk = asked.driver == "block" or options.get("type", "directory") != "directory"
    driver: Literal["", "block", "directory"] = "block" if of_disk else ""
    if shared:
        driver = "directory"
    return VolumeSpec(name=asked.name, driver=driver, labels=asked.labels or {}, options=options, **fields)


@routes.delete("/volumes/{name}")
async def remove(c: Call) -> None:
    """With `force` it need not be there.

    :raise Conflict: with the ids of the containers that have it, as clients look for them.
    """
    pods = c.engine.registry.volume_users(c.name) if c.engine.registry.find_volume(c.name) else []
    if users := [member.id for pod in pods for member in c.engine.registry.members(pod.id)]:
        raise Conflict(f"remove {c.name}: volume is in use - [{', '.join(users)}]")
    await c.engine.volumes.remove(c.name, force=c.flag("force"))


@routes.post("/volumes/prune")
async def prune(c: Call) -> Pruned:
    """Those that no container has; those with a name only by `all=true`, or for clients before 1.42."""
    filters = with_unwanted(c.filters(("label", "label!", "all")))
    everything = bool(flag(filters, "all")) or c.version < (1, 42)
    gone = await c.engine.volumes.prune(everything=everything, filters=filters)
    return Pruned(volumes_deleted=gone.removed, space_reclaimed=gone.freed)


@routes.put("/volumes/{name}")
async def update(c: Call) -> None:
    """:raise Unsupported: always; only volumes of a cluster are changed."""
    c.engine.registry.volume(c.name)
    raise Unsupported("HyperContainer has no cluster volumes: a cluster is Kubernetes' concern")
