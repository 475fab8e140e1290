# SPDX-License-Identifier: Apache-2.0
"""Trees written as EROFS: read back by a reader of the tests' own, by Debian's tools, and by this host's kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypercontainer.errors import InvalidArgument
from hypercontainer.images.entry import Inode
from hypercontainer.images.erofs.layout import XATTR_VALUE_MAX, XATTRS_MAX
from hypercontainer.images.erofs.writer import Writer
from hypercontainer.images.tree import Node, Tree

from .. import erofs

BLOCK = 4096
SECOND = 10**9
ACL = bytes.fromhex(
    "0200000001000600ffffffff02000700e803000004000400ffffffff10000700ffffffff20000400ffffffff"
)  # u::rw-,u:1000:rwx,g::r--,m::rwx,o::r--


class Made:
    """A tree whose files' contents are in one layer, which is a file."""

    def __init__(self, directory: Path) -> None:
        self.tree = Tree()
        self.directory = directory
        self.layer = tempfile.TemporaryFile(dir=directory)

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        self.layer.close()

    def add(self, path: bytes, inode: Inode) -> Inode:
        """Its directory must be there."""
        *above, name = path.split(b"/")
        node = self.tree.root
        for part in above:
            assert node.children is not None
            node = node.children[part]
        assert node.children is not None
        node.children[name] = Node(inode, 0, {} if inode.type == b"5" else None)
        return inode

    def file(self, path: bytes, *pieces: tuple[int, bytes], size: int | None = None, **how: object) -> Inode:
        """A file of pieces of contents by offset."""
        placed = []
        for offset, data in pieces:
            self.layer.seek(0, os.SEEK_END)
            self.layer.write(b"?" * 7)  # nothing in a layer is aligned
            placed.append((offset, self.layer.tell(), len(data)))
            self.layer.write(data)
        end = size if size is not None else max((o + len(d) for o, d in pieces), default=0)
        return self.add(path, Inode(b"0", 0o644, size=end, pieces=tuple(placed), **how))  # type: ignore[arg-type]

    def link(self, path: bytes, inode: Inode) -> None:
        self.add(path, inode)

    def write(self) -> Path:
        self.layer.flush()
        disk = self.directory / "disk.erofs"
        with open(disk, "w+b") as out:
            Writer(out.fileno(), [(self.layer.fileno(), 0)]).write(self.tree)
        return disk


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with Made(tmp_path) as made:
        yield made


@contextlib.contextmanager
def mounted(disk: Path) -> Iterator[Path]:
    """The disk as this host's kernel sees it."""
    if os.geteuid() != 0 or "erofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("mounts an EROFS")
    with tempfile.TemporaryDirectory() as top:
        done = subprocess.run(
            ["mount", "-t", "erofs", "-o", "ro,loop", disk, top], capture_output=True, text=True, check=False
        )
        if "loop device" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        try:
            yield Path(top)
        finally:
            subprocess.run(["umount", top], check=True)


def check(disk: Path) -> None:
    """By Debian's tool, where it is installed."""
    if fsck := shutil.which("fsck.erofs"):
        done = subprocess.run([fsck, disk], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


# -- any tree -----------------------------------------------------------------------------

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
SIZES = st.one_of(st.sampled_from([0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192]), st.integers(0, 20_000))
IDS = st.one_of(st.integers(0, 70_000), st.just(2**32 - 2))
TIMES = st.integers(-(2**31) * SECOND, 2**34 * SECOND)
XATTRS = st.dictionaries(
    st.tuples(st.sampled_from([b"user.", b"trusted.", b"security."]), NAMES.filter(lambda n: len(n) < 200)).map(
        lambda t: t[0] + t[1]
    ),
    st.one_of(st.binary(max_size=300), st.integers(0, 9000).map(lambda n: b"v" * n)),
    max_size=3,
)
KINDS = st.sampled_from([b"0", b"0", b"0", b"2", b"3", b"4", b"5", b"5", b"6", b"link"])


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[bytes, Inode | int, bytes]]:
    """Paths, parents first, with inodes or the number of the entry that they are a further name of, and contents."""
    found: list[tuple[bytes, Inode | int, bytes]] = []
    directories, taken = [b""], set()
    for n in range(draw(st.integers(0, 12))):
        above = draw(st.sampled_from(directories))
        path = above + b"/" * bool(above) + draw(NAMES)
        kind = draw(KINDS)
        if path in taken:
            continue
        taken.add(path)
        others = [i for i, e in enumerate(found) if isinstance(e[1], Inode) and e[1].type != b"5"]
        if kind == b"link":
            if others:
                found.append((path, draw(st.sampled_from(others)), b""))
            continue
        inode = Inode(kind, draw(st.integers(0, 0o7777)), draw(IDS), draw(IDS), draw(TIMES), xattrs=draw(XATTRS))
        data = b""
        if kind == b"0":
            data = bytes([n + 1]) * draw(SIZES)
        elif kind == b"2":
            inode.link = draw(st.binary(min_size=1, max_size=4095).filter(lambda t: b"\0" not in t))
        elif kind in b"34":
            inode.device = (draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1)))
        elif kind == b"5":
            directories.append(path)
        found.append((path, inode, data))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries())
