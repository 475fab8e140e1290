# SPDX-License-Identifier: Apache-2.0
"""Writes a file tree as an EROFS image, in one pass over its contents; the kernel copies the large ones."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from typing import Protocol

from ...errors import InvalidArgument
from ..entry import Inode
from ..tree import Node, Tree
from . import layout, plan
from .layout import BLOCK, SLOT

_FLUSH = 1 << 20  # bytes gathered before a write
_SENDFILE_FROM = 128 << 10  # bytes: less is cheaper to copy through the buffer
_UUID_VERSION = b"1"  # to change when the same metadata would mean another image


class Digest(Protocol):
    """Of hashlib."""

    def update(self, data: bytes | bytearray, /) -> None:
        """Take further bytes in."""


class _Stream:
    """Writes to one part of a file, from its beginning to its end."""

    def __init__(self, fd: int, at: int, digest: Digest | None = None) -> None:
        """The digest is fed with all that is not copied by the kernel."""
        self._fd = fd
        self._written = at
        self._buffer = bytearray()
        self._digest = digest

    @property
    def at(self) -> int:
        return self._written + len(self._buffer)

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _FLUSH:
            self.flush()

    def skip_to(self, at: int) -> None:
        """Zeros up to there; many are a hole."""
        if at - self.at <= BLOCK:
            self._buffer += bytes(at - self.at)
        else:
            self.flush()
            self._written = at

    def copy(self, source: int, where: int, size: int) -> None:
        """:raise InvalidArgument: when the source ends before."""
        if size < _SENDFILE_FROM:
            self.write(read(source, where, size))
            return
        self.flush()
        os.lseek(self._fd, self._written, os.SEEK_SET)
        while size:
            done = os.sendfile(self._fd, source, where, size)
            if not done:
                raise InvalidArgument("ends within a file")
            where, size = where + done, size - done
            self._written += done

    def flush(self) -> None:
        if self._digest is not None:
            self._digest.update(self._buffer)
        view = memoryview(self._buffer)
        while view:
            done = os.pwrite(self._fd, view, self._written)
            view, self._written = view[done:], self._written + done
        view.release()
        self._buffer.clear()


def read(source: int, where: int, size: int) -> bytes:
    """:raise InvalidArgument: when the source ends before."""
    data = os.pread(source, size, where)
    if len(data) < size:
        raise InvalidArgument("ends within a file")
    return data


class Writer:
    """Writes trees to an empty file."""

    def __init__(self, out: int, layers: Sequence[tuple[int, int]]) -> None:
        """`layers` are descriptors, and where in their files the layers begin."""
        self._out = out
        self._layers = layers

    def write(self, tree: Tree) -> None:
        """Write the one tree.

        :raise InvalidArgument: when it has something that no image can, or a layer ends too early.
        :raise OSError: when it cannot be written.
        """
        planned = plan.Plan(tree)
        self._base = planned.metadata
        self._number = 0
        digest = hashlib.sha256(_UUID_VERSION)
        self._metadata = _Stream(self._out, layout.SUPERBLOCK_AT + layout.SUPERBLOCK_SIZE, digest)
        self._contents = _Stream(self._out, self._base * BLOCK)
        self._inode(tree.root, tree.root.inode)
        for node, _ in plan.walk(tree):
            assert node.children is not None
            for child in node.children.values():
                if child.inode.nid * SLOT >= self._metadata.at:  # else it is a further name
                    self._inode(child, node.inode)
        self._metadata.flush()
        self._contents.flush()
        blocks = planned.metadata + planned.contents
        os.ftruncate(self._out, blocks * BLOCK)
        # overlayfs knows a file of its upper layer's origin by this and the nid: other metadata, another image.
        head = layout.superblock(
            root=tree.root.inode.nid, inodes=planned.inodes, blocks=blocks, uuid=digest.digest()[:16],
            chunks=planned.chunks,
        )  # fmt: skip
        os.pwrite(self._out, head, layout.SUPERBLOCK_AT)

    def _inode(self, node: Node, parent: Inode) -> None:
        """An inode and all that belongs to it."""
        inode, size = node.inode, plan.contents_size(node)
        self._number += 1
        xattrs = layout.xattrs(inode.xattrs)
        union = self._base + inode.start
        if inode.type in b"34":
            union = layout.device(*inode.device)
        elif inode.layout == layout.CHUNK_BASED:
            union = plan.chunk_bits(size) - (BLOCK.bit_length() - 1)
        elif not size:
            union = 0
        self._metadata.skip_to(inode.nid * SLOT)
        self._metadata.write(
            layout.inode(
                inode, layout=inode.layout, size=size, union=union, number=self._number, links=inode.links,
                xattrs=len(xattrs),
            )
            + xattrs
        )  # fmt: skip
        if node.children is not None:
            self._whole(inode, b"".join(layout.directory(plan.entries(node, parent))))
        elif inode.type == b"2":
            self._whole(inode, inode.link)
        elif inode.layout == layout.CHUNK_BASED:
            self._chunks(inode)
        elif size:
            self._file(inode)

    def _begin(self, inode: Inode) -> int:
        """Where an inode's blocks begin."""
        return (self._base + inode.start) * BLOCK

    def _whole(self, inode: Inode, data: bytes) -> None:
        """Contents that are in memory."""
        inline = len(data) % BLOCK if inode.layout == layout.FLAT_INLINE else 0
        if blocks := data[: len(data) - inline]:
            self._contents.skip_to(self._begin(inode))
            self._contents.write(blocks)
        self._metadata.write(data[len(data) - inline :])

    def _file(self, inode: Inode) -> None:
        inline = inode.size % BLOCK if inode.layout == layout.FLAT_INLINE else 0
        end = inode.size - inline
        self._copy(inode, 0, end, self._contents, self._begin(inode))
        begin = self._metadata.at
        self._copy(inode, end, inode.size, self._metadata, begin)
        self._metadata.skip_to(begin + inline)

    def _chunks(self, inode: Inode) -> None:
        bits, block = plan.chunk_bits(inode.size), self._base + inode.start
        pointers = [layout.HOLE] * -(-inode.size >> bits)
        for run in plan.runs(inode.pieces, bits):
            for n in range(*run):
                pointers[n] = block + ((n - run[0]) << bits) // BLOCK
            block += plan.blocks_of(run, bits, inode.size)
        self._metadata.write(struct.pack(f"<{len(pointers)}I", *pointers))
        for offset, where, size in inode.pieces:  # each lies in one run, whose chunks follow each other
            at = pointers[offset >> bits] * BLOCK + offset % (1 << bits)
            self._piece(inode.layer, where, size, self._contents, at)

    def _copy(self, inode: Inode, begin: int, end: int, to: _Stream, at: int) -> None:
        """The part of a file from `begin` to `end`; holes are left out."""
        if begin == end:
            return
        for offset, where, size in inode.pieces:
            first, last = max(offset, begin), min(offset + size, end)
            if first < last:
                self._piece(inode.layer, where + first - offset, last - first, to, at + first - begin)

    def _piece(self, layer: int, where: int, size: int, to: _Stream, at: int) -> None:
        fd, base = self._layers[layer]
        to.skip_to(at)
        to.copy(fd, base + where, size)
