# SPDX-License-Identifier: Apache-2.0
"""Reads EROFS images, by the kernel's fs/erofs/erofs_fs.h and nothing of ours; what is not as it should be fails."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096
PREFIX = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
ENTRY_TYPES = {1: stat.S_IFREG, 2: stat.S_IFDIR, 3: stat.S_IFCHR, 4: stat.S_IFBLK, 5: stat.S_IFIFO, 7: stat.S_IFLNK}


@dataclass
class File:
    """An inode."""

    nid: int
    mode: int
    uid: int
    gid: int
    mtime: int  # nanoseconds
    links: int
    size: int
    device: int
    xattrs: dict[bytes, bytes]
    extents: list[
        tuple[int, int, int]
    ]  # of the contents: offset in the file, in the image, length; holes are not there


class Image:
    """An image in a file."""

    def __init__(self, path: Path | str) -> None:
        self._file = open(path, "rb", buffering=0)
        head = struct.unpack("<IIIBBHQQIIII16s16sIHHHB5xQ24x", self._at(1024, 128))
        magic, checksum, compatible, bits, slots, self.root, self.inodes, *_ = head
        assert (magic, checksum, compatible, bits, slots) == (0xE0F5E1E2, 0, 0, 12, 0)
        assert head[10:12] == (0, 0) and head[14] in (0, 4) and not any(head[15:])
        self.blocks, self.uuid, self.features = head[9], head[12], head[14]
        assert self.blocks * BLOCK == Path(path).stat().st_size

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        assert len(data) == size, "beyond the image's end"
        return data

    def inode(self, nid: int) -> File:
        at = nid * 32
        head = struct.unpack("<HHHHQIIIIqII16x", self._at(at, 64))
        format_, count, mode, _, size, union, _, uid, gid, seconds, nanoseconds, links = head
        assert format_ & 1 and format_ >> 1 in (0, 2, 4) and nanoseconds < 10**9
        attributes = 12 + 4 * (count - 1) if count else 0
        xattrs = self._xattrs(at + 64, attributes)
        file = File(nid, mode, uid, gid, seconds * 10**9 + nanoseconds, links, size, 0, xattrs, [])
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            file.device = union
        else:
            file.extents = list(self._extents(at + 64 + attributes, format_ >> 1, size, union))
        return file

    def _extents(self, behind: int, layout: int, size: int, union: int) -> Iterator[tuple[int, int, int]]:
        if layout == 4:
            assert union < 32 and self.features == 4
            chunk = BLOCK << union
            count = -(-size // chunk)
            for n, block in enumerate(struct.unpack(f"<{count}I", self._at(behind, 4 * count))):
                if block != 0xFFFFFFFF:
                    yield n * chunk, block * BLOCK, min(chunk, size - n * chunk)
            return
        inline = size % BLOCK if layout == 2 else 0
        if size - inline:
            yield 0, union * BLOCK, size - inline
        if inline:
            assert behind // BLOCK == (behind + inline - 1) // BLOCK, "the kernel refuses it"
            yield size - inline, behind, inline

    def _xattrs(self, at: int, size: int) -> dict[bytes, bytes]:
        if not size:
            return {}
        data, found, here = self._at(at, size), {}, 12
        assert not any(data[:12])
        while here < size:
            length, index, value = struct.unpack_from("<BBH", data, here)
            name = PREFIX[index] + data[here + 4 : here + 4 + length]
            assert name not in found
            found[name] = data[here + 4 + length : here + 4 + length + value]
            assert len(found[name]) == value
            here += 4 + length + value + -(length + value) % 4
        return found

    def contents(self, file: File) -> bytes:
        out = bytearray(file.size)
        for offset, where, size in file.extents:
            out[offset : offset + size] = self._at(where, size)
        return bytes(out)

    def entries(self, nid: int) -> dict[bytes, int]:
        """What is in a directory, with `.` and `..`: nids by name."""
        data, found = self.contents(self.inode(nid)), {}
        names: list[bytes] = []
        for begin in range(0, len(data), BLOCK):
            block = data[begin : begin + BLOCK]
            first = struct.unpack_from("<H", block, 8)[0]
            assert first % 12 == 0 and first
            heads = [struct.unpack_from("<QHBB", block, at) for at in range(0, first, 12)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for (child, name_at, type_, zero), end in zip(heads, ends, strict=True):
                name = block[name_at:end].rstrip(b"\0")
                assert 0 < len(name) <= 255 and not zero
                assert ENTRY_TYPES[type_] == stat.S_IFMT(self.inode(child).mode)
                found[name] = child
                names.append(name)
        assert names == sorted(set(names)), "looked for by bisection"
        return found

    def tree(self) -> dict[bytes, File]:
        """All files by path; the root's is empty."""
        found, stack = {b"": self.inode(self.root)}, [(b"", self.root, self.root)]
        while stack:
            path, nid, parent = stack.pop()
            entries = self.entries(nid)
            assert (entries.pop(b"."), entries.pop(b"..")) == (nid, parent)
            for name, child in entries.items():
                here = path + b"/" * bool(path) + name
                found[here] = self.inode(child)
                if stat.S_ISDIR(found[here].mode):
                    stack.append((here, child, nid))
        assert len({f.nid for f in found.values()}) == self.inodes
        return found


def tree(path: Path | str) -> dict[bytes, File]:
    with Image(path) as image:
        return image.tree()


def read(path: Path | str, name: str) -> bytes:
    """One file's contents."""
    with Image(path) as image:
        return image.contents(image.tree()[name.encode()])