def test_any_tree_reads_back_as_it_was(what: list[tuple[bytes, Inode | int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Made(Path(directory)) as made:
        for path, inode, data in what:
            if isinstance(inode, int):
                other = what[inode][1]
                assert isinstance(other, Inode)
                made.add(path, other)
            elif inode.type == b"0":
                inode.size = len(data)
                made.layer.seek(0, os.SEEK_END)
                inode.pieces = ((0, made.layer.tell(), len(data)),) if data else ()
                made.layer.write(data)
                made.add(path, inode)
            else:
                made.add(path, inode)
        with erofs.Image(made.write()) as image:
            files = image.tree()
            assert set(files) == {b"", *(path for path, _, _ in what)}
            for path, inode, _ in what:
                same = what[inode] if isinstance(inode, int) else (path, inode, b"")
                _compare(image, files[path], same[1], next(d for p, _, d in what if p == same[0]))
                assert files[path].nid == files[same[0]].nid
                if not stat.S_ISDIR(files[path].mode):
                    assert files[path].links == sum(f.nid == files[path].nid for f in files.values())


def _compare(image: erofs.Image, file: erofs.File, inode: Inode | int, data: bytes) -> None:
    assert isinstance(inode, Inode)
    types = {
        b"0": stat.S_IFREG,
        b"2": stat.S_IFLNK,
        b"3": stat.S_IFCHR,
        b"4": stat.S_IFBLK,
        b"5": stat.S_IFDIR,
        b"6": stat.S_IFIFO,
    }
    assert (file.mode, file.uid, file.gid, file.mtime) == (
        types[inode.type] | inode.mode,
        inode.uid,
        inode.gid,
        inode.mtime,
    )
    assert file.xattrs == inode.xattrs
    if inode.type in b"02":
        assert image.contents(file) == (inode.link or data)
    if inode.type in b"34":
        assert (os.major(file.device), os.minor(file.device)) == inode.device


# -- what is large, or nearly too large -----------------------------------------------------


def tree_of_everything(made: Made) -> dict[str, bytes]:
    """A tree at the limits; the contents of some of its files."""
    contents = {}
    made.add(b"d", Inode(b"5", 0o2755, 70_000, 7, -14_182_939_876_543_211, xattrs={b"user.of": b"directory"}))
    for size in (0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 300_000):
        name = f"d/{size}"
        contents[name] = os.urandom(size)
        made.file(
            name.encode(),
            (0, contents[name]),
            mtime=1_700_000_000 * SECOND + size,
            xattrs={b"user.n": b"v" * size} if size < 5000 else {},
        )
    shared = made.file(b"first", (0, b"shared"), xattrs={b"system.posix_acl_access": ACL})
    made.add(b"many", Inode(b"5", 0o755))
    for n in range(20_000):
        made.link(b"many/" + b"n" * (n % 200) + b"%d" % n, shared)
    made.file(b"N" * 255, (0, b"long"))
    made.add(b"soft", Inode(b"2", 0o777, link=b"t" * 4095))
    made.add(b"short", Inode(b"2", 0o777, link=b"d/1"))
    made.file(b"sparse", (1_000_000, b"middle"), (4_999_999_990, b"end"), size=5 << 30)
    made.file(b"hole", size=6 << 30)
    made.file(
        b"xattrs", xattrs={b"user.a": b"a" * XATTR_VALUE_MAX, b"trusted.b": b"b" * XATTR_VALUE_MAX, b"security.c": b"c"}
    )
    return contents


def test_a_tree_at_the_limits(made: Made) -> None:
    contents = tree_of_everything(made)
    disk = made.write()
    check(disk)
    assert disk.stat().st_size < 8 << 20, "holes take no place"
    with erofs.Image(disk) as image:
        files = image.tree()
        for name, data in contents.items():
            assert image.contents(files[name.encode()]) == data
        assert files[b"first"].links == 20_001
        assert image.contents(files[b"soft"]) == b"t" * 4095
        assert files[b"hole"].size == 6 << 30 and files[b"hole"].extents == []
        assert len(files[b"xattrs"].xattrs[b"user.a"]) == XATTR_VALUE_MAX
        assert len(files) == 20_000 + len(contents) + 10


def test_the_kernel_sees_a_tree_at_the_limits(made: Made) -> None:
    contents = tree_of_everything(made)
    with mounted(made.write()) as top:
        for name, data in contents.items():
            assert (top / name).read_bytes() == data
            assert os.stat(top / name).st_mtime_ns == 1_700_000_000 * SECOND + len(data)
            if len(data) < 5000:
                assert os.getxattr(top / name, "user.n") == b"v" * len(data)
        status = os.stat(top / "d")
        assert (status.st_mtime_ns, status.st_uid, status.st_mode & 0o7777) == (-14_182_939_876_543_211, 70_000, 0o2755)
        assert os.getxattr(top / "first", "system.posix_acl_access") == ACL
        assert os.stat(top / "first").st_nlink == 20_001
        names = sorted(os.listdir(top / "many"))
        assert len(names) == 20_000
        assert {os.stat(top / "many" / n).st_ino for n in names} == {os.stat(top / "first").st_ino}
        assert not (top / "many/none").exists()
        assert (top / ("N" * 255)).read_bytes() == b"long"
        assert os.readlink(top / "soft") == "t" * 4095 and os.readlink(top / "short") == "d/1"
        with open(top / "sparse", "rb") as f:
            f.seek(1_000_000)
            assert f.read(8) == b"middle\0\0"
            f.seek(4_999_999_988)
            assert f.read(6) == b"\0\0end\0"
            assert os.lseek(f.fileno(), 1 << 30, os.SEEK_DATA) > 4 << 30
        assert {n: len(os.getxattr(top / "xattrs", n)) for n in os.listxattr(top / "xattrs")} == {
            "user.a": XATTR_VALUE_MAX,
            "trusted.b": XATTR_VALUE_MAX,
            "security.c": 1,
        }


def test_65000_names_of_one_file(made: Made) -> None:
    one = made.file(b"0", (0, b"x"))
    for n in range(1, 65_000):
        made.link(b"%d" % n, one)
    disk = made.write()
    assert erofs.tree(disk)[b"64999"].links == 65_000


def test_the_same_tree_makes_the_same_disk_and_another_has_another_name(tmp_path: Path) -> None:
    """overlayfs knows by the volume's name and the inode's number where a file was copied up from."""
    disks = []
    for n, name in enumerate((b"a", b"a", b"b")):
        directory = tmp_path / str(n)
        directory.mkdir()
        with Made(directory) as made:
            made.file(name, (0, name))
            disks.append(made.write())
    assert disks[0].read_bytes() == disks[1].read_bytes()
    uuids = []
    for disk in disks:
        with erofs.Image(disk) as image:
            uuids.append(image.uuid)
    assert uuids[0] == uuids[1] != uuids[2] and any(uuids[0])


def test_a_layer_that_ends_within_a_file(made: Made) -> None:
    for size in (10, 1 << 20):
        made.add(b"f", Inode(b"0", 0o644, size=size, pieces=((0, 0, size),)))
        with pytest.raises(InvalidArgument, match="ends within a file"):
            made.write()


def test_paths_that_nobody_can_open(made: Made) -> None:
    path = b"d" * 255
    for _ in range(17):
        made.add(path, Inode(b"5", 0o755))
        path += b"/" + b"d" * 255
    with pytest.raises(InvalidArgument, match="a path of more than 4096 bytes"):
        made.write()


def test_attributes_up_to_what_an_inode_holds(made: Made) -> None:
    room = XATTRS_MAX - 12
    attributes: Mapping[bytes, bytes] = {b"user.%d" % n: b"x" * (room // 4 - 8) for n in range(4)}
    made.file(b"f", (0, b"contents"), xattrs=attributes)
    with erofs.Image(made.write()) as image:
        file = image.tree()[b"f"]
        assert file.xattrs == attributes and image.contents(file) == b"contents"
