# SPDX-License-Identifier: Apache-2.0
"""POSIX access control lists: as tar archives have them, and as Linux does.

The attributes `system.posix_acl_access` and `..._default` hold what Linux itself reads and writes
(include/uapi/linux/posix_acl_xattr.h); Go's and umoci's archives have them as they are. Those of star, GNU tar
and libarchive have text (acl(5), and the number of a named user or group as a fourth field, star(5)).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_VERSION = 2
_HEAD, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NAMED = (_USER, _GROUP)
_NO_ID = 0xFFFFFFFF
_ID_MAX = 2**32 - 2
_BITS = {"r": 4, "w": 2, "x": 1, "-": 0}
_TAGS = {
    "u": (_USER_OBJ, _USER), "user": (_USER_OBJ, _USER), "g": (_GROUP_OBJ, _GROUP), "group": (_GROUP_OBJ, _GROUP),
    "m": (_MASK, _MASK), "mask": (_MASK, _MASK), "o": (_OTHER, _OTHER), "other": (_OTHER, _OTHER),
}  # fmt: skip


class Entry(NamedTuple):
    """What one of the list's classes may do; `id` is a user's or group's where the tag names one."""

    tag: int
    permissions: int
    id: int = _NO_ID


def decode(value: bytes) -> list[Entry]:
    """The attribute's entries; an empty list stands for none.

    :raise ValueError: when Linux would not take it.
    """
    if len(value) < _HEAD.size or (len(value) - _HEAD.size) % _ENTRY.size or _HEAD.unpack_from(value)[0] != _VERSION:
        raise ValueError("not an access control list")
    entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(value[_HEAD.size :])]
    _check(entries)
    return entries


def parse(text: str) -> list[Entry]:
    """The entries of a list in words.

    :raise ValueError: when it is malformed, or somebody in it has a name and no number.
    """
    entries = []
    for line in text.replace("\n", ",").split(","):
        if word := line.partition("#")[0].strip():
            entries.append(_entry(word.removeprefix("default:").split(":")))
    entries.sort(key=lambda e: (e.tag, e.id))
    _check(entries)
    return entries


def _entry(fields: list[str]) -> Entry:
    kind, *rest = (f.strip() for f in fields)
    if kind not in _TAGS or not 1 <= len(rest) <= 3:
        raise ValueError(f"not an entry of an access control list: {':'.join(fields)!r}")
    who, rights, number = ("", *rest, "")[:3] if len(rest) == 1 else (*rest, "")[:3]
    permissions = 0
    for letter in rights:
        permissions |= _BITS.get(letter, -1)
    if permissions < 0:
        raise ValueError(f"not permissions: {rights!r}")
    whole, named = _TAGS[kind]
    if not who:
        return Entry(whole, permissions)
    number = number or who
    if named not in _NAMED or not (number.isascii() and number.isdigit() and len(number) <= 10):
        raise ValueError(f"nobody's number: {number!r}")
    return Entry(named, permissions, int(number))


def _check(entries: Sequence[Entry]) -> None:
    """As `posix_acl_valid` of the kernel's fs/posix_acl.c.

    :raise ValueError: when one is missing, or not in its place.
    """
    tags = [e.tag for e in entries]
    once = [tag for tag in tags if tag not in _NAMED]
    complete = once in ([_USER_OBJ, _GROUP_OBJ, _OTHER], [_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER])
    if entries and (not complete or tags != sorted(tags) or (_MASK not in tags and len(tags) > len(once))):
        raise ValueError("an access control list that is not complete")
    for entry in entries:
        if entry.permissions > 7 or (entry.tag in _NAMED and entry.id > _ID_MAX):
            raise ValueError("an access control list with impossible entries")


def encode(entries: Sequence[Entry]) -> bytes:
    """The value of the attribute."""
    ids = (e.id if e.tag in _NAMED else _NO_ID for e in entries)
    return _HEAD.pack(_VERSION) + b"".join(
        _ENTRY.pack(e.tag, e.permissions, id_) for e, id_ in zip(entries, ids, strict=True)
    )


def apply(entries: Sequence[Entry], mode: int) -> tuple[int, bool]:
    """The mode of a file that has this list, and whether the mode says all of it; as `posix_acl_equiv_mode` does."""
    if not entries:
        return mode, True
    of = {e.tag: e.permissions for e in entries if e.tag not in _NAMED}
    bits = of[_USER_OBJ] << 6 | of.get(_MASK, of[_GROUP_OBJ]) << 3 | of[_OTHER]
    return mode & ~0o777 | bits, len(entries) == 3
