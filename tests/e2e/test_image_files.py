# SPDX-License-Identifier: Apache-2.0
"""What a container sees of its image's files: access control lists, attributes, times; before a change and after."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.images import acl
from tests.unit.layouts import END, Maker, header

from .conftest import Daemon

TOOLS = ("getfacl", "setfacl", "getfattr", "stat")
APPLETS = ("cat", "chmod")  # of busybox
DEFAULT = [acl.Entry(1, 7), acl.Entry(2, 5, 1000), acl.Entry(4, 5), acl.Entry(0x10, 5), acl.Entry(0x20, 0)]
ACCESS = [acl.Entry(1, 6), acl.Entry(2, 7, 1000), acl.Entry(4, 4), acl.Entry(0x10, 7), acl.Entry(0x20, 4)]
XATTR = "SCHILY.xattr."


def text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def entry(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "", **pax: str
) -> bytes:
    info = tarfile.TarInfo(name)
    info.linkname = link
    info.size, info.type, info.mode, info.pax_headers = len(data), kind, mode, pax
    return info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape") + data + bytes(-len(data) % 512)


def programs() -> Iterator[bytes]:
    """Busybox, the tools, and the libraries that these need, from this host."""
    static = shutil.which("busybox")
    assert static
    yield entry("bin/sh", Path(static).read_bytes(), mode=0o755)
    for applet in APPLETS:
        yield entry(f"bin/{applet}", kind=tarfile.LNKTYPE, link="bin/sh")
    needed = set()
    for tool in TOOLS:
        path = shutil.which(tool)
        assert path, f"{tool} is not installed"
        yield entry(f"bin/{tool}", Path(path).read_bytes(), mode=0o755)
        done = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
        needed |= set(re.findall(r"(/\S+) \(0x", done.stdout))
    for library in sorted(needed):
        yield entry(library.lstrip("/"), Path(library).read_bytes(), mode=0o755)


@pytest.fixture(scope="module")
def image(shared: Daemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its name; pulled without a warning."""
    make = Maker(tmp_path_factory.mktemp("files") / "layout")
    access, default = f"{XATTR}system.posix_acl_access", f"{XATTR}system.posix_acl_default"
    files = [
        entry("srv/listed", b"x", **{access: text(acl.encode(ACCESS)), "mtime": "1700000000.123456789"}),
        entry("srv/inherit", kind=tarfile.DIRTYPE, mode=0o750, **{default: text(acl.encode(DEFAULT))}),
        entry("srv/words", b"x", **{"SCHILY.acl.access": "user::rw-,user:joe:r--:7,group::r--,mask::r--,other::---"}),
        entry("srv/plain", b"x", mtime="1700000000.5"),
        entry("srv/moon", b"one small step", mtime="-14182939.876543211"),
        entry("srv/attributes", b"x", **{f"{XATTR}user.of": "image", f"{XATTR}trusted.too": "yes"}),
        header("srv/sparse", size=512, GNU__sparse__map="300000000,512", GNU__sparse__size="400000000") + b"e" * 512,
    ]
    source = make.image(make.layer([*programs(), *files, END]))
    told = shared.ctl("pull", source)
    assert "Left out" not in told.stdout + told.stderr
    return source


def test_files_of_an_image_are_as_they_were_made(hyper: Daemon, image: str) -> None:
    script = """
        cd /srv
        getfacl -cn listed inherit words
        /bin/stat -c '%n %y' listed plain moon
        getfattr -d --absolute-names -m 'user|trusted' attributes
    """
    seen = """
        user::rw- user:1000:rwx group::r-- mask::rwx other::r--
        user::rwx group::r-x other::---
        default:user::rwx default:user:1000:r-x default:group::r-x default:mask::r-x default:other::---
        user::rw- user:7:r-- group::r-- mask::r-- other::---
        listed 2023-11-14 22:13:20.123456789 +0000
        plain 2023-11-14 22:13:20.500000000 +0000
        moon 1969-07-20 20:17:40.123456789 +0000
        # file: attributes trusted.too="yes" user.of="image"
    """
    assert hyper.out("run", "--rm", "--privileged", image, "sh", "-c", script).split() == seen.split()


def test_lists_and_times_stay_when_a_file_is_copied_up(hyper: Daemon, image: str) -> None:
    script = """
        cd /srv
        setfacl -m u:5:r plain
        setfacl -m u:6:w listed
        getfacl -cn plain listed
        sh -c 'umask 077; echo > inherit/new'
        getfacl -cn inherit/new
        chmod 600 moon
        /bin/stat -c '%y %a' moon
        echo more >> sparse
        /bin/stat -c '%s' sparse
    """
    seen = """
        user::rw- user:5:r-- group::r-- mask::r-- other::r--
        user::rw- user:6:-w- user:1000:rwx group::r-- mask::rwx other::r--
        user::rw- user:1000:r-x #effective:r-- group::r-x #effective:r-- mask::r-- other::---
        1969-07-20 20:17:40.123456789 +0000 600
        400000005
    """
    assert hyper.out("run", "--rm", image, "sh", "-c", script).split() == seen.split()


def test_a_list_lets_in_who_it_names(hyper: Daemon, image: str) -> None:
    hyper.ctl("run", "--rm", "--user", "1000:1000", image, "sh", "-c", "echo y >> /srv/listed")
    refused = hyper.ctl("run", "--rm", "--user", "1001:1001", image, "sh", "-c", "echo y >> /srv/listed", check=False)
    assert refused.returncode != 0 and "ermission denied" in refused.stderr
    for user, may in ((7, True), (8, False)):
        done = hyper.ctl("run", "--rm", "--user", f"{user}:{user}", image, "cat", "/srv/words", check=False)
        assert (done.returncode == 0) == may
