# SPDX-License-Identifier: Apache-2.0
"""The parts of an EROFS image as bytes; names and offsets are those of the kernel's fs/erofs/erofs_fs.h."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

BLOCK = 4096  # bytes
SLOT = 32  # bytes: inodes begin at multiples of it, and are called by the multiple (nid)
SUPERBLOCK_AT, SUPERBLOCK_SIZE = 1024, 128
INODE_SIZE = 64  # of the extended form, which has 32 bits for owners, 64 for sizes, and nanoseconds
FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED = 0, 2, 4  # data layouts
HOLE = 0xFFFFFFFF  # in the place of a chunk's first block
CHUNK_POINTER = 4  # bytes
XATTRS_MAX = 12 + 4 * 65534  # bytes of one inode's attributes with their header, counted in 16 bits
XATTR_VALUE_MAX = 65535  # bytes
XATTR_NAME_MAX = 255  # bytes

_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHB5xQ24x")
_MAGIC, _BLOCK_BITS, _CHUNKED_FILE = 0xE0F5E1E2, 12, 0x4
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_EXTENDED = 1
_DIRENT = struct.Struct("<QHBx")
_XATTR = struct.Struct("<BBH")
_XATTR_HEADER = bytes(12)
_PREFIXES = {b"user.": 1, b"trusted.": 4, b"security.": 6}
_WHOLE_NAMES = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}

# Of a tar header's type: file types of inodes (stat.h), and of entries of directories (FT_*, include/linux/fs_types.h).
FILE_TYPES = {
    b"0": stat.S_IFREG, b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}  # fmt: skip
_ENTRY_TYPES = {b"0": 1, b"5": 2, b"3": 3, b"4": 4, b"6": 5, b"2": 7}


class Attributes(Protocol):
    """What an inode of a tree has."""

    type: bytes
    mode: int
    uid: int
    gid: int
    mtime: int  # nanoseconds
    device: tuple[int, int]


def superblock(*, root: int, inodes: int, blocks: int, uuid: bytes, chunks: bool) -> bytes:
    """`root` is the root directory's nid, of 16 bits; `chunks`, whether an inode is CHUNK_BASED.

    There is no checksum: Debian's kernel wants one only where the feature says so.
    """
    incompatible = _CHUNKED_FILE if chunks else 0
    return _SUPERBLOCK.pack(
        _MAGIC, 0, 0, _BLOCK_BITS, 0, root, inodes, 0, 0, blocks, 0, 0, uuid, b"", incompatible, 0, 0, 0, 0, 0
    )  # fmt: skip


def inode(what: Attributes, *, layout: int, size: int, union: int, number: int, links: int, xattrs: int) -> bytes:
    """`union` is the first block of the contents, a device, or the format of chunks; `xattrs` a size in bytes."""
    seconds, nanoseconds = divmod(what.mtime, 10**9)
    return _INODE.pack(
        layout << 1 | _EXTENDED,
        (xattrs - len(_XATTR_HEADER)) // 4 + 1 if xattrs else 0,
        FILE_TYPES[what.type] | what.mode,
        0,
        size,
        union,
        number & 0xFFFFFFFF,
        what.uid,
        what.gid,
        seconds,
        nanoseconds,
        links,
    )


def device(major: int, minor: int) -> int:
    """As `new_encode_dev` of include/linux/kdev_t.h."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def can_hold(name: bytes) -> bool:
    """Whether an extended attribute of that name has a place here."""
    suffix = next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), b"")
    return name in _WHOLE_NAMES or (bool(suffix) and b"\0" not in suffix)


def xattrs(attributes: Mapping[bytes, bytes]) -> bytes:
    """The attributes behind an inode, a multiple of 4 bytes; nothing when there are none."""
    if not attributes:
        return b""
    out = bytearray()
    for name, value in sorted(attributes.items()):
        index, suffix = _WHOLE_NAMES.get(name, 0), b""
        for prefix, number in _PREFIXES.items():
            if name.startswith(prefix):
                index, suffix = number, name.removeprefix(prefix)
        out += _XATTR.pack(len(suffix), index, len(value)) + suffix + value
        out += bytes(-len(out) % 4)
    return _XATTR_HEADER + bytes(out)


def directory_size(names: Iterable[bytes]) -> int:
    """Bytes of a directory with these names, and with `.` and `..`."""
    blocks = used = 0
    for name in sorted((b".", b"..", *names)):
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            blocks, used = blocks + 1, 0
        used += need
    return blocks * BLOCK + used


def directory(entries: Mapping[bytes, tuple[int, bytes]]) -> Iterator[bytes]:
    """The blocks of a directory, all but the last whole; `entries` are nids and tar's types by name, with `.` and `..`.

    A block has its entries first, then their names; both, and the blocks, are in the order of the names' bytes.
    """
    batch: list[bytes] = []
    used = 0
    for name in sorted(entries):
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            yield _directory_block(batch, entries).ljust(BLOCK, b"\0")
            batch, used = [], 0
        batch.append(name)
        used += need
    yield _directory_block(batch, entries)


def _directory_block(names: list[bytes], entries: Mapping[bytes, tuple[int, bytes]]) -> bytes:
    out, at = bytearray(), _DIRENT.size * len(names)
    for name in names:
        nid, type_ = entries[name]
        out += _DIRENT.pack(nid, at, _ENTRY_TYPES[type_])
        at += len(name)
    return bytes(out) + b"".join(names)
