# SPDX-License-Identifier: Apache-2.0
"""Files of a container, as they are listed and watched."""

from __future__ import annotations

from typing import Literal

from .base import Model

FileKind = Literal["file", "directory", "link", "character", "block", "fifo", "socket"]
ChangeKind = Literal["created", "written", "attributes", "moved", "removed", "lost", "gone"]


class FileEntry(Model, frozen=True, kw_only=True):
    """An entry of a directory; `name` has the directories between in it, when more than one level is listed."""

    name: str
    kind: FileKind
    mode: int  # its permissions
    uid: int
    gid: int
    size: int  # bytes
    mtime: int  # seconds since the epoch
    link_target: str = ""


class FileChange(Model, frozen=True, kw_only=True):
    """What has happened. `moved`: away from this path, and `created` where it came to; `lost`: more happened than
    could be told; `gone`: the directory itself, with which this ends.
    """

    kind: ChangeKind
    path: str
