# SPDX-License-Identifier: Apache-2.0
"""cp against a daemon that answers with whatever a hostile guest could send; nothing of this host may change."""

from __future__ import annotations

import contextlib
import io
import os
import socketserver
import stat
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.hyperctl.cli import run

ID = b"0123456789abcdef" * 4  # of what a request makes


class Guest:
    """A daemon of one answer: a tar stream; what is sent to it is kept.

    `answers` holds further ones, by how the request begins.
    """

    def __init__(self) -> None:
        self.answer = b""
        self.answers: dict[bytes, bytes] = {}
        self.got: list[bytes] = []

    def serve(self, path: Path) -> socketserver.UnixStreamServer:
        guest = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                first = self.rfile.readline()
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    chunked = line.lower().startswith(b"transfer-encoding")
                    if chunked:
                        guest.got.append(b"")
                if first.startswith(b"PUT"):
                    while size := int(self.rfile.readline(), 16):
                        guest.got[-1] += self.rfile.read(size)
                        self.rfile.readline()
                body = guest.answer if b"/archive?" in first and first.startswith(b"GET") else b"{}"
                if b"/archive/stat" in first:
                    body = b'{"name":"t","size":0,"mode":493,"mtime":0,"isDir":true,"linkTarget":""}'
                body = next((b for begin, b in guest.answers.items() if first.startswith(begin)), body)
                head = b"HTTP/1.1 200 OK\r\nHyper-Id: %s\r\nContent-Length: %d\r\n\r\n" % (ID, len(body))
                with contextlib.suppress(BrokenPipeError):  # it has read enough
                    self.wfile.write(head + body)

        return socketserver.ThreadingUnixStreamServer(str(path), Handler)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    made = Guest()
    with tempfile.TemporaryDirectory(prefix="cp") as short, made.serve(Path(short) / "s") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HYPER_HOST", str(Path(short) / "s"))
        old = os.umask(0o022)
        yield made
        os.umask(old)
        server.shutdown()
        thread.join()


def entry(name: str, content: bytes = b"", **how: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for key, value in how.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=to)


def hard(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=to)


