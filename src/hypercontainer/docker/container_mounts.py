# SPDX-License-Identifier: Apache-2.0
"""Binds, Mounts, Tmpfs and Volumes of a request, as mounts of the engine."""

from __future__ import annotations

import os
import posixpath
import re

import msgspec

from ..errors import InvalidArgument, Unsupported
from ..model.mounts import PROPAGATIONS, parse_tmpfs, parse_volume
from ..model.specs import Mount
from .container_bodies import Create, MountBody

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def mounts_of(body: Create) -> list[Mount]:
    """:raise InvalidArgument: a malformed one, or two at one place. :raise Unsupported: of a kind that is not there."""
    host = body.host_config
    found = [*map(_bind, host.binds), *map(_mount, host.mounts)]
    found += [parse_tmpfs(f"{path}:{options}") for path, options in host.tmpfs.items()]
    seen: set[str] = set()
    for mount in found:
        if (place := posixpath.normpath(mount.target)) in seen:
            raise InvalidArgument(f"Duplicate mount point: {mount.target}")
        seen.add(place)
    return [*found, *(Mount(target=v) for v in body.volumes if posixpath.normpath(v) not in seen)]


def bad_name(name: str) -> str:
    """What is said of what can be no volume's name."""
    allowed = '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
    return f'create {name}: "{name}" includes invalid characters for a local volume name, only {allowed}'


def _bind(text: str) -> Mount:
    """`SOURCE:TARGET[:OPTIONS]`; a directory of this host that is not there is made, as Docker does."""
    source = text.partition(":")[0]
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if not source.startswith("/") and not VOLUME_NAME.fullmatch(source):
        raise InvalidArgument(bad_name(source))
    if not parts[1].startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mount config for type "
                              f"\"{'bind' if source.startswith('/') else 'volume'}\": invalid mount path: "
                              f"'{parts[1]}' mount path must be absolute")  # fmt: skip
    try:
        mount = parse_volume(text)
    except InvalidArgument:
        raise InvalidArgument(f"invalid mode: {parts[-1]}" if len(parts) == 3 else
                              f"invalid volume specification: '{text}'") from None  # fmt: skip
    except Unsupported as error:
        raise Unsupported(f"Binds: {error.message}", hint=error.hint) from None
    return msgspec.structs.replace(mount, make_source=mount.type == "bind")


def _mount(m: MountBody) -> Mount:
    where = f'invalid mount config for type "{m.type}"'
    if m.type not in ("bind", "volume", "tmpfs", "image"):
        if m.type in ("cluster", "npipe"):
            raise Unsupported(f"Mounts of type {m.type} are not there; use bind, volume, image or tmpfs")
        raise InvalidArgument(f'{where}: mount type unknown: "{m.type}"')
    if not m.target:
        raise InvalidArgument(f"{where}: field Target must not be empty")
    if not m.target.startswith("/"):
        raise InvalidArgument(f"{where}: invalid mount path: '{m.target}' mount path must be absolute")
    if m.type == "bind":
        if not m.source:
            raise InvalidArgument(f"{where}: field Source must not be empty")
        if not m.source.startswith("/"):
            raise InvalidArgument(f"{where}: invalid mount path: '{m.source}' mount path must be absolute")
        _check_bind(m, where)
        return Mount(target=m.target, type="bind", source=posixpath.normpath(m.source), read_only=m.read_only,
                     make_source=m.bind_options.create_mountpoint,
                     propagation=PROPAGATIONS.get(m.bind_options.propagation, ""))  # fmt: skip
    if m.type == "tmpfs":
        return _tmpfs(m, where)
    if m.type == "image":
        if not m.source:
            raise InvalidArgument(f"{where}: field Source must not be empty")
        return Mount(target=m.target, type="image", source=m.source, read_only=True, sub_path=m.image_options.subpath)
    options = m.volume_options
    if options.labels:
        raise Unsupported(f"Mounts: {where}: a volume that is made for a mount has no labels; make it first")
    if options.driver_config.name not in ("", "local") or options.driver_config.options:
        raise Unsupported(f"Mounts: {where}: there are no drivers of volumes but `local`, without options here; "
                          "make the volume first")  # fmt: skip
    return Mount(target=m.target, source=m.source, read_only=m.read_only, sub_path=options.subpath,
                 copy_up=not options.no_copy)  # fmt: skip


def without_source(mounts: list[Mount]) -> str:
    """In Docker's words that a path of this host is not there, where one is not; asked when a create has failed."""
    gone = (m.source for m in mounts if m.type == "bind" and not m.make_source and not os.path.exists(m.source))
    return next((f'invalid mount config for type "bind": bind source path does not exist: {p}' for p in gone), "")


def _check_bind(m: MountBody, where: str) -> None:
    """:raise Unsupported: mounts of this host, which do not come into a virtual machine one by one."""
    given = m.bind_options
    if given.propagation not in ("", *PROPAGATIONS):
        raise Unsupported(f"Mounts: {where}: Propagation {given.propagation}: what is mounted in a virtual machine "
                          "does not come to this host; use rprivate or rslave")  # fmt: skip
    if given.non_recursive or given.read_only_non_recursive:
        raise Unsupported(f"Mounts: {where}: a directory of this host is there with all that is below it: "
                          "NonRecursive and ReadOnlyNonRecursive are not")  # fmt: skip


def _tmpfs(m: MountBody, where: str) -> Mount:
    if m.source:
        raise InvalidArgument(f"{where}: field Source must not be specified")
    given = m.tmpfs_options
    flags = [option[0] for option in given.options if option]
    if unknown := [f for f in flags if f not in ("exec", "noexec")]:
        raise InvalidArgument(f"{where}: invalid option: {unknown[0]!r}")
    return Mount(target=m.target, type="tmpfs", read_only=m.read_only, size=given.size_bytes,
                 exec="exec" in flags, mode=given.mode & 0o7777 or 0o1777)  # fmt: skip
