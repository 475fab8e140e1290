# SPDX-License-Identifier: Apache-2.0
"""One entry of a layer: what its headers say, as far as it can be."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import InvalidArgument
from . import acl
from .erofs.layout import XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_MAX, can_hold, xattrs
from .limits import PATH_MAX

_XATTR = "SCHILY.xattr."
_ACLS = {acl.ACCESS: "SCHILY.acl.access", acl.DEFAULT: "SCHILY.acl.default"}  # as star and GNU tar name them
_ID_MAX = 2**32 - 2
_TIME_MIN, _TIME_MAX = -(2**31), 2**34 - 2**31 - 1  # seconds: what ext4 can hold, where files are copied up to
_TIME = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_NO_XATTRS: Mapping[bytes, bytes] = {}
_TYPES = {
    tarfile.REGTYPE: b"0", tarfile.AREGTYPE: b"0", tarfile.CONTTYPE: b"0", tarfile.GNUTYPE_SPARSE: b"0",
    tarfile.SYMTYPE: b"2", tarfile.CHRTYPE: b"3", tarfile.BLKTYPE: b"4", tarfile.DIRTYPE: b"5", tarfile.FIFOTYPE: b"6",
}  # fmt: skip

Pieces = tuple[tuple[int, int, int], ...]  # where in the file, where in the layer, how long


@dataclass(slots=True)
class Inode:
    """A file's attributes and where its contents are; shared by hard links."""

    type: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # nanoseconds
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: _NO_XATTRS)
    layer: int = 0
    pieces: Pieces = ()  # of the contents
    # Where it goes on the image disk (`erofs.plan`): its number, its first block of all contents, how they are kept.
    nid: int = 0
    start: int = 0
    layout: int = 0
    links: int = 0


def make_inode(info: tarfile.TarInfo, layer: int, end: int) -> Inode:
    """What a header of a layer of `end` bytes says, but for its extended attributes.

    :raise InvalidArgument: when it cannot be.
    """
    kind = _TYPES.get(info.type)
    if kind is None:
        raise InvalidArgument(f"has an entry {shown(info.name)} that is of the unknown type {info.type!r}")
    if not (0 <= info.uid <= _ID_MAX and 0 <= info.gid <= _ID_MAX):
        raise InvalidArgument(f"has an entry {shown(info.name)} that has an impossible owner")
    inode = Inode(kind, info.mode & 0o7777, info.uid, info.gid, _mtime(info), layer=layer)
    if kind == b"2":
        inode.link = raw(info.linkname)
        if len(inode.link) >= PATH_MAX:
            raise InvalidArgument(
                f"has an entry {shown(info.name)} that points to a path of more than {PATH_MAX} bytes"
            )
    elif kind in b"34":
        inode.device = (info.devmajor, info.devminor)
        if not (0 <= info.devmajor < 1 << 12 and 0 <= info.devminor < 1 << 20):
            raise InvalidArgument(f"has an entry {shown(info.name)} that is an impossible device")
    elif kind == b"0":
        inode.size = info.size
        inode.pieces = _pieces(info, end)
    return inode


def _mtime(info: tarfile.TarInfo) -> int:
    """In nanoseconds; tarfile makes a float of what a pax record says."""
    text = _TIME.fullmatch(info.pax_headers.get("mtime", ""))
    if text:
        sign, seconds, fraction = text.groups(default="")
        value = int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
        value = -value if sign else value
    else:
        known = info.mtime == info.mtime  # else it is not a number
        value = int(max(_TIME_MIN, min(info.mtime, _TIME_MAX))) * 10**9 if known else 0
    return min(max(_TIME_MIN * 10**9, value), _TIME_MAX * 10**9 + 10**9 - 1)


def add_attributes(inode: Inode, info: tarfile.TarInfo) -> bool:
    """Give an inode its extended attributes, those that Linux knows; false when it has an ACL that nobody can read.

    :raise InvalidArgument: when there are too many.
    """
    records = info.pax_headers
    found = {raw(k.removeprefix(_XATTR)): raw(v) for k, v in records.items() if k.startswith(_XATTR)}
    found = {name: value for name, value in found.items() if can_hold(name)}
    lists = {name: found.pop(name, None) for name in _ACLS}
    readable = True
    for name, text in _ACLS.items():
        try:
            value = lists[name]
            entries = acl.parse(records.get(text, "")) if value is None else acl.decode(value)
        except ValueError:
            readable = False
            continue
        if inode.type == b"2" or (name == acl.DEFAULT and inode.type != b"5"):
            continue  # Linux has none there
        if name == acl.ACCESS:
            inode.mode, said = acl.apply(entries, inode.mode)
            entries = [] if said else entries
        if entries:
            found[name] = acl.encode(entries)
    if found:
        _check_attributes(found, info)
        inode.xattrs = found
    return readable


def _check_attributes(attributes: Mapping[bytes, bytes], info: tarfile.TarInfo) -> None:
    for what, size, limit in (
        ("an attribute", max(map(len, attributes.values())), XATTR_VALUE_MAX),
        ("an attribute's name", max(map(len, attributes)), XATTR_NAME_MAX),
    ):
        if size > limit:
            raise InvalidArgument(f"has an entry {shown(info.name)} that has {what} of more than {limit} bytes")
    if len(xattrs(attributes)) > XATTRS_MAX:
        raise InvalidArgument(f"has an entry {shown(info.name)} that has attributes of more than {XATTRS_MAX} bytes")


def _pieces(info: tarfile.TarInfo, end: int) -> Pieces:
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
            raise InvalidArgument(f"has an entry {shown(info.name)} that has contents that are not there")
        out.append((offset, at, size))
        at += size
        done = offset + size
    return tuple(out)


def raw(name: str) -> bytes:
    """A name of an archive as the bytes that it was."""
    return name.encode("utf-8", "surrogateescape")


def shown(name: bytes | str) -> str:
    """Quoted, and short enough for a message."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else raw(name).decode(errors="replace")
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
