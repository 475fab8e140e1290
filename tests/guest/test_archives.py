# SPDX-License-Identifier: Apache-2.0
"""Archives that were not made with good intent, and what an archive keeps of a file."""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from hypercontainer.protocol.constants import Builtin
from hypercontainer.protocol.messages import GuestProcess

from .conftest import SANITIZE, Sink
from .test_processes import Start, finish

BLOCK = 512
_FILES = (0, 1, 3, 4, 27, 31)  # CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP: linux/capability.h


async def extract(start: Start, target: Path, archive: bytes, *manner: str) -> tuple[int, str]:
    async with start() as guest:
        session = await guest.session()
        sink = Sink()
        handle = await session.start(
            GuestProcess(args=(str(target), *manner), builtin=Builtin.TAR_EXTRACT, stdin=True), sink
        )
        await handle.write_stdin(archive)
        handle.close_stdin()
        code = (await asyncio.wait_for(handle.exited, 20)).shell_code
        await asyncio.wait_for(handle.drained.wait(), 20)
        session.close()
    return code, sink.data[2].decode()


def pax(records: bytes) -> bytes:
    """An archive of one file, behind a header with these records."""
    header = tarfile.TarInfo("./PaxHeaders/x")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    member = tarfile.TarInfo("file").tobuf(tarfile.USTAR_FORMAT)
    return (
        header.tobuf(tarfile.USTAR_FORMAT)
        + records.ljust(-len(records) % BLOCK + len(records), b"\0")
        + member
        + bytes(2 * BLOCK)
    )


@pytest.mark.parametrize(
    "records",
    [
        b"\n\n\n\n\n5 path=x\n",  # ends before its key begins
        b"0000000000000000000005 path=x\n",
        b"5 a=\n"[:3] + b"\n",
        b"18446744073709551615 path=x\n",
        b"18446744073709551621 path=x\n",  # wraps to 5
        b"-5 path=x\n",
        b" 9 path=x\n",
        b"9 path=xy",
        b"10 pathxyz\n",
        b"7 path=",
        b"path=x\n",
    ],
)
async def test_malformed_pax_records(start: Start, tmp_path: Path, records: bytes) -> None:
    code, errors = await extract(start, tmp_path, pax(records))
    assert (code, "pax record" in errors) == (1, True), errors
    assert not list(tmp_path.iterdir())


async def test_times_are_kept_to_the_nanosecond(start: Start, tmp_path: Path) -> None:
    times = {
        "now": 1_700_000_000_123_456_789,
        "old": -86_400_000_000_000,
        "older": -1_500_000_000,
        "whole": 5_000_000_000,
    }
    source, target = tmp_path / "tree", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name, when in times.items():
        (source / name).touch()
        os.utime(source / name, ns=(when, when))
    async with start() as guest:
        session = await guest.session()
        status, made = await finish(session, GuestProcess(args=(str(source),), builtin=Builtin.TAR_CREATE))
        assert status.code == 0, made.data[2]
        session.close()
    with tarfile.open(fileobj=io.BytesIO(made.data[1])) as tar:
        assert {m.name: m.mtime for m in tar if m.isfile()} == {
            f"tree/{k}": pytest.approx(v / 1e9, abs=1e-6) for k, v in times.items()
        }
    assert await extract(start, target, bytes(made.data[1])) == (0, "")
    assert {p.name: p.stat().st_mtime_ns for p in (target / "tree").iterdir()} == times


def test_damaged_archives_never_leave_their_bounds(tmp_path: Path, repository: Path) -> None:
    """Short; `tar_fuzz 10000000 SEED FILE...` goes deeper."""
    program = tmp_path / "tar_fuzz"
    tree = repository / "hyperstart"
    flags = ["-D_GNU_SOURCE", "-std=c11", "-Wall", "-Wextra", "-Werror", *SANITIZE, f"-I{tree / 'include'}"]
    sources = [tree / "tests/tar_fuzz.c", *(tree / f"src/{name}.c" for name in ("tar_read", "util", "wire"))]
    subprocess.run(["gcc", *flags, "-o", program, *sources], check=True)
    for name, kind in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        with tarfile.open(tmp_path / f"{name}.tar", "w", format=kind) as tar:
            for path in ("a", "d/" + "n" * 150, "l" * 300):
                member = tarfile.TarInfo(path)
                member.size, member.mtime, member.uid = 3, 1.25, 1 << 40
                member.pax_headers = {"SCHILY.xattr.user.x": "v", "comment": "c"}
                tar.addfile(member, io.BytesIO(b"xyz"))
    done = subprocess.run(
        [program, "20000", "7", tmp_path / "pax.tar", tmp_path / "gnu.tar"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, "the first access out of bounds ends it; run it by hand with stderr kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user has no rights that could be dropped")
async def test_an_archive_is_read_with_the_rights_for_files_only(start: Start, tmp_path: Path) -> None:
    member = tarfile.TarInfo("first")
    async with start() as guest:
        session = await guest.session()
        process = GuestProcess(args=(str(tmp_path),), builtin=Builtin.TAR_EXTRACT, stdin=True)
        handle = await session.start(process, Sink())
        await handle.write_stdin(member.tobuf(tarfile.USTAR_FORMAT) + bytes(BLOCK))
        async with asyncio.timeout(20):
            while not (tmp_path / "first").exists():  # it reads what came from outside
                await asyncio.sleep(0.01)
        status = dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{handle.pid}/status").read_text()))
        handle.close_stdin()
        await asyncio.wait_for(handle.exited, 20)
        session.close()
    held = {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")}
    assert set(held.values()) == {sum(1 << number for number in _FILES)}, held
    assert status["NoNewPrivs"] == "1"


def packed(*members: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return raw.getvalue()


def directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


async def test_another_kind_of_file_is_replaced_only_when_that_is_asked_for(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/file").touch()
    (tmp_path / "tree/link").symlink_to("/etc")
    (tmp_path / "file").touch()
    for archive, words in (
        (packed(tarfile.TarInfo("tree")), "Is a directory"),
        (packed(directory("file")), "Not a directory"),
    ):
        code, said = await extract(start, tmp_path, archive)
        assert code == 1 and words in said
    archive = packed(tarfile.TarInfo("tree"), directory("file"), tarfile.TarInfo("file/below"))
    assert await extract(start, tmp_path, archive, "replace") == (0, "")
    assert (tmp_path / "tree").is_file() and (tmp_path / "file/below").is_file() and Path("/etc/passwd").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_an_archive_may_become_one_user_s(start: Start, tmp_path: Path) -> None:
    theirs = tarfile.TarInfo("file")
    theirs.uid = theirs.gid = 7
    for owner, uid, gid in (("", 7, 7), ("12:34", 12, 34), ("56", 56, 0)):
        manner = [f"owner={owner}"] if owner else []
        assert await extract(start, tmp_path, packed(theirs, directory("dir")), *manner) == (0, "")
        found = (tmp_path / "file").stat()
        assert (found.st_uid, found.st_gid) == (uid, gid)
    code, said = await extract(start, tmp_path, packed(theirs), "owner=nobody-has-this-name")
    assert code == 1 and "nobody-has-this-name" in said
