# SPDX-License-Identifier: Apache-2.0
"""What E2B's clients send for a COPY step, and the tar that a sandbox gets of it."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from hypercontainer.errors import InvalidArgument, NoSpace
from hypercontainer.integrations.e2b import copying
from hypercontainer.integrations.e2b.copying import Copy, mode_of, rewrite, source_of

FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def sent(*members: tuple[str, bytes, str], compress: bool = True) -> io.BytesIO:
    """Members by name, type, and contents or where a link leads to."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if compress else "w") as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.mode = kind, 1234, 0o640
            if kind == FILE:
                info.size = len(text)
            else:
                info.linkname = text
            archive.addfile(info, io.BytesIO(text.encode()))
    return made


def made(upload: io.BytesIO, copy: Copy) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    rewrite(upload, copy, out)
    with tarfile.open(fileobj=out) as archive:
        found = {m.name: m for m in archive}
        for member in found.values():
            if member.isreg():
                member.pax_headers = {"text": archive.extractfile(member).read().decode()}  # type: ignore[union-attr]
        return found


@pytest.mark.parametrize(
    ("source", "names", "target", "expected"),
    [
        ("a", ["a"], Copy("a", "/app/b"), ["app/b"]),
        ("a", ["a"], Copy("a", "/app", into=True), ["app/a"]),
        ("d/a", ["d/a"], Copy("d/a", "/app", into=True), ["app/a"]),
        ("./d", ["d/", "d/a", "d/e/", "d/e/b"], Copy("d", "/app", into=True), ["app", "app/a", "app/e", "app/e/b"]),
        ("d", ["d/", "d/a"], Copy("d", "/app", there=True), ["app/a"]),
        ("d/*.txt", ["d/a.txt", "d/b.txt"], Copy("d", "/app"), ["app/a.txt", "app/b.txt"]),
        (".", [".", "a", "d/", "d/b"], Copy(".", "/app"), ["app", "app/a", "app/d", "app/d/b"]),
        ("**/x", ["d/x", "x"], Copy(".", "/"), ["d/x", "x"]),
    ],
)  # fmt: skip
def test_where_files_go(source: str, names: list[str], target: Copy, expected: list[str]) -> None:
    members = [(n.rstrip("/"), DIRECTORY if n.endswith(("/", ".")) else FILE, "") for n in names]
    assert source_of(source) == target.source
    for compress in (True, False):
        assert list(made(sent(*members, compress=compress), target)) == expected


def test_what_they_are_there() -> None:
    upload = sent(("d/a", FILE, "text"), ("d/l", LINK, "/etc/passwd"), ("d/h", HARD, "d/a"))
    found = made(upload, Copy("d", "/app", uid=7, gid=8))
    assert {(m.uid, m.gid, m.uname) for m in found.values()} == {(7, 8, "")}
    assert (found["app/a"].mode, found["app/a"].pax_headers) == (0o640, {"text": "text"})
    assert (found["app/l"].linkname, found["app/h"].linkname) == ("/etc/passwd", "app/a")
    found = made(upload, Copy("d", "/app", mode=0o755))
    assert (found["app/a"].mode, found["app/l"].mode) == (0o755, 0o640)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../a", FILE, "")], "leads out"),
        ([("/etc/passwd", FILE, "")], "leads out"),
        ([("d/../../a", FILE, "")], "leads out"),
        ([("other/a", FILE, "")], "is not in d"),
        ([("dd", FILE, "")], "is not in d"),
        ([("d/l", LINK, "/etc"), ("d/l/passwd", FILE, "")], "through a symbolic link"),
        ([("d/l", LINK, "/"), ("d/l/etc", DIRECTORY, ""), ("d/l/etc/x", FILE, "")], "through a symbolic link"),
        ([("d/h", HARD, "../../etc/shadow")], "leads out"),
        ([("d/h", HARD, "e/x")], "is not in d"),
        ([("d/x", tarfile.CHRTYPE, "")], "no file, directory or link"),
        ([("d/x", tarfile.FIFOTYPE, "")], "no file, directory or link"),
        ([], "there is nothing"),
    ],
)
def test_what_does_not_belong_there(members: list[tuple[str, bytes, str]], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        made(sent(*members), Copy("d", "/app"))


def test_what_is_no_tar() -> None:
    whole = sent(("d/a", FILE, "x" * 100_000), compress=False).getvalue()
    packed = gzip.compress(whole)
    for wrong in (b"", b"nonsense" * 1000, whole[:50_000], packed[:60], packed[: len(packed) // 2], b"\x1f\x8bx"):
        with pytest.raises(InvalidArgument, match="no tar"):
            made(io.BytesIO(wrong), Copy("d", "/app"))


def test_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PLAIN_MAX", 1 << 20)
    with pytest.raises(NoSpace, match="at most"):
        made(sent(("d/a", FILE, "x" * (2 << 20))), Copy("d", "/app"))
    monkeypatch.setattr(copying, "_MEMBERS_MAX", 2)
    with pytest.raises(NoSpace, match="at most 2 files"):
        made(sent(*((f"d/{n}", FILE, "") for n in range(3))), Copy("d", "/app"))


def test_a_head_that_would_fill_the_memory() -> None:
    """Its length is in it, and a few bytes are a gigabyte once they are not compressed."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 64 << 20
    upload = io.BytesIO(gzip.compress(info.tobuf() + bytes(64 << 20), 1))
    with pytest.raises(InvalidArgument, match="a head is too long"):
        made(upload, Copy("d", "/app"))


def test_sources_and_modes_that_are_none() -> None:
    for wrong in ("/etc", "../x", "a/../../b"):
        with pytest.raises(InvalidArgument, match="leads out"):
            source_of(wrong)
    assert (mode_of(""), mode_of("0755"), source_of("a/../b"), source_of("*")) == (None, 0o755, "b", ".")
    for wrong in ("8", "77777", "x", "-1"):
        with pytest.raises(InvalidArgument, match="no mode"):
            mode_of(wrong)
