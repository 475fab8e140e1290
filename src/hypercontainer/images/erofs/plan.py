# SPDX-License-Identifier: Apache-2.0
"""Where each part of a tree goes in an EROFS image.

Metadata comes first: the inodes, each with its attributes, pointers to chunks and, where there is room for it in the
same block, the end of its contents. Those of one directory lie together. The blocks of contents follow, in the same
order.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import InvalidArgument
from ..entry import Inode, Pieces
from ..limits import PATH_MAX
from ..tree import Node, Tree
from . import layout
from .layout import BLOCK, SLOT

_CHUNKS_MAX = 1 << 14  # of one file: more make the chunks larger
Runs = list[tuple[int, int]]  # numbers of a first chunk, and of the one behind the last


def walk(tree: Tree) -> Iterator[tuple[Node, Inode]]:
    """All directories and the inodes of those they are in, parents first; sorts what is in each.

    :raise InvalidArgument: when a path is longer than Linux can open; symbolic links can lead that deep.
    """
    stack = [(tree.root, tree.root.inode, 1)]
    while stack:
        node, parent, length = stack.pop()
        assert node.children is not None
        node.children = dict(sorted(node.children.items()))
        if length + 1 + max(map(len, node.children), default=0) > PATH_MAX:
            raise InvalidArgument(f"has a path of more than {PATH_MAX} bytes")
        yield node, parent
        below = [(n, node.inode, length + 1 + len(name)) for name, n in node.children.items() if n.children is not None]
        stack += reversed(below)


def entries(node: Node, parent: Inode) -> dict[bytes, tuple[int, bytes]]:
    """What is in a directory, and that itself: nids and types by name."""
    children = node.children or {}
    found = {name: (child.inode.nid, child.inode.type) for name, child in children.items()}
    return found | {b".": (node.inode.nid, b"5"), b"..": (parent.nid, b"5")}


def contents_size(node: Node) -> int:
    """Bytes of what an inode leads to."""
    inode = node.inode
    if node.children is not None:
        return layout.directory_size(node.children)
    return len(inode.link) if inode.type == b"2" else inode.size


def chunk_bits(size: int) -> int:
    """What the chunks of a file of that size are the power of two of."""
    return max(BLOCK.bit_length() - 1, ((size - 1) // _CHUNKS_MAX).bit_length())


def runs(pieces: Pieces, bits: int) -> Runs:
    """The chunks that have contents."""
    found: Runs = []
    for offset, _, size in pieces:
        begin, end = offset >> bits, ((offset + size - 1) >> bits) + 1
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def blocks_of(run: tuple[int, int], bits: int, size: int) -> int:
    """How many blocks a run of chunks has in a file of that size."""
    return -(-(min(run[1] << bits, size) - (run[0] << bits)) // BLOCK)


class Plan:
    """Gives all inodes of a tree their places (`nid`, `start`, `layout`, `links`)."""

    def __init__(self, tree: Tree) -> None:
        self.inodes = 0
        self.chunks = False  # whether any inode has them
        self.contents = 0  # blocks
        self._end = layout.SUPERBLOCK_AT + layout.SUPERBLOCK_SIZE  # of the metadata so far
        tree.root.inode.links = 1
        self._place(tree.root)  # first, as its nid has 16 bits
        for node, _ in walk(tree):
            assert node.children is not None
            for child in node.children.values():
                if child.children is not None:
                    node.inode.links += 1
                child.inode.links += 1
                if not child.inode.nid:
                    self._place(child)
        self.metadata = -(-self._end // BLOCK)  # blocks

    def _place(self, node: Node) -> None:
        inode, size = node.inode, contents_size(node)
        if node.children is not None:
            inode.links += 1  # its own `.`
        head = layout.INODE_SIZE + len(layout.xattrs(inode.xattrs))
        self.inodes += 1
        inode.start = self.contents
        if inode.type == b"0" and size - sum(piece[2] for piece in inode.pieces) >= BLOCK:
            bits = chunk_bits(size)
            with_contents = runs(inode.pieces, bits)
            chunks = -(-size >> bits)
            if sum(end - begin for begin, end in with_contents) < chunks:
                self.chunks, inode.layout = True, layout.CHUNK_BASED
                self.contents += sum(blocks_of(run, bits, size) for run in with_contents)
                self._put(inode, head, layout.CHUNK_POINTER * chunks)
                return
        whole, tail = divmod(size, BLOCK)
        inode.layout = layout.FLAT_INLINE if tail and self._has_room(head, tail) else layout.FLAT_PLAIN
        inline = inode.layout == layout.FLAT_INLINE
        self._put(inode, head + (tail if inline else 0), 0)
        self.contents += whole + (tail > 0 and not inline)

    def _room(self) -> int:
        """In the block that the next inode would begin in."""
        return BLOCK - (self._end + -self._end % SLOT) % BLOCK

    def _has_room(self, head: int, tail: int) -> bool:
        """Whether the end of the contents goes behind the inode: in this block, or in the next one, with less waste
        than a block of its own would have."""
        room = self._room()
        return head + tail <= room or (head + tail <= BLOCK and room < BLOCK - tail)

    def _put(self, inode: Inode, length: int, pointers: int) -> None:
        """`pointers` may cross the end of a block, and so may attributes that are larger than one."""
        begin, room = self._end + -self._end % SLOT, self._room()
        if room < length <= BLOCK:
            begin += room
        inode.nid = begin // SLOT
        self._end = begin + length + pointers
