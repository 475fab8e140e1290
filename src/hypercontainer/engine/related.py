# SPDX-License-Identifier: Apache-2.0
"""What a specification takes from containers that are there: their mounts, and their addresses."""

from __future__ import annotations

import posixpath

import msgspec

from ..errors import InvalidArgument
from ..model.specs import ContainerSpec, HostEntry, Mount
from .registry import Registry


def complete(registry: Registry, spec: ContainerSpec) -> ContainerSpec:
    """The specification with what `volumes_from` and `links` name; its own mounts go before those of others.

    :raise NotFound: no such container. :raise InvalidArgument: what it has cannot be shared.
    """
    if not spec.volumes_from and not spec.links:
        return spec
    mounts = list(spec.mounts)
    for text in spec.volumes_from:
        taken = {posixpath.normpath(m.target) for m in mounts}
        mounts += [m for m in _mounts_of(registry, text) if posixpath.normpath(m.target) not in taken]
    hosts = [*spec.hosts, *(_linked(registry, text) for text in spec.links)]
    return msgspec.structs.replace(spec, mounts=mounts, hosts=hosts)


def _mounts_of(registry: Registry, text: str) -> list[Mount]:
    name, _, mode = text.partition(":")
    if not name or mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidArgument(f"invalid volumes-from {text!r}", hint="write CONTAINER[:ro]")
    found = []
    for point in registry.container(name).mounts:
        if point.mount.type == "tmpfs":
            continue
        if not point.volume:
            raise InvalidArgument(
                f"volumes-from {name}: the volume at {point.mount.target} lies on that container's own disk",
                hint=f"give it a name there, with -v NAME:{point.mount.target}",
            )
        found.append(msgspec.structs.replace(point.mount, read_only=point.mount.read_only or mode == "ro"))
    return found


def _linked(registry: Registry, text: str) -> HostEntry:
    name, _, alias = text.partition(":")
    container = registry.container(name)
    attachments = registry.pod(container.pod).attachments
    if not attachments:
        raise InvalidArgument(
            f"link {text}: {container.name} is in no network of this host",
            hint="run both with --network NAME, where they find each other",
        )
    return HostEntry(ip=attachments[0].ip, names=list(dict.fromkeys(filter(None, [alias, container.name]))))
