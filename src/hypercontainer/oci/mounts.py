# SPDX-License-Identifier: Apache-2.0
"""A bundle's mounts, as hyperd has them (https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts)."""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, NotFound, Unsupported

# What every container in a virtual machine has at these places, of its own kernel.
_STANDARD = {
    "/proc": ("proc",),
    "/sys": ("sysfs", "bind", "none"),
    "/sys/fs/cgroup": ("cgroup", "cgroup2", "bind", "none"),
    "/dev": ("tmpfs", "devtmpfs"),
    "/dev/pts": ("devpts",),
    "/dev/mqueue": ("mqueue", "bind"),
    "/dev/shm": ("tmpfs", "shm", "bind"),
}
_UNITS = {"k": 10, "m": 20, "g": 30}


def is_bind(mount: dict[str, Any]) -> bool:
    """By its options, as the specification has it; a type is told too."""
    return bool({"bind", "rbind"} & set(mount.get("options") or ())) or mount.get("type") == "bind"


def mounts_of(config: dict[str, Any], bundle: Path) -> list[dict[str, Any]]:
    """In hyperd's JSON; of two at one place the later one.

    :raise Unsupported: one that a virtual machine cannot have. :raise NotFound: its source is not there.
    """
    found: dict[str, dict[str, Any]] = {}
    for mount in config.get("mounts") or []:
        target = posixpath.normpath(mount["destination"])
        target = target if target.startswith("/") else f"/{target}"
        kind = "bind" if is_bind(mount) else mount.get("type", "")
        if kind in _STANDARD.get(target, ()):
            continue
        if kind == "bind":
            found[target] = _bind(mount, target, bundle)
        elif kind == "tmpfs":
            found[target] = _tmpfs(mount, target)
        else:
            raise Unsupported(f"{target}: a mount of the type {kind!r} cannot be made in a virtual machine",
                              hint="mount it on this host, and bind it")  # fmt: skip
    return list(found.values())


def _bind(mount: dict[str, Any], target: str, bundle: Path) -> dict[str, Any]:
    source, options = mount.get("source", ""), set(mount.get("options") or ())
    path = Path(source) if source.startswith("/") else bundle / source
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise NotFound(f"{target}: the path {path} of this host: {error.strerror}") from None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise Unsupported(f"the device {path} of this host cannot be given to a virtual machine")
    if {"shared", "rshared"} & options:
        raise Unsupported(f"{target}: what is mounted in a virtual machine cannot be propagated to this host",
                          hint="use private or slave")  # fmt: skip
    return {
        "type": "bind", "source": str(path), "target": target, "readOnly": bool({"ro", "rro"} & options),
        "propagation": "rslave" if {"slave", "rslave"} & options else "",
    }  # fmt: skip


def _tmpfs(mount: dict[str, Any], target: str) -> dict[str, Any]:
    options = mount.get("options") or []
    given = dict(o.split("=", 1) for o in options if "=" in o)
    try:
        return {
            "type": "tmpfs", "target": target, "readOnly": "ro" in options, "exec": "noexec" not in options,
            "size": _size(given.get("size", "0")), "mode": int(given.get("mode", "1777"), 8) & 0o7777,
            "uid": int(given.get("uid", "0")), "gid": int(given.get("gid", "0")),
        }  # fmt: skip
    except ValueError:
        raise InvalidArgument(f"{target}: the options of its tmpfs are not understood: {','.join(options)}") from None


def _size(text: str) -> int:
    """Bytes, as tmpfs(5) has them; a share of the memory is that of nothing known yet, and so no limit."""
    if text.endswith("%"):
        return 0
    unit = text[-1:].lower()
    return int(text[:-1]) << _UNITS[unit] if unit in _UNITS else int(text)


def shm_size(config: dict[str, Any]) -> int:
    """Bytes of /dev/shm, which is the pod's own; 0 where the bundle does not say."""
    for mount in config.get("mounts") or []:
        if posixpath.normpath(mount["destination"]) != "/dev/shm":
            continue
        if is_bind(mount):
            try:
                found = os.statvfs(mount.get("source", ""))
            except OSError:
                return 0
            return found.f_blocks * found.f_frsize
        sizes = [o for o in mount.get("options") or [] if o.startswith("size=")]
        return _size(sizes[-1].removeprefix("size=")) if sizes else 0
    return 0
