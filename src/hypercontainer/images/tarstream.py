# SPDX-License-Identifier: Apache-2.0
"""A file tree as one tar stream: ustar headers, pax records where those do not suffice.

https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html has both formats.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..errors import InvalidArgument
from .limits import PATH_MAX
from .tree import Inode, Node, Tree

BLOCK = 512
_ZEROS = bytes(1 << 20)
_FLUSH = 1 << 20  # bytes gathered before a write
_XATTRS = (b"user.", b"trusted.", b"security.")  # what squashfs can hold
_SENDFILE_FROM = 128 << 10  # smaller contents are cheaper to copy through the buffer


def _octal(value: int, width: int) -> bytes:
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return str(length).encode() + body


def _block(name: bytes, type_: bytes, size: int, inode: Inode, link: bytes = b"") -> bytes:
    head = (
        name[:100].ljust(100, b"\0")
        + _octal(inode.mode, 8)
        + _octal(inode.uid, 8)
        + _octal(inode.gid, 8)
        + _octal(size, 12)
        + _octal(inode.mtime, 12)
        + b" " * 8
        + type_
        + link[:100].ljust(100, b"\0")
        + b"ustar\x0000"
        + bytes(64)
        + _octal(inode.device[0], 8)
        + _octal(inode.device[1], 8)
    ).ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def header(name: bytes, inode: Inode, link_to: bytes | None = None) -> bytes:
    """All header blocks of one entry; `link_to` makes it a hard link."""
    type_, link, size = inode.type, inode.link, inode.size
    if link_to is not None:
        type_, link, size = b"1", link_to, 0
    records = b""
    if len(name) > 100:
        records += _pax_record(b"path", name)
    if len(link) > 100:
        records += _pax_record(b"linkpath", link)
    if size >= 8**11:
        records += _pax_record(b"size", b"%d" % size)
    if link_to is None:
        for key, value in sorted(inode.xattrs.items()):
            if key.startswith(_XATTRS):
                records += _pax_record(b"SCHILY.xattr." + key, value)
    out = b""
    if records:
        out = _block(b"./PaxHeaders/x", b"x", len(records), Inode(b"x", 0o644)) + records + bytes(-len(records) % BLOCK)
    return out + _block(name, type_, size, inode, link)


def walk(tree: Tree) -> Iterator[tuple[bytes, Node]]:
    """All names but the root's, parents before children, sorted.

    :raise InvalidArgument: when one is longer than Linux can open; symbolic links can lead that deep.
    """
    stack = [(b".", tree.root)]
    while stack:
        path, node = stack.pop()
        if len(path) > PATH_MAX:
            raise InvalidArgument(f"has a path of more than {PATH_MAX} bytes")
        if path != b".":
            yield path, node
        for name in sorted(node.children or (), reverse=True):
            assert node.children is not None
            stack.append((path + b"/" + name, node.children[name]))


class Writer:
    """Writes a tree's stream to a descriptor, contents copied by the kernel."""

    def __init__(self, out: int, layers: Sequence[tuple[int, int]]) -> None:
        """`layers` are descriptors, and where in their files the layers begin."""
        self._out = out
        self._layers = layers
        self._buffer = bytearray()

    def write(self, tree: Tree) -> None:
        """:raise BrokenPipeError: when the reader has gone."""
        first: dict[int, bytes] = {}
        for path, node in walk(tree):
            seen = first.get(id(node.inode)) if node.children is None else None
            self._buffer += header(path, node.inode, seen)
            if seen is None:
                first[id(node.inode)] = path
                if node.inode.type == b"0":
                    self._contents(node.inode)
            if len(self._buffer) >= _FLUSH:
                self._flush()
        self._buffer += bytes(2 * BLOCK)
        self._flush()

    def _contents(self, inode: Inode) -> None:
        at = 0
        for offset, where, size in inode.pieces:
            self._zeros(offset - at)
            fd, begin = self._layers[inode.layer]
            self._copy(fd, begin + where, size)
            at = offset + size
        self._zeros(inode.size - at)
        self._buffer += bytes(-inode.size % BLOCK)

    def _copy(self, fd: int, where: int, size: int) -> None:
        if size < _SENDFILE_FROM:
            data = os.pread(fd, size, where)
            if len(data) < size:
                raise InvalidArgument("ends within a file")
            self._buffer += data
            return
        self._flush()
        while size:
            done = os.sendfile(self._out, fd, where, size)
            if not done:
                raise InvalidArgument("ends within a file")
            where += done
            size -= done

    def _zeros(self, count: int) -> None:
        while count > 0:
            piece = min(count, len(_ZEROS))
            self._buffer += _ZEROS[:piece]
            count -= piece
            if len(self._buffer) >= _FLUSH:
                self._flush()

    def _flush(self) -> None:
        view = memoryview(self._buffer)
        while view:
            view = view[os.write(self._out, view) :]
        view.release()
        self._buffer.clear()