def tar(*entries: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as made:
        for info, content in entries:
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


EVIL = b"evil"


def attacks(v: str, base: str) -> dict[str, list[tuple[tarfile.TarInfo, bytes]]]:
    """Streams that want to write to the file or directory `v` outside; the path that was asked for is called `base`."""
    d = directory(f"{base}/")
    return {
        "symlink, then a file of its name": [d, link(f"{base}/x", f"{v}/file"), entry(f"{base}/x", EVIL)],
        "symlink as the first entry": [link(base, f"{v}/file"), entry(base, EVIL)],
        "symlinked directory": [d, link(f"{base}/x", v), entry(f"{base}/x/new", EVIL)],
        "directory over a symlink": [d, link(f"{base}/x", v), directory(f"{base}/x/"), entry(f"{base}/x/new", EVIL)],
        "directory over a symlink to change its mode": [d, link(f"{base}/x", v), directory(f"{base}/x/", 0o777)],
        "directory, then symlink": [d, directory(f"{base}/x/"), link(f"{base}/x", v), entry(f"{base}/x/new", EVIL)],
        "hard link through a symlink": [
            d,
            link(f"{base}/x", v),
            hard(f"{base}/y", f"{base}/x/file"),
            entry(f"{base}/y", EVIL),
        ],
        "hard link to a symlink": [
            d,
            link(f"{base}/x", f"{v}/file"),
            hard(f"{base}/y", f"{base}/x"),
            entry(f"{base}/y", EVIL),
        ],
        "hard link to outside": [d, hard(f"{base}/y", f"{v}/file"), entry(f"{base}/y", EVIL)],
        "hard link upwards": [d, hard(f"{base}/y", f"{base}/../../victim/file"), entry(f"{base}/y", EVIL)],
        "hard link to the top": [d, hard(f"{base}/y", base), entry(f"{base}/y", EVIL)],
        "hard link beside": [d, hard(f"{base}/y", "beside"), entry(f"{base}/y", EVIL)],
        "a chain of symlinks": [d, link(f"{base}/a", "b"), link(f"{base}/b", v), entry(f"{base}/a/new", EVIL)],
        "absolute name": [d, entry(f"{v}/new", EVIL)],
        "upward name": [d, entry(f"{base}/../../victim/new", EVIL)],
        "upward name at the end": [d, entry(f"{base}/..", type=tarfile.SYMTYPE, linkname="/")],
        "a name beside the one asked for": [d, entry("beside", EVIL)],
        "a name that begins like it": [d, entry(f"{base}x/../../victim/new", EVIL), entry(f"{base}beside", EVIL)],
        "another first name": [directory(".ssh/"), entry(".ssh/authorized_keys", EVIL)],
        "a long upward name": [d, entry(f"{base}/" + "x/../" * 60 + "../../victim/new", EVIL)],
        "device": [d, entry(f"{base}/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        "block device": [d, entry(f"{base}/disk", type=tarfile.BLKTYPE, devmajor=8)],
        "fifo": [d, entry(f"{base}/fifo", type=tarfile.FIFOTYPE)],
        "NUL in a name": [d, entry(f"{base}/x", EVIL, pax_headers={"path": f"{base}/x\0/../../victim/new"})],
        "an endless name": [d, entry(f"{base}/" + "y" * 200_000, EVIL)],
        "an enormous name's header": [d, entry("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=0)],
        "an owner that is none": [d, entry(f"{base}/x", EVIL, pax_headers={"uid": "-7", "gid": "99999999999"})],
        "a time that is none": [d, entry(f"{base}/x", EVIL, pax_headers={"mtime": "1e400"})],
    }


def world(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a directory: kind and mode, time, links, content."""
    found = {}
    for path in [root, *root.rglob("*")]:
        s = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.readlink(path).encode()
        elif stat.S_ISREG(s.st_mode):
            content = path.read_bytes()
        found[str(path)] = (s.st_mode, s.st_mtime_ns, s.st_nlink, content)
    return found


def victim(root: Path) -> Path:
    """What must stay as it is."""
    (root / "victim").mkdir(parents=True)
    (root / "victim/file").write_text("precious")
    os.utime(root / "victim/file", (1, 1))
    os.utime(root / "victim", (1, 1))
    return root / "victim"


@pytest.mark.parametrize(
    "how", ["into a directory", "a second time", "to a new name", "its contents", "its root", "keeping owners"]
)
@pytest.mark.parametrize("attack", attacks("", "").keys())
def test_nothing_is_written_elsewhere(guest: Guest, tmp_path: Path, attack: str, how: str) -> None:
    outside = victim(tmp_path / "outside")
    home = tmp_path / "outside/home"
    home.mkdir()
    contents = how in ("its contents", "its root")
    base = "." if contents else "results"
    guest.answer = tar(*attacks(str(outside), base)[attack])
    source = {"its contents": "box:/srv/results/.", "its root": "box:/"}.get(how, "box:/srv/results")
    into = str(home / "new") if how == "to a new name" else str(home)
    before = world(tmp_path / "outside" / "victim"), sorted(os.listdir(tmp_path / "outside"))
    for _ in range(2 if how == "a second time" else 1):
        try:
            run(["cp", *(["-a"] if how == "keeping owners" else []), source, into])
        except HyperError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 1000
    assert (world(tmp_path / "outside" / "victim"), sorted(os.listdir(tmp_path / "outside"))) == before
    # Nothing appears in the target but what was asked for, no half-made file is left, nothing is a device.
    if not contents:
        assert set(os.listdir(home)) <= {"results", "new"}
    for path in home.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode), path
        assert ".hyperctl" not in path.name
        assert path.lstat().st_uid == os.getuid()


def test_an_enormous_header_takes_no_memory(guest: Guest, tmp_path: Path) -> None:
    """A name of 8 GiB is refused by its header."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    guest.answer = tar(directory("d/"))[:512] + header + bytes(1 << 20)
    with pytest.raises(HyperError, match="header"):
        run(["cp", "box:/d", str(tmp_path)])


@pytest.mark.parametrize("special", [0o4755, 0o2755, 0o1777, 0o6711])
def test_modes_are_those_of_a_new_file(guest: Guest, tmp_path: Path, special: int) -> None:
    os.umask(0o027)
    guest.answer = tar(directory("d/", special), entry("d/program", b"#!", mode=special))
    run(["cp", "-a", "box:/d", str(tmp_path)])
    for path in (tmp_path / "d", tmp_path / "d/program"):
        assert stat.S_IMODE(path.stat().st_mode) == special & 0o777 & ~0o027


def test_a_planted_link_of_the_targets_name_is_replaced(guest: Guest, tmp_path: Path) -> None:
    outside = victim(tmp_path / "outside")
    home = tmp_path / "home"
    home.mkdir()
    (home / "f").symlink_to(outside / "file")
    before = world(outside)
    guest.answer = tar(entry("f", b"new"))
    for target in (str(home), str(home / "f")):
        run(["cp", "box:/f", target])
        assert (home / "f").read_bytes() == b"new" and not (home / "f").is_symlink()
        assert world(outside) == before
        (home / "f").unlink()
        (home / "f").symlink_to(outside / "file")


def test_devices_of_this_host_are_not_replaced(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    guest.answer = tar(entry("fifo", b"x"))
    for target in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(HyperError):
            run(["cp", "box:/fifo", str(target)])
        assert stat.S_ISFIFO((tmp_path / "fifo").lstat().st_mode)


def test_a_tree_is_copied_whole(guest: Guest, tmp_path: Path) -> None:
    name = "n" * 150
    guest.answer = tar(
        directory("d/"), directory("d/locked/", 0o555), entry("d/locked/f", b"inside", mode=0o400, mtime=1234567890),
        link("d/dangling", "/nowhere"), hard("d/same", "d/locked/f"), entry(f"d/{name}/{name}", b"long"),
        entry("d/a\udcffb", b"bytes"), entry("d//./dots", b"dots"), entry("d/twice", b"1"), entry("d/twice", b"2"),
    )  # fmt: skip
    run(["cp", "box:/srv/d", str(tmp_path)])
    d = tmp_path / "d"
    assert (d / "locked/f").read_bytes() == b"inside" and stat.S_IMODE((d / "locked/f").stat().st_mode) == 0o400
    assert stat.S_IMODE((d / "locked").stat().st_mode) == 0o555 and (d / "locked/f").stat().st_mtime == 1234567890
    assert os.readlink(d / "dangling") == "/nowhere" and (d / "same").samefile(d / "locked/f")
    assert (
        (d / name / name).read_bytes() == b"long"
        and (d / "twice").read_bytes() == b"2"
        and (d / "dots").read_bytes() == b"dots"
    )
    assert b"a\xffb" in os.listdir(os.fsencode(d))
    run(["cp", "box:/srv/d/.", str(tmp_path / "elsewhere")])
    assert (tmp_path / "elsewhere/locked/f").read_bytes() == b"inside"
    for path in (d / "locked", tmp_path / "elsewhere/locked"):
        path.chmod(0o755)


def test_zeros_become_holes(guest: Guest, tmp_path: Path) -> None:
    data = bytes(5 << 20) + b"x" + bytes(300_001) + b"y" * 70_000 + bytes(3)
    guest.answer = tar(directory("t/"), entry("t/f", data), entry("t/end", bytes(1 << 20)), entry("t/none", b""))
    assert run(["cp", "box:/t", str(tmp_path / "t")]) == 0
    assert (tmp_path / "t/f").read_bytes() == data and (tmp_path / "t/none").read_bytes() == b""
    assert (tmp_path / "t/end").read_bytes() == bytes(1 << 20)
    assert [(tmp_path / "t" / n).stat().st_blocks * 512 <= most for n, most in (("f", 512 << 10), ("end", 0))] == [
        True, True
    ]  # fmt: skip


def test_following_a_link_keeps_the_name_asked_for(guest: Guest, tmp_path: Path) -> None:
    guest.answer = tar(directory("real/"), entry("real/f", b"x"))
    run(["cp", "-L", "box:/srv/link", str(tmp_path)])
    assert sorted(os.listdir(tmp_path)) == ["link"] and (tmp_path / "link/f").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("answer", "setup", "says"),
    [
        (lambda: tar(entry("d", b"x")), lambda p: (p / "d").mkdir(), "directory"),
        (lambda: tar(directory("d/")), lambda p: (p / "d").write_text(""), "directory"),
        (lambda: tar(entry("d", b"x" * 5000))[:3000], lambda p: None, "broke off"),
        (lambda: b"\xff" * 2000, lambda p: None, "not understood"),
        (lambda: b"", lambda p: None, "no such path"),
    ],
    ids=["file over directory", "directory over file", "cut", "garbage", "empty"],
)
def test_what_cannot_be_copied(
    guest: Guest, tmp_path: Path, answer: Callable[[], bytes], setup: Callable[[Path], object], says: str
) -> None:
    setup(tmp_path)
    guest.answer = answer()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(HyperError, match=says):
        run(["cp", "box:/d", str(tmp_path)])
    assert sorted(os.listdir(tmp_path)) == before


def test_into_a_container_go_names_of_any_bytes(guest: Guest, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / os.fsdecode(b"a\xffb")).write_text("bytes")
    (tree / "link").symlink_to("/etc/shadow")
    os.mkfifo(tree / "fifo")
    run(["cp", str(tree), "box:/srv"])
    with tarfile.open(fileobj=io.BytesIO(guest.got[-1])) as sent:
        members = {m.name: m for m in sent.getmembers()}
    assert members["tree/link"].issym() and members["tree/fifo"].isfifo() and "tree/a\udcffb" in members
