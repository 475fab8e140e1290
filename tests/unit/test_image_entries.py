# SPDX-License-Identifier: Apache-2.0
"""What headers of layers say of times, extended attributes and access control lists."""

from __future__ import annotations

import io
import tarfile

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.images import acl
from hypercontainer.images.entry import Inode
from hypercontainer.images.erofs.layout import XATTR_VALUE_MAX
from hypercontainer.images.tree import Tree

SECOND = 10**9
XATTR = "SCHILY.xattr."
U, G, M, O = (1, 4, 16, 32)  # noqa: E741 - the tags of owner, group, mask, others


def entry(
    pax: dict[str, str], *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, mtime: float = 0
) -> tuple[Inode, int]:
    """What becomes of a layer's one entry; how many lost their lists."""
    info = tarfile.TarInfo("it")
    info.type, info.mode, info.mtime, info.pax_headers = kind, mode, mtime, pax
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    tree = Tree()
    tree.apply(0, io.BytesIO(data))
    assert tree.root.children is not None
    return tree.root.children[b"it"].inode, tree.without_acl


def text(value: bytes) -> str:
    """As a pax record holds bytes."""
    return value.decode("utf-8", "surrogateescape")


def packed(*entries: tuple[int, int, int]) -> bytes:
    return acl.encode([acl.Entry(*e) for e in entries])


FULL = packed((U, 6, 0), (2, 7, 1000), (G, 4, 0), (8, 5, 7), (M, 7, 0), (O, 4, 0))


@pytest.mark.parametrize(
    ("said", "nanoseconds"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1", 1_700_000_000_100_000_000),
        ("1700000000.1234567899", 1_700_000_000_123_456_789),
        ("1700000000.", 1_700_000_000 * SECOND),
        ("-0.5", -SECOND // 2),
        ("-14182940.25", -14_182_940_250_000_000),
        ("0", 0),
        ("nan", 0),
        ("inf", (2**34 - 2**31 - 1) * SECOND),
        ("99999999999999999999", (2**34 - 2**31) * SECOND - 1),
        ("-99999999999", -(2**31) * SECOND),
        ("1e9", 10**9 * SECOND),
        ("never", 0),
    ],
)
def test_times(said: str, nanoseconds: int) -> None:
    assert entry({"mtime": said})[0].mtime == nanoseconds


def test_a_time_before_1970_in_a_header_without_records() -> None:
    info = tarfile.TarInfo("it")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[136:148] = b"\xff" * 8 + (2**32 - 1000).to_bytes(4, "big")  # -1000 of base 256
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    tree = Tree()
    tree.apply(0, io.BytesIO(bytes(raw) + bytes(1024)))
    assert tree.root.children is not None
    assert tree.root.children[b"it"].inode.mtime == -1000 * SECOND


def test_attributes_that_linux_knows_are_kept() -> None:
    names = ["user.a", "trusted.b", "security.c", "user.", "system.nfs4_acl", "com.apple.provenance", "system.other"]
    inode, _ = entry({XATTR + name: "v" for name in names})
    assert sorted(inode.xattrs) == [b"security.c", b"trusted.b", b"user.a"]


@pytest.mark.parametrize(
    ("pax", "why"),
    [
        ({XATTR + "user.a": "x" * (XATTR_VALUE_MAX + 1)}, "an attribute of more than 65535 bytes"),
        ({XATTR + "user." + "n" * 251: "x"}, "an attribute's name of more than 255 bytes"),
        ({XATTR + f"user.{n}": "x" * XATTR_VALUE_MAX for n in range(5)}, "attributes of more than 262148 bytes"),
    ],
)
def test_attributes_that_are_too_large_are_refused(pax: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        entry(pax)


def test_access_control_lists_as_linux_has_them() -> None:
    inode, lost = entry({XATTR + "system.posix_acl_access": text(FULL)}, mode=0o4640)
    assert inode.xattrs == {b"system.posix_acl_access": FULL} and lost == 0
    assert inode.mode == 0o4674, "the mode says what the list does: the mask for the group"


def test_a_list_that_says_no_more_than_the_mode_becomes_the_mode() -> None:
    inode, lost = entry({XATTR + "system.posix_acl_access": text(packed((U, 7, 0), (G, 5, 0), (O, 0, 0)))})
    assert (inode.xattrs, inode.mode, lost) == ({}, 0o750, 0)


def test_default_lists_are_of_directories_alone() -> None:
    pax = {XATTR + "system.posix_acl_default": text(FULL)}
    assert entry(pax, kind=tarfile.DIRTYPE)[0].xattrs == {b"system.posix_acl_default": FULL}
    assert entry(pax)[0].xattrs == {}


@pytest.mark.parametrize(
    "said",
    [
        "user::rw-,user:1000:rwx,group::r--,group:7:r-x,mask::rwx,other::r--",
        "user::rw-,user:joe:rwx:1000,group::r--,group:lp:r-x:7,mask::rwx,other::r--",
        "u::rw-\nu:1000:rwx # effective\n# a comment\ng::r--\ng:7:r-x\nm:rwx\no:r--\n",
        "other::r--,mask::rwx,group:7:r-x,group::r--,user:1000:rwx,user::rw-",
    ],
)
def test_access_control_lists_in_words(said: str) -> None:
    inode, lost = entry({"SCHILY.acl.access": said})
    assert inode.xattrs == {b"system.posix_acl_access": FULL} and lost == 0


def test_default_lists_in_words() -> None:
    said = ",".join(
        f"default:{e}" for e in ("user::rw-", "user:1000:rwx", "group::r--", "group:7:r-x", "mask::rwx", "other::r--")
    )
    inode, lost = entry({"SCHILY.acl.default": said}, kind=tarfile.DIRTYPE)
    assert inode.xattrs == {b"system.posix_acl_default": FULL} and lost == 0


@pytest.mark.parametrize(
    "value",
    [
        b"\x02\0\0",
        b"\x01\0\0\0" + FULL[4:],
        FULL[:-1],
        FULL + FULL[4:],
        packed((U, 6, 0), (G, 4, 0)),
        packed((U, 6, 0), (2, 7, 1000), (G, 4, 0), (O, 4, 0)),
        packed((G, 4, 0), (U, 6, 0), (O, 4, 0)),
        packed((U, 8, 0), (G, 4, 0), (O, 4, 0)),
        packed((U, 6, 0), (2, 7, 2**32 - 1), (G, 4, 0), (M, 7, 0), (O, 4, 0)),
        packed((U, 6, 0), (64, 7, 0), (G, 4, 0), (O, 4, 0)),
    ],
)
def test_lists_that_linux_would_not_take_are_left_out_and_counted(value: bytes) -> None:
    inode, lost = entry({XATTR + "system.posix_acl_access": text(value), XATTR + "user.a": "b"})
    assert (inode.xattrs, inode.mode, lost) == ({b"user.a": b"b"}, 0o644, 1)


@pytest.mark.parametrize(
    "said",
    ["user::rw-,user:joe:rwx,group::r--,mask::rwx,other::r--", "user::rw-,group::r--", "nonsense",
     "user::q,group::r,other::r", "user:1:2:3:4", "mask:1000:rwx",
     "user::rw-,user:99999999999:rwx,group::r--,mask::rwx,other::r--"],
)  # fmt: skip
def test_words_that_cannot_be_read_are_counted(said: str) -> None:
    inode, lost = entry({"SCHILY.acl.access": said})
    assert (inode.xattrs, lost) == ({}, 1)
