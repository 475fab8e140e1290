# SPDX-License-Identifier: Apache-2.0
"""The owner of a squashfs image's root directory, which sqfstar 4.5.1 makes its own user whatever -root-uid says.

The layout is in the kernel's fs/squashfs/squashfs_fs.h. All of our metadata is uncompressed (-noI).
"""

from __future__ import annotations

import os
import struct

_ROOT_INODE, _ID_TABLE, _INODE_TABLE = 32, 48, 64  # offsets in the superblock
_ID_COUNT = 26
_METADATA = 8192  # bytes of a metadata block, without the header
_OWNERS = 4  # offset in an inode of the indices of uid and gid
_UNCOMPRESSED = 0x8000


def set_root_owner(fd: int, uid: int, gid: int) -> None:
    """:raise ValueError: when it is no image of ours."""
    for which, id_ in enumerate((uid, gid)):
        places = _ids(fd)
        values = [_number(fd, at, "<I") for at in places]
        index = [_root_byte(fd, _OWNERS + 2 * which + n) for n in range(2)]
        if id_ in values:
            for at, byte in zip(index, values.index(id_).to_bytes(2, "little"), strict=True):
                os.pwrite(fd, bytes([byte]), at)
        else:  # nobody else has the user of this process
            mine = int.from_bytes(b"".join(os.pread(fd, 1, at) for at in index), "little")
            os.pwrite(fd, struct.pack("<I", id_), places[mine])


def _number(fd: int, at: int, kind: str) -> int:
    number: int = struct.unpack(kind, os.pread(fd, struct.calcsize(kind), at))[0]
    return number


def _block(fd: int, at: int) -> tuple[int, int]:
    """Where a metadata block's contents begin, and their size."""
    head = _number(fd, at, "<H")
    if not head & _UNCOMPRESSED:
        raise ValueError("compressed metadata")
    return at + 2, head & ~_UNCOMPRESSED


def _ids(fd: int) -> list[int]:
    """Where each id of the table is."""
    places: list[int] = []
    table, count = _number(fd, _ID_TABLE, "<Q"), _number(fd, _ID_COUNT, "<H")
    while len(places) < count:
        begin, size = _block(fd, _number(fd, table + 8 * (len(places) * 4 // _METADATA), "<Q"))
        places += range(begin, begin + size, 4)
    return places[:count]


def _root_byte(fd: int, offset: int) -> int:
    """Where a byte of the root directory's inode is; it may be in the block that follows."""
    reference = _number(fd, _ROOT_INODE, "<Q")
    begin, size = _block(fd, _number(fd, _INODE_TABLE, "<Q") + (reference >> 16))
    at = (reference & 0xFFFF) + offset
    if at >= size:
        begin, at = _block(fd, begin + size)[0], at - size
    return begin + at
