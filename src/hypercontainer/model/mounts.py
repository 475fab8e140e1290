# SPDX-License-Identifier: Apache-2.0
"""Mounts as people write them: Docker's -v, --mount and --tmpfs."""

from __future__ import annotations

import os
import posixpath
import re
from typing import Literal

from ..errors import InvalidArgument, Unsupported
from .specs import Mount, Propagation
from .units import parse_size

# Of mount_namespaces(7). A virtual machine is told of what is mounted below a directory at any depth, or of nothing.
PROPAGATIONS: dict[str, Propagation] = {"private": "", "rprivate": "", "slave": "rslave", "rslave": "rslave"}
SHARED = ("shared", "rshared")
_FLAGS = {"ro", "rw", "nocopy", "z", "Z", "cached", "delegated", "consistent", *PROPAGATIONS, *SHARED}

_TYPES: dict[str, Literal["volume", "bind", "tmpfs", "image"]] = {
    "volume": "volume", "bind": "bind", "tmpfs": "tmpfs", "image": "image",
}  # fmt: skip


def _is_path(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~")) or source in (".", "..")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def parse_volume(text: str) -> Mount:
    """`[SOURCE:]TARGET[:ro|rw]`: SOURCE is a path of this host or a volume's name.

    :raise InvalidArgument: when it is malformed. :raise Unsupported: its mounts shall come to this host.
    """
    parts = text.split(":")
    flags = parts.pop().split(",") if len(parts) > 1 and set(parts[-1].split(",")) <= _FLAGS else []
    if len(parts) > 2 or not parts[-1].startswith("/"):
        raise InvalidArgument(
            f"invalid volume {text!r}", hint="write [SOURCE:]/PATH[:ro]; SOURCE is a path or a volume's name"
        )
    source, target = (parts[0], parts[1]) if len(parts) == 2 else ("", parts[0])
    if len(parts) == 2 and not source:
        raise InvalidArgument(f"invalid volume {text!r}", hint="leave the colon out for an anonymous volume")
    kind = "bind" if _is_path(source) else "volume"
    return Mount(
        target=posixpath.normpath(target),
        type="bind" if kind == "bind" else "volume",
        source=_absolute(source) if kind == "bind" else source,
        read_only="ro" in flags,
        copy_up="nocopy" not in flags,
        propagation=_propagation(text, [f for f in flags if f in PROPAGATIONS or f in SHARED]),
    )


def _propagation(text: str, words: list[str]) -> Propagation:
    if shared := next((w for w in words if w in SHARED), ""):
        raise Unsupported(f"{text}: {shared}: what is mounted in a virtual machine does not come to this host",
                          hint="use rslave, or leave the propagation out")  # fmt: skip
    if len(words) > 1 or not set(words) <= set(PROPAGATIONS):
        raise InvalidArgument(f"invalid propagation {','.join(words)!r} of {text!r}", hint="write rprivate or rslave")
    return PROPAGATIONS[words[0]] if words else ""


def parse_mount(text: str) -> Mount:
    """`type=volume|bind|tmpfs|image,source=...,target=...[,readonly]...`.

    :raise InvalidArgument: an unknown key, or no target. :raise Unsupported: its mounts shall come to this host.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        given[key.lower()] = value if equals else "true"
    kind = given.pop("type", "volume")
    source = given.pop("source", given.pop("src", ""))
    target = given.pop("target", given.pop("destination", given.pop("dst", "")))
    read_only = given.pop("readonly", given.pop("ro", "false")) in ("true", "1")
    sub_path = given.pop("image-subpath" if kind == "image" else "volume-subpath", "")
    size = given.pop("tmpfs-size", "")
    mode, no_copy = given.pop("tmpfs-mode", "1777"), given.pop("volume-nocopy", "false") in ("true", "1")
    propagation = [given.pop("bind-propagation")] if kind == "bind" and "bind-propagation" in given else []
    if given or kind not in _TYPES or not target:
        wrong = f"unknown type {kind!r}" if target else "no target"
        if given:
            wrong = f"unknown key {next(iter(given))!r}"
        raise InvalidArgument(
            f"invalid mount {text!r}: {wrong}",
            hint="write type=volume|bind|tmpfs|image,source=NAME,target=/PATH[,readonly]",
        )
    return Mount(
        target=target,
        type=_TYPES[kind],
        source=_absolute(source) if kind == "bind" else source,
        read_only=read_only,
        sub_path=sub_path,
        copy_up=not no_copy,
        size=parse_size(size) if size else 0,
        mode=_mode(mode),
        propagation=_propagation(text, propagation),
    )


def _mode(text: str) -> int:
    if not re.fullmatch("[0-7]{1,4}", text):
        raise InvalidArgument(f"invalid mode {text!r} of a tmpfs", hint="write it in octal, such as 1777")
    return int(text, 8)


def parse_tmpfs(text: str) -> Mount:
    """`/PATH[:size=64m,mode=1777,uid=0,gid=0,ro,exec]`; noexec, nosuid and nodev unless said otherwise, as Docker's."""
    path, _, options = text.partition(":")
    size, mode, read_only, executable = 0, 0o1777, False, False
    owner = {"uid": 0, "gid": 0}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            size = parse_size(value)
        elif key == "mode":
            mode = _mode(value)
        elif key in owner:
            owner[key] = _number(option, value)
        elif key in ("ro", "rw"):
            read_only = key == "ro"
        elif key in ("exec", "noexec"):
            executable = key == "exec"
        elif key not in ("nosuid", "nodev", "suid", "dev"):
            raise InvalidArgument(f"unknown tmpfs option {option!r}", hint="known are size, mode, uid, gid, ro, exec")
    return Mount(target=path, type="tmpfs", size=size, mode=mode, read_only=read_only, exec=executable,
                 uid=owner["uid"], gid=owner["gid"])  # fmt: skip


def _number(option: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > 0xFFFFFFFE:
        raise InvalidArgument(f"invalid tmpfs option {option!r}", hint="give the number of a user or group")
    return int(text)
