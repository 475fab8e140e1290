# SPDX-License-Identifier: Apache-2.0
"""commit: the layer that hyperstart makes of what a container has changed is what it has changed."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.resolve import OWN_FILES
from hypercontainer.errors import GuestError
from hypercontainer.model.images import CommitRequest
from hypercontainer.model.specs import ContainerSpec, Mount

from .conftest import DEADLINE, Lab

SLEEP = ("sleep", "1000")
_CHANGES = (
    "set -e; mkdir -p /kept/deep /gone; echo 1 > /kept/deep/f; ln /kept/deep/f /kept/hard;"
    "ln -s deep/f /kept/soft; mkfifo /kept/pipe; mknod /kept/null c 1 3;"
    "echo x > /kept/setuid; chmod 6755 /kept/setuid;"
    "chown 1000:65534 /kept/deep; echo more >> /etc/group; rm /etc/passwd; chmod 1777 /kept;"
    f"echo long > /kept/{'n' * 200}; : > /kept/empty;"
    "touch -d '1999-12-31 23:59:58' /kept/empty; rm -rf /var; mkdir /var; echo anew > /var/anew;"
    "rm -rf /home; echo a file now > /home; echo secret > /data/f; rm -rf /gone"
)


async def everything(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([c async for c in chunks])


def tree(archive: bytes) -> dict[str, Any]:
    """All of a root file system but what each start makes: by path."""
    found: dict[str, Any] = {}
    links: dict[str, set[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for m in tar:
            name = m.name.removeprefix(".").lstrip("/")
            records = {k: v for k, v in m.pax_headers.items() if k.startswith("SCHILY")}
            if m.islnk():
                links.setdefault(m.linkname.removeprefix(".").lstrip("/"), set()).add(name)
                continue
            contents = tar.extractfile(m)
            found[name] = (
                m.type, oct(m.mode), m.uid, m.gid, None if m.isdir() else m.pax_headers.get("mtime", m.mtime),
                m.linkname, (m.devmajor, m.devminor), records, contents.read() if contents else None,
            )  # fmt: skip
    for first, others in links.items():
        for name in others:
            found[name] = found[first]
    return found | {"hard links": {frozenset({first, *others}) for first, others in links.items()}}


def with_attributes() -> bytes:
    """A file with extended attributes, an access control list among them: version 2 of acl(5), an entry for user 7."""
    entries = (1, 6, -1), (2, 4, 7), (4, 4, -1), (16, 4, -1), (32, 0, -1)  # tag, permissions, number
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("attributes")
        info.size, info.mode = 4, 0o640
        access = acl.decode("utf-8", "surrogateescape")
        info.pax_headers = {"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.system.posix_acl_access": access}
        tar.addfile(info, io.BytesIO(b"body"))
    return out.getvalue()


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def start(lab: Lab, image: str = "busybox", **how: Any) -> str:
    container = await lab.engine.containers.create(ContainerSpec(image=image, command=list(SLEEP), **how))
    await asyncio.wait_for(lab.engine.containers.start(container.id), DEADLINE)
    return container.id


async def test_an_image_of_a_container_has_its_files(lab: Lab, tmp_path: Path) -> None:
    engine = lab.engine
    id_ = await start(lab, mounts=[Mount(target="/data", source="kept"), Mount(target="/srv/deep/in", type="tmpfs")])
    made = await lab.exec(id_, "sh", "-c", _CHANGES)
    assert made.code == 0, made.err
    await engine.archives.write(id_, "/kept", one(with_attributes()))
    before = tree(await everything(engine.archives.export(id_)))
    request = CommitRequest(
        reference="made:1", author="me", message="all of it", changes=['CMD ["sleep", "1000"]', "ENV A=1"]
    )
    loaded = await asyncio.wait_for(engine.commits.commit(id_, request), DEADLINE)
    assert engine.registry.container(id_).state.status == "running"
    assert loaded.names == ["docker.io/library/made:1"]
    image, base = engine.images.describe("made:1"), engine.images.describe("busybox")
    assert image.layers[:-1] == base.layers and len(image.layers) == len(base.layers) + 1
    assert (image.author, image.comment) == ("me", "all of it") and "A=1" in image.config["Env"]
    again = await start(lab, "made:1")
    after = tree(await everything(engine.archives.export(again)))
    for found in (before, after):  # mount points, which each container has of its own
        for name in ("data", "srv/deep/in", "srv/deep", "srv", *(path[1:] for path in OWN_FILES)):
            found.pop(name, None)
    assert after == before
    assert "kept/attributes" in after and after["kept/attributes"][7]["SCHILY.xattr.user.note"] == "kept"
    assert frozenset({"kept/deep/f", "kept/hard"}) in after["hard links"] and "etc/passwd" not in after
    assert {n for n in after if n.startswith("var")} == {"var", "var/anew"} and after["home"][8] == b"a file now\n"
    assert (await lab.exec(again, "ls", "/data")).code != 0, "nothing of the volume is in it"
    nothing = await asyncio.wait_for(engine.commits.commit(again, CommitRequest()), DEADLINE)
    assert nothing.image.config.rootfs.diff_ids == loaded.image.config.rootfs.diff_ids, "an empty layer is none"
    assert nothing.image.config.history and nothing.image.config.history[-1].empty_layer
    await asyncio.to_thread(
        _unpacked, await everything(engine.images.save(["made:1"], "oci-archive")), tmp_path, before
    )
    await engine.containers.remove(id_, force=True)
    await engine.volumes.remove("kept")


def _unpacked(archive: bytes, directory: Path, expected: dict[str, Any]) -> None:
    """umoci, which has its own idea of layers, makes the same files of it."""
    (directory / "image.tar").write_bytes(archive)
    said = subprocess.run(["skopeo", "copy", "-q", f"oci-archive:{directory}/image.tar", f"oci:{directory}/oci:t"],
                          capture_output=True, text=True)  # fmt: skip
    assert said.returncode == 0, said.stderr
    command = ["umoci", "raw", "unpack", "--image", f"{directory}/oci:t", str(directory / "root")]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    root = directory / "root"
    files = {str(p.relative_to(root)) for p in root.rglob("*")}
    ours = {n for n in expected if n and n not in ("hard links", "dev", "proc", "sys")}
    assert files - ours == set() and {n for n in ours - files if not n.startswith("dev/")} == set()
    for name in ("kept/deep/f", "kept/attributes", "etc/group", "var/anew", "home"):
        assert (root / name).read_bytes() == expected[name][8], name
    assert (root / "kept/setuid").stat().st_mode & 0o7777 == 0o6755 and (root / "kept/deep").stat().st_uid == 1000
    assert (root / "kept/hard").stat().st_ino == (root / "kept/deep/f").stat().st_ino


async def test_of_one_that_does_not_run(lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", "echo once > /once; rm /etc/group")
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 0
    await asyncio.wait_for(lab.engine.commits.commit(id_, CommitRequest(reference="once")), DEADLINE)
    assert lab.engine.registry.container(id_).state.status == "exited"
    container = await lab.engine.containers.create(ContainerSpec(image="once", command=["cat", "/once", "/etc/group"]))
    await asyncio.wait_for(lab.engine.containers.start(container.id), DEADLINE)
    await lab.printed(container.id, "No such file or directory")
    await lab.printed(container.id, "once")


async def test_what_a_layer_cannot_have_is_told(lab: Lab) -> None:
    id_ = await start(lab)
    assert (await lab.exec(id_, "touch", "/tmp/.wh.x")).code == 0
    before = lab.engine.images.count()
    with pytest.raises(GuestError, match=r"tmp/\.wh\.x: a layer cannot have a file whose name begins with \.wh\."):
        await asyncio.wait_for(lab.engine.commits.commit(id_, CommitRequest(reference="no")), DEADLINE)
    assert lab.engine.images.count() == before and lab.engine.registry.container(id_).state.status == "running"
