# SPDX-License-Identifier: Apache-2.0
"""Directories and files that are for their owner only; imports little, for the command line."""

from __future__ import annotations

import os
import stat

from ..errors import PermissionDenied

_OTHERS = 0o077  # a group may be that of all users


def require_private(path: str) -> None:
    """In a place where anybody can make something: what is there must be a directory of ours, closed to all others.

    :raise PermissionDenied: it is another's, or open. Nothing there is fine.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = "is no directory"
    else:
        kind = "is another user's" if found.st_uid != os.geteuid() else "is open to others"
    raise PermissionDenied(f"{path} {kind}, and is not used", hint="remove it, or set XDG_RUNTIME_DIR")


def close_to_others(path: str, *, skip: str = "") -> None:
    """Take group's and others' rights from a tree, but for entries called `skip`; links are left alone."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:  # somebody removed it in the meantime
        return
    if stat.S_ISLNK(found.st_mode):
        return
    if found.st_mode & _OTHERS:
        os.chmod(path, stat.S_IMODE(found.st_mode) & ~_OTHERS)
    if stat.S_ISDIR(found.st_mode):
        for name in os.listdir(path):
            if name != skip:
                close_to_others(os.path.join(path, name), skip=skip)
