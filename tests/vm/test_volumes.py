# SPDX-License-Identifier: Apache-2.0
"""Volumes and injected files in real VMs."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Conflict, HyperError, InvalidArgument, NotFound
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.specs import ContainerSpec, Mount
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab
from .test_pods import SLEEP, Pods, pods

__all__ = ["pods"]


def two(volume: dict[str, Any] | None, *mounts: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """A podfile of two containers that mount the same."""
    containers = [{"name": n, "command": SLEEP, "volumes": list(mounts)} for n in ("a", "b")]
    return {"id": "p", "containers": containers, "volumes": [volume] if volume else [], **extra}


def written(path: Path) -> bytes:
    """A file without its holes: disks of 16 GiB have few bytes."""
    parts, at = [], 0
    with open(path, "rb") as f:
        end = os.fstat(f.fileno()).st_size
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            parts.append(os.pread(f.fileno(), stop - at, at))
            at = stop
    return b"".join(parts)


@pytest.mark.parametrize(
    "volume",
    [{"name": "v"}, {"name": "v", "fstype": "xfs", "size": "400m"}, {"name": "v", "format": "qcow2"},
     {"name": "v", "format": "tmpfs", "size": "4m"}],
    ids=["ext4", "xfs", "qcow2", "tmpfs"],
)  # fmt: skip
async def test_shared_between_containers(pods: Pods, volume: dict[str, Any]) -> None:
    await pods.run(**two(volume, {"volume": "v", "path": "/data"}))
    await pods.exec("a", "echo from-a > /data/file")
    assert await pods.exec("b", "cat /data/file") == "from-a"
    kind = await pods.exec("b", "awk '$2 == \"/data\" {print $3}' /proc/mounts")
    assert kind == volume.get("fstype", "tmpfs" if volume.get("format") == "tmpfs" else "ext4")


async def test_named_volumes_keep_their_data(pods: Pods, lab: Lab) -> None:
    await lab.engine.volumes.create(VolumeSpec(name="keep", size=64 << 20))
    try:
        id_ = await pods.run(**two({"name": "v", "source": "keep"}, {"volume": "v", "path": "/data"}))
        await pods.exec("a", "echo precious > /data/file")
        with pytest.raises(Conflict, match="volume keep is in use by p"):
            await lab.engine.volumes.remove("keep")
        other = await pods.create(
            id="q", containers=[{"name": "c", "command": SLEEP, "volumes": [{"volume": "keep", "path": "/x"}]}]
        )
        with pytest.raises(
            Conflict, match="volume keep is in use by the running pod p: a block volume serves one at a time"
        ):
            await pods.engine.pods.start(other)
        await pods.engine.pods.stop(id_, 0)
        await pods.engine.pods.start(id_)
        assert await pods.exec("b", "cat /data/file") == "precious"
        await pods.engine.pods.remove(id_, force=True)
        await pods.engine.pods.start(other)
        assert await pods.exec("c", "cat /x/file") == "precious"
        await pods.engine.pods.remove(other, force=True)
        info = await lab.engine.volumes.info(lab.engine.registry.volume("keep"))
        assert info.used_by == [] and 0 < info.disk_usage < 64 << 20
    finally:
        assert "keep" in (await lab.engine.volumes.prune(everything=True)).removed
    assert not lab.engine.settings.paths.volume("keep").exists()


async def test_directories_of_the_host(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir(mode=0o755)
    (tmp_path / "dir/file").write_text("hello")
    (tmp_path / "single").write_text("one file")
    (tmp_path / "locked").mkdir()
    await pods.run(
        containers=[
            {
                "name": "a",
                "command": SLEEP,
                "volumes": [
                    {"path": "/data", "volume": "d"},
                    {"path": "/etc/single", "volume": "s"},
                    {"path": "/ro", "volume": "r"},
                    {"path": "/half", "volume": "d", "readOnly": True},
                ],
            },
        ],
        volumes=[
            {"name": "d", "format": "vfs", "source": str(tmp_path / "dir")},
            {"name": "s", "format": "vfs", "source": str(tmp_path / "single")},
            {"name": "r", "format": "vfs", "source": str(tmp_path / "locked"), "readOnly": True},
        ],
    )
    assert await pods.exec("a", "awk '$2 == \"/data\" {print $3}' /proc/mounts") == "virtiofs"
    assert await pods.exec("a", "cat /data/file /half/file /etc/single") == "hellohelloone file"
    await pods.exec(
        "a", "echo written > /data/new; chown 1234:567 /data/new; chmod 600 /data/new; ln -s new /data/link"
    )
    made = (tmp_path / "dir/new").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (1234, 567, 0o600)
    assert (tmp_path / "dir/link").readlink() == Path("new")
    for path in ("/ro/x", "/half/x"):
        assert (await pods.lab.exec("a", "touch", path)).code == 1
    # The host says no as well, not only the guest's mount flags.
    remount = await pods.lab.exec("a", "sh", "-c", "mount -o remount,rw,bind /ro && touch /ro/x", privileged=True)
    assert remount.code != 0 and list((tmp_path / "locked").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


async def test_sub_paths_stay_in_their_volume(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/leave").symlink_to("../outer")
    (tmp_path / "outer").mkdir()
    volume = {"name": "d", "format": "vfs", "source": str(tmp_path / "inner")}
    await pods.run(**two(volume, {"volume": "d", "path": "/data", "subPath": "made/here"}))
    await pods.exec("a", "touch /data/x")
    assert (tmp_path / "inner/made/here/x").exists()
    await pods.engine.pods.remove("p", force=True)
    with pytest.raises(HyperError, match="path leave leaves its volume"):
        await pods.run(**two(volume, {"volume": "d", "path": "/data", "subPath": "leave"}))
    await pods.engine.pods.remove("p", force=True)
    with pytest.raises(InvalidArgument, match=r"sub-path '\.\./outer' leaves its volume"):
        await pods.create(**two(volume, {"volume": "d", "path": "/data", "subPath": "../outer"}))


async def test_an_empty_volume_gets_what_the_image_has(pods: Pods) -> None:
    await pods.run(**two({"name": "v"}, {"volume": "v", "path": "/etc"}))
    assert "root" in await pods.exec("a", "cat /etc/passwd")
    await pods.exec("a", "echo changed > /etc/passwd")
    assert await pods.exec("b", "cat /etc/passwd") == "changed"


async def test_disk_images_of_the_user(pods: Pods, tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    (tmp_path / "content").mkdir()
    (tmp_path / "content/hello").write_text("from the host")
    subprocess.run(["mkfs.ext4", "-q", "-d", tmp_path / "content", raw, "20M"], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, qcow2], check=True)
    await pods.run(
        containers=[
            {
                "name": "a",
                "command": SLEEP,
                "volumes": [{"path": "/raw", "volume": "r"}, {"path": "/cow", "volume": "q"}],
            }
        ],
        volumes=[
            {"name": "r", "source": str(raw), "format": "raw"},
            {"name": "q", "source": str(qcow2), "format": "qcow2", "cache": "none"},
        ],
    )
    assert await pods.exec("a", "cat /raw/hello /cow/hello; echo more > /cow/more") == "from the hostfrom the host"


async def test_bad_sources(pods: Pods, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="volume v: the source /none/such does not exist"):
        await pods.create(
            **two({"name": "v", "source": "/none/such", "format": "vfs"}, {"volume": "v", "path": "/data"})
        )
    garbage = tmp_path / "garbage"
    garbage.write_bytes(os.urandom(1 << 20))
    id_ = await pods.create(
        **two({"name": "v", "source": str(garbage), "format": "raw"}, {"volume": "v", "path": "/data"})
    )
    with pytest.raises(HyperError, match="container [ab]: volume v: mounting it as ext4 or xfs failed"):
        await pods.engine.pods.start(id_)
    await pods.engine.pods.remove(id_, force=True)
    with pytest.raises(InvalidArgument, match="write it as SERVER:/PATH"):
        await pods.create(
            **{**two({"name": "v", "source": "nowhere", "format": "nas"}, {"volume": "v", "path": "/d"}), "id": "x"}
        )


async def test_a_directory_joins_a_running_pod(pods: Pods, tmp_path: Path) -> None:
    """Of one that has none, and by a container that comes later, as a volume does."""
    (tmp_path / "here").write_text("of the host")
    id_ = await pods.run(exitPolicy="continue", containers=[{"name": "a", "command": SLEEP}])
    for mount, script in (
        (Mount(target="/d", type="bind", source=str(tmp_path)), "cat /d/here; echo -n back >/d/back"),
        (Mount(target="/d", source="fresh"), "echo x >/d/x; cat /d/x"),
    ):
        spec = ContainerSpec(image="busybox", name="late", pod=id_, mounts=[mount], command=SLEEP)
        await pods.engine.containers.create(spec)
        await pods.engine.containers.start("late")
        assert await pods.exec("late", script) == ("of the host" if mount.type == "bind" else "x")
        await pods.engine.containers.remove("late", force=True)
    assert (tmp_path / "back").read_text() == "back"
    await pods.engine.pods.remove(id_, force=True)
    await pods.engine.volumes.remove("fresh")


async def test_injected_files(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("by uri")
    id_ = await pods.run(
        files=[
            {"name": "plain", "content": "plain text"},
            {"name": "coded", "encoding": "base64", "content": base64.b64encode(b"\x00bin").decode()},
            {"name": "fetched", "uri": f"file://{tmp_path}/source"},
        ],
        containers=[{"name": "a", "command": SLEEP, "files": [
            {"path": "/etc/app/", "filename": "plain", "perm": "0640", "user": "33", "group": 44},
            {"path": "/coded", "filename": "coded"}, {"path": "/fetched", "filename": "fetched"},
            {"path": "/inline", "detail": {"name": "i", "content": "in place"}},
        ]}],
    )  # fmt: skip
    assert await pods.exec("a", "stat -c '%a %u %g' /etc/app/plain; cat /etc/app/plain") == "640 33 44\nplain text"
    assert await pods.exec("a", "stat -c %a /coded; od -An -c /coded | tr -d ' '") == "755\n\\0bin"
    assert await pods.exec("a", "cat /fetched /inline") == "by uriin place"
    await pods.exec("a", "mv /inline /moved; echo edited > /fetched")
    await pods.engine.pods.stop(id_, 0)
    await pods.engine.pods.start(id_)
    assert await pods.exec("a", "cat /fetched /moved; test ! -e /inline") == "edited\nin place"


async def test_secrets_are_in_memory_only(pods: Pods) -> None:
    value = "hunter2-in-the-clear"
    id_ = await pods.run(
        secrets=[{"name": "password", "content": value}],
        containers=[{"name": "a", "command": SLEEP, "secrets": [{"secret": "password", "user": 7, "perm": "0440"}]}],
    )  # fmt: skip
    assert await pods.exec("a", "stat -c '%a %u' /run/secrets/password; cat /run/secrets/password") == f"440 7\n{value}"
    assert "tmpfs" in await pods.exec("a", "grep /run/secrets/password /proc/mounts")
    paths = pods.engine.settings.paths
    files = [f for d in (paths.root, paths.run) for f in d.rglob("*") if f.is_file()]
    assert len(files) > 5 and [f for f in files if value.encode() in written(f)] == []
    import msgspec

    assert value.encode() not in msgspec.json.encode(pods.engine.pods.details(id_))
    await pods.engine.pods.stop(id_, 0)
    await pods.engine.pods.start(id_)
    assert await pods.exec("a", "cat /run/secrets/password") == value
    await pods.engine.pods.remove(id_, force=True)
    assert not paths.pod(id_).exists()


async def test_read_only_roots(pods: Pods) -> None:
    await pods.run(
        files=[{"name": "f", "content": "there"}],
        containers=[{"name": "a", "command": SLEEP, "readOnly": True, "tmpfs": [{"path": "/tmp", "size": "1m"}],
                     "files": [{"path": "/etc/f", "filename": "f"}]}],
    )  # fmt: skip
    assert (await pods.lab.exec("a", "touch", "/x")).code == 1
    assert await pods.exec("a", "cat /etc/f; touch /tmp/x; df -k /tmp | awk 'END {print $2}'") == "there1024"


async def test_diff_and_export(pods: Pods, tmp_path: Path) -> None:
    await pods.run(
        containers=[{"name": "a", "command": SLEEP, "volumes": [{"volume": "v", "path": "/v"}]}],
        volumes=[{"name": "v"}],
    )
    await pods.exec(
        "a", "echo x > /new; rm /etc/passwd; mkdir /d; echo y > /d/y; echo z >> /etc/group; echo secret > /v/f"
    )
    changes = {c.path: c.kind for c in await pods.engine.archives.changes("a")}
    assert changes["/new"] == changes["/d"] == changes["/d/y"] == "A"
    assert changes["/etc/passwd"] == "D" and changes["/etc/group"] == changes["/etc"] == "C"
    assert "/v/f" not in changes
    tar = b"".join([chunk async for chunk in pods.engine.archives.export("a")])
    names = subprocess.run(["tar", "t"], input=tar, capture_output=True, check=True).stdout.decode().split()
    assert "new" in names and "d/y" in names and "v/f" not in names and not any(n.startswith("proc/1") for n in names)


async def test_a_volume_on_the_command_line(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("shared")
    mounts = [
        Mount(target="/d", type="bind", source=str(tmp_path), read_only=True),
        Mount(target="/t", type="tmpfs", size=1 << 20),
    ]
    result = await lab.sh("cat /d/f; touch /d/x || echo refused; echo ok > /t/x", mounts=mounts)
    assert result.out == "sharedrefused\n"
    first = await lab.sh("echo kept > /n/x", mounts=[Mount(target="/n", source="named")])
    second = await lab.sh("cat /n/x", mounts=[Mount(target="/n", source="named")])
    assert (first.code, second.out) == (0, "kept\n")
    await lab.engine.volumes.remove("named")


async def test_an_image_is_a_volume(pods: Pods, lab: Lab) -> None:
    """For reading, of a pod that runs, whole and by a part of it; the disk goes with the last container that has it."""
    await pods.run(id="p", containers=[{"name": "a", "command": SLEEP}])
    mounts = [
        Mount(target="/whole", type="image", source="busybox"),
        Mount(target="/part", type="image", source="busybox", sub_path="bin"),
    ]
    script = "ls /whole/bin/busybox /part/busybox; /part/busybox touch /whole/x; /part/busybox touch /part/x; exit 7"
    id_ = await lab.create("sh", "-c", script, pod="p", mounts=mounts)
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    await lab.printed(id_, "/part/x: Read-only file system")
    batches = [b async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False)]
    said = "".join(record.log for batch in batches for record in batch)
    assert "/part/busybox\n/whole/bin/busybox\n" in said and "/whole/x: Read-only file system" in said
    assert await pods.exec("a", "grep -c /whole /proc/mounts || true") == "0"
    with pytest.raises(HyperError, match="path gone of the volume: No such file or directory"):
        wrong = await lab.create("true", pod="p", mounts=[
            Mount(target="/x", type="image", source="busybox", sub_path="gone")
        ])  # fmt: skip
        await asyncio.wait_for(lab.engine.containers.start(wrong), DEADLINE)
    await lab.engine.containers.remove(wrong, force=True)
    await lab.engine.containers.remove(id_, force=True)
    assert not lab.engine.registry.pod("p").volumes


async def test_taking_over_the_files_of_a_container(pods: Pods, lab: Lab) -> None:
    old = await lab.create("sh", "-c", "echo mine > /root-file")
    await lab.engine.containers.start(old)
    await asyncio.wait_for(lab.engine.containers.wait(old), DEADLINE)
    await lab.engine.containers.stop(old)
    await pods.run(containers=[{"name": "new", "id": old, "command": SLEEP}])
    assert await pods.exec("new", "cat /root-file") == "mine"
    assert lab.engine.registry.container(old).state.status is ContainerStatus.EXITED
