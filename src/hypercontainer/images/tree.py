# SPDX-License-Identifier: Apache-2.0
"""Layers merged into one file tree.

Layers are applied lowest first, as the image specification says
(https://github.com/opencontainers/image-spec/blob/main/layer.md): a whiteout
removes what lower layers had, an opaque directory hides their children, a
hard link shares the inode that its target has at that moment. Only headers
are kept; contents stay where they are in the uncompressed layers.

What layers say is not to be trusted: all that grows is limited, nothing here
is recursive, and no entry costs more than the way to it.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import IO, cast

from ..errors import InvalidArgument
from .entry import Inode, add_attributes, make_inode, raw, shown
from .guard import Bounded
from .limits import DEPTH_MAX, PATH_MAX, Budget, Limits

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_MAX_SYMLINKS = 40
_NAME_MAX = 255  # bytes of one name
_GLOBALS_MAX = 1000  # records that hold for all entries; each entry gets a copy of them


@dataclass(slots=True)
class Node:
    """A name in the tree."""

    inode: Inode
    latest: int  # the highest layer that made or changed it or something below it
    children: dict[bytes, Node] | None = None
    opaque: int = -1  # the layer that has hidden what was below it


def _components(name: bytes, what: str) -> list[bytes]:
    """:raise InvalidArgument: when the name would leave the root."""
    parts = [p for p in name.split(b"/") if p not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise InvalidArgument(f"has {what} {shown(name)} that would leave the root")
    if len(name) > _NAME_MAX and (len(name) > PATH_MAX or max(map(len, parts), default=0) > _NAME_MAX):
        limit = f"{PATH_MAX} bytes, or has a part of more than {_NAME_MAX}"
        raise InvalidArgument(f"has {what} {shown(name)} of more than {limit}")
    return parts


class Tree:
    """The file tree of an image, built layer by layer."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.root = Node(Inode(b"5", 0o755), -1, {})
        self._budget = budget or Budget(Limits(), 0)
        self.without_acl = 0  # entries that lose their access control lists, which nobody can read

    def apply(self, layer: int, archive: IO[bytes], length: int | None = None) -> None:
        """Apply one uncompressed layer, `length` bytes long.

        :raise InvalidArgument: when it is no tar archive, an entry would leave the root, or it is beyond a limit.
        """
        end = archive.seek(0, 2) if length is None else length
        archive.seek(0)
        bounded, last = Bounded(archive), -1
        try:
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:", errors="surrogateescape") as tar:
                for info in tar:
                    if info.offset <= last or info.size < 0:
                        raise InvalidArgument(f"has an entry {shown(info.name)} that has an impossible size")
                    if len(tar.pax_headers) > _GLOBALS_MAX:
                        raise InvalidArgument(f"has more than {_GLOBALS_MAX} global records")
                    last = info.offset
                    bounded.next_entry()
                    self._add(layer, info, end)
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        except RecursionError:
            raise InvalidArgument("has an entry with too many headers") from None
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise InvalidArgument(f"is not a tar archive: {error}") from error

    def _add(self, layer: int, info: tarfile.TarInfo, end: int) -> None:
        path = _components(raw(info.name), "an entry")
        inode = None if info.islnk() else make_inode(info, layer, end)
        self._budget.file(inode.size if inode else 0)
        if inode and info.pax_headers and not add_attributes(inode, info):
            self.without_acl += 1
        if not path:
            if inode and info.isdir():
                self.root.inode = inode
            return
        trail = self._directory(path[:-1], layer)
        parent, name = trail[-1], path[-1]
        assert parent.children is not None
        if name == OPAQUE:
            _drop_lower(parent, layer)
        elif name.startswith(WHITEOUT):
            _whiteout(parent, name.removeprefix(WHITEOUT), layer)
        else:
            if inode is None:
                target = self._find(_components(raw(info.linkname), "a hard link"))
                if target is None or target.children is not None:
                    raise InvalidArgument(
                        f"has an entry {shown(info.name)} that is a hard link to nothing ({shown(info.linkname)})"
                    )
                inode = target.inode
            self._place(parent.children, name, inode, layer)
            _mark(trail, layer)

    @staticmethod
    def _place(children: dict[bytes, Node], name: bytes, inode: Inode, layer: int) -> None:
        old = children.get(name)
        if inode.type != b"5":
            children[name] = Node(inode, layer)
        elif old is not None and old.children is not None:
            old.inode, old.latest = inode, layer
        else:
            children[name] = Node(inode, layer, {})

    def _directory(self, path: list[bytes], layer: int) -> list[Node]:
        """The directory of that path and those above it, root first, made where they are missing."""
        trail = self._walk(path, layer)
        assert trail is not None
        return trail

    def _find(self, path: list[bytes]) -> Node | None:
        trail = self._walk(path[:-1], None) if path else None
        children = trail[-1].children if trail else None
        return children.get(path[-1]) if children is not None else None

    def _walk(self, path: list[bytes], make: int | None) -> list[Node] | None:
        """Follow a path, and symbolic links in it; what is missing is made, by the layer `make`, or the end."""
        todo, links, trail = list(reversed(path)), 0, [self.root]
        while todo:
            part = todo.pop()
            if part == b"..":
                trail = trail[:-1] or [self.root]
                continue
            siblings = trail[-1].children
            assert siblings is not None
            child = siblings.get(part)
            if child is not None and child.inode.type == b"2":
                links += 1
                if links > _MAX_SYMLINKS:
                    raise InvalidArgument(f"has too many symbolic links in {shown(b'/'.join(path))}")
                if child.inode.link.startswith(b"/"):
                    trail = [self.root]
                todo += [p for p in reversed(child.inode.link.split(b"/")) if p not in (b"", b".")]
                continue
            if child is None or child.children is None:
                if make is None:
                    return None
                child = siblings[part] = Node(Inode(b"5", 0o755), make, {})
                _mark(trail, make)
            trail.append(child)
            if len(trail) > DEPTH_MAX:
                raise InvalidArgument(f"has directories more than {DEPTH_MAX} deep")
        return trail


def _mark(trail: list[Node], layer: int) -> None:
    """Note that the layer changed something at the end of the trail."""
    for node in reversed(trail):
        if node.latest == layer:
            return  # and so are all above it
        node.latest = layer


def _drop_lower(directory: Node, layer: int) -> None:
    """Remove what lower layers put below a directory, keep what this layer did."""
    todo = [directory]
    while todo:
        node = todo.pop()
        if node.opaque == layer:
            continue  # nothing of lower layers can have come since
        node.opaque = layer
        assert node.children is not None
        for name, child in list(node.children.items()):
            if child.latest < layer:
                del node.children[name]
            elif child.children is not None:
                todo.append(child)


def _whiteout(parent: Node, name: bytes, layer: int) -> None:
    assert parent.children is not None
    child = parent.children.get(name)
    if child is None:
        return
    if child.latest < layer:
        del parent.children[name]
    elif child.children is not None:
        _drop_lower(child, layer)
