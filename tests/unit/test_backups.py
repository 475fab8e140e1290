# SPDX-License-Identifier: Apache-2.0
"""A backup as a file, and a root made of it: all that files can be, and what is no backup."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
from pathlib import Path

import msgspec
import pytest
import zstandard

from hypercontainer.engine.backup.archive import END, MANIFEST, Digest, End, Manifest, Writer
from hypercontainer.engine.backup.putting_back import MARK, check_whole, put_back
from hypercontainer.engine.paths import Paths
from hypercontainer.errors import Conflict, HyperError, InvalidArgument, Unavailable
from hypercontainer.model.cluster import Collected, EarlierLedger
from hypercontainer.model.status import Volume
from hypercontainer.state import copy, description
from hypercontainer.state.changes import metered, put
from hypercontainer.state.database import Database
from hypercontainer.state.ledger_names import KEY, kept
from hypercontainer.state.migrations import SCHEMA
from hypercontainer.sys.trees import Walk

from .test_trees import dig, emptied

NAME = b"caf\xe9"  # not UTF-8


def make_root(root: Path) -> None:
    """A database with two volumes, one of them a directory that has one of each."""
    data = root / "volumes/data/_data"
    data.mkdir(parents=True)
    database = Database(root / "state.db")
    for name, path in (("data", data), ("gone", root / "volumes/gone/_data")):
        volume = Volume(name=name, created_at="2026-01-01T00:00:00Z", driver="directory", path=str(path))
        database.commit([put(volume)])
        if name == "data":
            description.write(data.parent, volume)
    database.close()
    (data / "plain").write_bytes(b"x" * 5000)
    (data / "empty").touch(mode=0o640)
    with open(data / "holes", "wb") as f:
        os.pwrite(f.fileno(), b"begin", 0)
        os.pwrite(f.fileno(), b"middle", 5 << 20)
        os.ftruncate(f.fileno(), 64 << 20)
    with open(data / "hole", "wb") as f:
        os.ftruncate(f.fileno(), 1 << 20)
    os.link(data / "plain", data / "same")
    (data / "link").symlink_to("/etc")
    os.mkfifo(data / "pipe")
    (data / ("d" * 120)).mkdir(mode=0o700)
    (data / ("d" * 120) / os.fsdecode(NAME)).write_bytes(b"odd")
    os.setxattr(data / "plain", "user.some", b"\x00\xff")
    os.utime(data / "plain", (1_600_000_000, 1_600_000_000))


def packed(root: Path, *, gone: list[str] | None = None, schema: int = SCHEMA, extra: Path | None = None) -> bytes:
    writer, database = Writer(), root.parent / "copy.db"
    database.unlink(missing_ok=True)
    copy.copy_out(root / "state.db", database)
    manifest = Manifest(version="0", schema=schema, created_at="2026-01-01T00:00:00Z", root=str(root))
    pieces = [*writer.document(MANIFEST, manifest)]
    for top in ("state.db", "volumes"):
        pieces += writer.tree(root / top, top, {root / "state.db": database}, lambda path: False)
    if extra:
        pieces += writer.tree(extra, "../elsewhere", {}, lambda path: False)
    return b"".join([*pieces, *writer.end(gone or [])])


def restored(data: bytes, root: Path) -> None:
    root.mkdir(exist_ok=True)
    put_back(io.BytesIO(data), Paths(root, root / "run"))


def test_all_kinds_of_files_come_back(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    data = packed(tmp_path / "root")
    shutil.rmtree(tmp_path / "root")
    restored(data, tmp_path / "other")
    found = tmp_path / "other/volumes/data/_data"
    assert (found / "plain").read_bytes() == b"x" * 5000 and (found / "plain").stat().st_mtime == 1_600_000_000
    assert (found / "same").stat().st_ino == (found / "plain").stat().st_ino
    assert os.getxattr(found / "plain", "user.some") == b"\x00\xff"
    assert (found / "empty").stat().st_mode & 0o777 == 0o640 and (found / "empty").stat().st_size == 0
    holes = (found / "holes").read_bytes()
    assert len(holes) == 64 << 20 and holes.startswith(b"begin") and holes[5 << 20 :].startswith(b"middle")
    assert (found / "holes").stat().st_blocks < 1000 and (found / "hole").stat().st_size == 1 << 20
    assert os.readlink(found / "link") == "/etc" and (found / "pipe").is_fifo()
    assert (found / ("d" * 120) / os.fsdecode(NAME)).read_bytes() == b"odd"


def test_records_tell_where_their_files_are_now(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    restored(packed(tmp_path / "root", gone=["gone"]), tmp_path / "other")
    database = Database(tmp_path / "other/state.db")
    volumes = database.volumes()
    database.close()
    assert [v.path for v in volumes] == [str(tmp_path / "other/volumes/data/_data")]
    assert description.read_volume(tmp_path / "other/volumes/data") == volumes[0]
    check_whole(tmp_path / "other")


def test_a_ledger_that_is_put_back_is_another_one(tmp_path: Path) -> None:
    """Who collects it knows both, and where they part."""
    make_root(tmp_path / "root")
    database = Database(tmp_path / "root/state.db")
    database.commit([metered(KEY, Collected(ledger="first", node=""))])
    database.close()
    restored(packed(tmp_path / "root"), tmp_path / "other")
    database = Database(tmp_path / "other/state.db")
    found = kept(database)
    database.close()
    assert found and found.ledger != "first" and found.earlier == [EarlierLedger(ledger="first", until=0)]


def test_a_machine_stays_on_its_host(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    with sqlite3.connect(tmp_path / "root/state.db") as db:
        db.execute("INSERT INTO pods VALUES ('p', '', 'p', '', '{\"vm\":{\"pid\":1},\"name\":\"p\"}')")
        db.execute("INSERT INTO users VALUES (7, 'a')")
    db.close()
    copy.copy_out(tmp_path / "root/state.db", tmp_path / "copy.db")
    db = sqlite3.connect(tmp_path / "copy.db")
    assert db.execute("SELECT document FROM pods").fetchall() == [(b'{"name":"p"}',)]
    assert db.execute("SELECT * FROM users").fetchall() == []
    db.close()


@pytest.mark.parametrize("size", ["0", "10", "1", "2"])
def test_what_is_cut_off_is_refused_and_leaves_nothing(size: str, tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    data = packed(tmp_path / "root")
    cut = int(size) if size in ("0", "10") else len(data) * int(size) // 3
    with pytest.raises(InvalidArgument, match="is damaged|no backup"):
        restored(data[:cut], tmp_path / "other")
    assert os.listdir(tmp_path / "other") == []


def shape(root: Path) -> list[tuple[object, ...]]:
    """All that was put back beside the database: names, modes, times, contents."""
    found: list[tuple[object, ...]] = []
    for path in sorted((root / "volumes").rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        # A directory's is that of what was put into it; a volume's description is written by the restore.
        when = 0 if path.is_dir() or path.name == description.NAME else status.st_mtime_ns
        found.append((str(path.relative_to(root)), status.st_mode, status.st_uid, when, hash(data)))
    return found


def test_each_changed_byte_is_found(tmp_path: Path) -> None:
    """Or it is one of those that mean nothing, such as how much memory zstd is to take for it."""
    make_root(tmp_path / "root")
    data, other = packed(tmp_path / "root"), tmp_path / "other"
    restored(data, other)
    whole, harmless = shape(other), 0
    shutil.rmtree(other)
    places = range(0, len(data), len(data) // 20)
    for at in places:
        changed = bytearray(data)
        changed[at] ^= 0x10
        try:
            restored(bytes(changed), other)
        except HyperError:
            assert os.listdir(other) == [], at
        else:
            harmless += 1
            assert shape(other) == whole, at
            shutil.rmtree(other)
    assert harmless <= 2 < len(places)


def test_what_would_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    (tmp_path / "evil").write_text("x")
    with pytest.raises(InvalidArgument, match="no backup of hyperd's: it has '../elsewhere'"):
        restored(packed(tmp_path / "root", extra=tmp_path / "evil"), tmp_path / "other")
    assert not (tmp_path / "elsewhere").exists() and os.listdir(tmp_path / "other") == []


def test_one_of_a_newer_hyperd_is_refused(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    with pytest.raises(Unavailable, match=f"newer hyperd \\(0, schema {SCHEMA + 1}"):
        restored(packed(tmp_path / "root", schema=SCHEMA + 1), tmp_path / "other")
    assert os.listdir(tmp_path / "other") == []


def test_a_root_that_has_something_is_left_alone(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    data = packed(tmp_path / "root")
    with pytest.raises(Conflict, match="is not empty: there is state.db"):
        restored(data, tmp_path / "root")
    assert (tmp_path / "root/volumes/data/_data/plain").exists()


def test_a_restore_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    data = packed(tmp_path / "root")
    left = tmp_path / "other/volumes/half"
    left.mkdir(parents=True)
    (tmp_path / "other" / MARK).touch()
    with pytest.raises(Unavailable, match="has not come to its end"):
        check_whole(tmp_path / "other")
    restored(data, tmp_path / "other")
    assert not left.exists()
    check_whole(tmp_path / "other")


def _tar(path: Path) -> str:
    done = subprocess.run(["tar", "-xvf", path, "-C", path.parent], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_gnu_tar_takes_a_file_out(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    (tmp_path / "out").mkdir()
    whole = tmp_path / "out/backup.tar"
    whole.write_bytes(zstandard.ZstdDecompressor().decompressobj().decompress(packed(tmp_path / "root")))
    assert "volumes/data/_data/holes" in (told := _tar(whole)), told
    assert (tmp_path / "out/volumes/data/_data/holes").read_bytes()[5 << 20 :].startswith(b"middle"), told
    assert (tmp_path / "out/end.json").exists(), told


def forged(members: list[tarfile.TarInfo]) -> bytes:
    """What somebody has made by hand, with a digest that is right."""
    out, digest = io.BytesIO(), Digest()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        manifest = Manifest(version="0", schema=SCHEMA, created_at="2026-01-01T00:00:00Z", root="/r")
        _add(archive, MANIFEST, msgspec.json.encode(manifest))
        for info in members:
            digest.begin(info, info.name, [(0, info.size)] if info.size else [], {})
            digest.add(bytes(info.size))
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        _add(archive, END, msgspec.json.encode(End(digest=digest.value())))
    return zstandard.ZstdCompressor().compress(out.getvalue())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _info(name: str, kind: bytes = tarfile.REGTYPE, leads: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.uid, info.gid = kind, leads, size, os.getuid(), os.getgid()
    return info


@pytest.mark.parametrize("way", ["link", "hard", "through", "loose", "long", "database"])
def test_what_a_forged_one_has_outside_is_refused(way: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("kept")
    link = _info("volumes/a", tarfile.SYMTYPE, str(elsewhere))
    members = {
        "link": [link, _info("volumes/a/evil")],
        "hard": [link, _info("volumes/b", tarfile.LNKTYPE, "volumes/a"), _info("volumes/b/evil")],
        "through": [link, _info("volumes/b", tarfile.LNKTYPE, "volumes/a/file")],
        "loose": [_info("volumes", tarfile.SYMTYPE, str(elsewhere)), _info("volumes/evil", tarfile.DIRTYPE)],
        "long": [_info(f"volumes/{'a' * 300}")],
        "database": [_info("state.db", tarfile.SYMTYPE, str(elsewhere / "file"))],
    }
    with pytest.raises(InvalidArgument, match="no backup of hyperd's: it has "):
        restored(forged(members[way]), tmp_path / "other")
    assert os.listdir(elsewhere) == ["file"] and (elsewhere / "file").stat().st_nlink == 1
    assert os.listdir(tmp_path / "other") == []


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="it has 'volumes/a' twice"):
        restored(forged([_info("volumes/a", size=3), _info("volumes/a")]), tmp_path / "other")


def test_a_deep_tree_comes_back(tmp_path: Path) -> None:
    """With the root before them, its paths are longer than a system takes."""
    make_root(tmp_path / "root")
    other = tmp_path / ("o" * 250)
    with emptied(tmp_path):
        dig(tmp_path / "root/volumes/data/_data", 15, "d" * 250)
        restored(packed(tmp_path / "root"), other)
        walk = Walk(other / "volumes/data/_data")
        assert f"{'d' * 250}/" * 15 + "f" in [walk.path() for _ in walk]
