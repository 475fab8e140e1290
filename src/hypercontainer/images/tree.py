# SPDX-License-Identifier: Apache-2.0
"""Layers merged into one file tree.

Layers are applied lowest first, as the image specification says
(https://github.com/opencontainers/image-spec/blob/main/layer.md): a whiteout
removes what lower layers had, an opaque directory hides their children, a
hard link shares the inode that its target has at that moment. Only headers
are kept; contents stay where they are in the uncompressed layers.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from typing import IO

from ..errors import InvalidArgument

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_MAX_SYMLINKS = 40
_TYPES = {
    tarfile.REGTYPE: b"0", tarfile.AREGTYPE: b"0", tarfile.CONTTYPE: b"0", tarfile.GNUTYPE_SPARSE: b"0",
    tarfile.SYMTYPE: b"2", tarfile.CHRTYPE: b"3", tarfile.BLKTYPE: b"4", tarfile.DIRTYPE: b"5", tarfile.FIFOTYPE: b"6",
}  # fmt: skip


@dataclass(slots=True)
class Inode:
    """A file's attributes and where its contents are; shared by hard links."""

    type: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    layer: int = 0
    # Pieces of the contents: where in the file, where in the layer, how long.
    pieces: tuple[tuple[int, int, int], ...] = ()


@dataclass(slots=True)
class Node:
    """A name in the tree."""

    inode: Inode
    layer: int  # the layer that made or last changed it
    children: dict[bytes, Node] | None = None


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _components(name: bytes, what: str) -> list[bytes]:
    """:raise InvalidArgument: when the name would leave the root."""
    parts = [p for p in name.split(b"/") if p not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise InvalidArgument(f"the image is refused: its {what} {name.decode(errors='replace')!r} would leave the root")
    return parts


class Tree:
    """The file tree of an image, built layer by layer."""

    def __init__(self) -> None:
        self.root = Node(Inode(b"5", 0o755), -1, {})

    def apply(self, layer: int, archive: IO[bytes]) -> None:
        """Apply one uncompressed layer.

        :raise InvalidArgument: when it is no tar archive, or an entry would leave the root.
        """
        try:
            with tarfile.open(fileobj=archive, mode="r:", errors="surrogateescape") as tar:
                for info in tar:
                    self._add(layer, info)
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        except tarfile.TarError as error:
            raise InvalidArgument(f"layer {layer} of the image is not a tar archive: {error}") from error

    def _add(self, layer: int, info: tarfile.TarInfo) -> None:
        path = _components(_raw(info.name), "entry")
        if not path:
            if info.isdir():
                self.root.inode = _inode(info, layer)
            return
        parent = self._directory(path[:-1], layer)
        assert parent.children is not None
        name = path[-1]
        if name == OPAQUE:
            _drop_lower(parent, layer)
        elif name.startswith(WHITEOUT):
            _whiteout(parent, name.removeprefix(WHITEOUT), layer)
        elif info.islnk():
            target = self._find(_components(_raw(info.linkname), "hard link"))
            if target is None or target.children is not None:
                raise InvalidArgument(f"the image is refused: {info.name!r} is a hard link to nothing ({info.linkname!r})")
            parent.children[name] = Node(target.inode, layer)
        else:
            self._place(parent.children, name, _inode(info, layer), layer)

    @staticmethod
    def _place(children: dict[bytes, Node], name: bytes, inode: Inode, layer: int) -> None:
        old = children.get(name)
        if inode.type == b"5":
            kept = old.children if old is not None and old.children is not None else {}
            children[name] = Node(inode, layer, kept)
        else:
            children[name] = Node(inode, layer)

    def _directory(self, path: list[bytes], layer: int) -> Node:
        """The directory of that path, made where it is missing; symbolic links are followed."""
        node, todo, links = self.root, list(reversed(path)), 0
        trail = [self.root]
        while todo:
            part = todo.pop()
            if part == b"..":
                trail = trail[:-1] or [self.root]
                node = trail[-1]
                continue
            siblings = node.children
            assert siblings is not None
            child = siblings.get(part)
            if child is not None and child.inode.type == b"2":
                links += 1
                if links > _MAX_SYMLINKS:
                    raise InvalidArgument(f"the image is refused: too many symbolic links in {b'/'.join(path)!r}")
                if child.inode.link.startswith(b"/"):
                    node, trail = self.root, [self.root]
                todo += [p for p in reversed(child.inode.link.split(b"/")) if p not in (b"", b".")]
                continue
            if child is None or child.children is None:
                child = Node(Inode(b"5", 0o755), layer, {})
                siblings[part] = child
            node = child
            trail.append(node)
        return node

    def _find(self, path: list[bytes]) -> Node | None:
        node: Node | None = self._directory(path[:-1], 0) if path else self.root
        return node.children.get(path[-1]) if node and node.children is not None and path else None


def _inode(info: tarfile.TarInfo, layer: int) -> Inode:
    kind = _TYPES.get(info.type)
    if kind is None:
        raise InvalidArgument(f"the image is refused: {info.name!r} is of the unknown type {info.type!r}")
    inode = Inode(kind, info.mode & 0o7777, info.uid, info.gid, max(0, int(info.mtime)), layer=layer)
    for key, value in info.pax_headers.items():
        if key.startswith(_XATTR):
            inode.xattrs[_raw(key.removeprefix(_XATTR))] = _raw(value)
    if kind == b"2":
        inode.link = _raw(info.linkname)
    elif kind in b"34":
        inode.device = (info.devmajor, info.devminor)
    elif kind == b"0":
        inode.size = info.size
        inode.pieces = _pieces(info)
    return inode


def _pieces(info: tarfile.TarInfo) -> tuple[tuple[int, int, int], ...]:
    sparse = getattr(info, "sparse", None)
    if sparse is None:
        return ((0, info.offset_data, info.size),) if info.size else ()
    out, at = [], info.offset_data
    for offset, size in sparse:
        if size:
            out.append((offset, at, size))
        at += size
    return tuple(out)


def _drop_lower(directory: Node, layer: int) -> None:
    """Remove what lower layers put below a directory, keep what this layer did."""
    assert directory.children is not None
    for name, child in list(directory.children.items()):
        if child.layer < layer and not _has_layer(child, layer):
            del directory.children[name]
        elif child.children is not None:
            _drop_lower(child, layer)


def _has_layer(node: Node, layer: int) -> bool:
    return node.layer >= layer or any(_has_layer(c, layer) for c in (node.children or {}).values())


def _whiteout(parent: Node, name: bytes, layer: int) -> None:
    assert parent.children is not None
    child = parent.children.get(name)
    if child is None:
        return
    if not _has_layer(child, layer):
        del parent.children[name]
    elif child.children is not None:
        _drop_lower(child, layer)
