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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, cast

from ..errors import InvalidArgument
from ..model.units import format_binary
from .guard import Bounded
from .limits import DEPTH_MAX, PATH_MAX, Budget, Limits

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_ACLS = ("SCHILY.acl.", "SCHILY.xattr.system.posix_acl_")  # of star and GNU tar; of Go's and umoci's
_MAX_SYMLINKS = 40
_NAME_MAX = 255  # bytes of one name
_XATTR_MAX = 64 << 10  # bytes of one value, as in Linux
_ID_MAX = 2**32 - 2
_TIME_MAX = 2**32 - 1  # seconds; what squashfs can hold
_GLOBALS_MAX = 1000  # records that hold for all entries; each entry gets a copy of them
_NO_XATTRS: Mapping[bytes, bytes] = {}
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
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: _NO_XATTRS)
    layer: int = 0
    # Pieces of the contents: where in the file, where in the layer, how long.
    pieces: tuple[tuple[int, int, int], ...] = ()


@dataclass(slots=True)
class Node:
    """A name in the tree."""

    inode: Inode
    latest: int  # the highest layer that made or changed it or something below it
    children: dict[bytes, Node] | None = None
    opaque: int = -1  # the layer that has hidden what was below it


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _components(name: bytes, what: str) -> list[bytes]:
    """:raise InvalidArgument: when the name would leave the root."""
    parts = [p for p in name.split(b"/") if p not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise InvalidArgument(f"has {what} {_shown(name)} that would leave the root")
    if len(name) > _NAME_MAX and (len(name) > PATH_MAX or max(map(len, parts), default=0) > _NAME_MAX):
        limit = f"{PATH_MAX} bytes, or has a part of more than {_NAME_MAX}"
        raise InvalidArgument(f"has {what} {_shown(name)} of more than {limit}")
    return parts


def _shown(name: bytes | str) -> str:
    """Quoted, and short enough for a message."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else _raw(name).decode(errors="replace")
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


class Tree:
    """The file tree of an image, built layer by layer."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.root = Node(Inode(b"5", 0o755), -1, {})
        self._budget = budget or Budget(Limits(), 0)
        self.without_acl = 0  # entries that lose their access control lists, which squashfs cannot hold

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
                        raise InvalidArgument(f"has an entry {_shown(info.name)} that has an impossible size")
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
        path = _components(_raw(info.name), "an entry")
        inode = None if info.islnk() else _inode(info, layer, end)
        self._budget.file(inode.size if inode else 0)
        if info.pax_headers and any(key.startswith(_ACLS) for key in info.pax_headers):
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
                target = self._find(_components(_raw(info.linkname), "a hard link"))
                if target is None or target.children is not None:
                    raise InvalidArgument(
                        f"has an entry {_shown(info.name)} that is a hard link to nothing ({_shown(info.linkname)})"
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
                    raise InvalidArgument(f"has too many symbolic links in {_shown(b'/'.join(path))}")
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


def _inode(info: tarfile.TarInfo, layer: int, end: int) -> Inode:
    kind = _TYPES.get(info.type)
    if kind is None:
        raise InvalidArgument(f"has an entry {_shown(info.name)} that is of the unknown type {info.type!r}")
    if not (0 <= info.uid <= _ID_MAX and 0 <= info.gid <= _ID_MAX):
        raise InvalidArgument(f"has an entry {_shown(info.name)} that has an impossible owner")
    mtime = int(min(max(0, info.mtime), _TIME_MAX)) if info.mtime == info.mtime else 0  # not a number: 0
    inode = Inode(kind, info.mode & 0o7777, info.uid, info.gid, mtime, layer=layer)
    if info.pax_headers:
        xattrs = {_raw(k.removeprefix(_XATTR)): _raw(v) for k, v in info.pax_headers.items() if k.startswith(_XATTR)}
        if any(len(value) > _XATTR_MAX for value in xattrs.values()):
            raise InvalidArgument(
                f"has an entry {_shown(info.name)} that has an attribute of more than {format_binary(_XATTR_MAX)}"
            )
        inode.xattrs = xattrs
    if kind == b"2":
        inode.link = _raw(info.linkname)
        if len(inode.link) >= PATH_MAX:
            raise InvalidArgument(
                f"has an entry {_shown(info.name)} that points to a path of more than {PATH_MAX} bytes"
            )
    elif kind in b"34":
        inode.device = (info.devmajor, info.devminor)
        if not (0 <= info.devmajor < 1 << 12 and 0 <= info.devminor < 1 << 20):
            raise InvalidArgument(f"has an entry {_shown(info.name)} that is an impossible device")
    elif kind == b"0":
        inode.size = info.size
        inode.pieces = _pieces(info, end)
    return inode


def _pieces(info: tarfile.TarInfo, end: int) -> tuple[tuple[int, int, int], ...]:
    """Where the contents are.

    :raise InvalidArgument: not within the file, or not within the layer, which has `end` bytes.
    """
    sparse = getattr(info, "sparse", None)
    if sparse is None:
        sparse = ((0, info.size),)
    out, at, done = [], info.offset_data, 0
    for offset, size in sparse:
        if not size:
            continue  # GNU tar marks the end so
        if offset < done or size < 0 or offset + size > info.size or at + size > end:
            raise InvalidArgument(f"has an entry {_shown(info.name)} that has contents that are not there")
        out.append((offset, at, size))
        at += size
        done = offset + size
    return tuple(out)


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
