# SPDX-License-Identifier: Apache-2.0
"""Block volumes: sparse disk images with an empty file system."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import HyperError, InvalidArgument, Unavailable
from ..sys.files import make_sparse
from .scratch import ScratchDisks
from .tools import run_tool

XFS_MIN = 300 << 20  # bytes; mkfs.xfs refuses less
EXT4_MIN = 16 << 20
SIZE_MAX = 16 << 40  # bytes; what ext4 on the host takes for a file
FSTYPES = ("ext4", "xfs")
FORMATS = ("raw", "qcow2")


class BlockVolumes:
    """Makes them; ext4 ones of the usual size are copies of one that is made once."""

    def __init__(self, cache: Path, size: int) -> None:
        self.default_size = size
        self._cache = cache
        self._templates: dict[int, ScratchDisks] = {}

    async def create(self, path: Path, *, size: int = 0, fstype: str = "ext4", format_: str = "raw") -> None:
        """A fresh volume at a path that does not exist.

        :raise InvalidArgument: an unknown or too small kind. :raise NoSpace: the disk is full.
        """
        size = size or self.default_size
        check(size, fstype, format_)
        try:
            await self._make(path, size, fstype)
            if format_ == "qcow2":
                raw = path.with_suffix(".raw")
                path.rename(raw)
                path.touch(mode=0o600)  # what it may write to must be there
                try:
                    await run_tool("qemu-img", "qemu-utils", "convert", "-f", "raw", "-O", "qcow2", raw, path)
                finally:
                    raw.unlink(missing_ok=True)
        except (HyperError, OSError):
            path.unlink(missing_ok=True)
            raise

    async def _make(self, path: Path, size: int, fstype: str) -> None:
        if fstype == "ext4":
            template = self._templates.setdefault(size, ScratchDisks(self._cache, size))
            await template.create(path)
            return
        make_sparse(path, size)
        await run_tool("mkfs.xfs", "xfsprogs", "-q", "-K", path)


def check(size: int, fstype: str, format_: str) -> None:
    """:raise InvalidArgument: with what would be right."""
    if fstype not in FSTYPES:
        raise InvalidArgument(f"unknown file system {fstype!r}", hint=f"use one of {', '.join(FSTYPES)}")
    if format_ not in FORMATS:
        raise InvalidArgument(f"unknown disk format {format_!r}", hint=f"use one of {', '.join(FORMATS)}")
    least = XFS_MIN if fstype == "xfs" else EXT4_MIN
    if size < least:
        raise InvalidArgument(
            f"a volume of {size} bytes is too small for {fstype}", hint=f"give at least {least >> 20}m"
        )
    if size > SIZE_MAX:
        raise InvalidArgument(f"a volume of {size} bytes is too large", hint=f"give at most {SIZE_MAX >> 40}t")


async def set_root(path: Path, fstype: str, format_: str, *, mode: int, gid: int) -> None:
    """Give the root directory of a fresh volume its permission bits and its group.

    :raise InvalidArgument: of a kind whose root cannot be set from outside.
    """
    if (fstype, format_) != ("ext4", "raw"):
        raise InvalidArgument(
            f"the permissions of a {fstype} volume in a {format_} image cannot be set", hint="use ext4 in a raw image"
        )
    for request in (f"mode 0{stat.S_IFDIR | mode:o}", f"gid {gid}"):
        said = await run_tool("debugfs", "e2fsprogs", "-w", "-R", f"set_inode_field <2> {request}", path)
        if "set_inode_field:" in said:  # its status is 0 all the same
            raise Unavailable(f"debugfs failed: {said}")
