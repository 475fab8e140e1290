# SPDX-License-Identifier: Apache-2.0
"""An App Container image in a virtual machine: its files and its app, as rkt would run it."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator

from hypercontainer.images.builtin import _find_busybox
from hypercontainer.images.progress import Progress
from hypercontainer.model.specs import ContainerSpec, Resources

from .conftest import DEADLINE, Lab

_SCRIPT = "$B id -u; $B id -g; $B id -G; pwd; echo $WHO; $B cat note; $B grep MemTotal /proc/meminfo"
_APP = {
    "exec": ["/bin/busybox", "sh", "-c", _SCRIPT], "user": "100", "group": "300", "supplementaryGIDs": [400],
    "workingDirectory": "/data", "environment": [{"name": "WHO", "value": "me"},
                                                 {"name": "B", "value": "/bin/busybox"}],
    "isolators": [{"name": "resource/memory", "value": {"limit": "96Mi"}}],
}  # fmt: skip


def archive() -> bytes:
    out = io.BytesIO()
    document = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/vm", "app": _APP}
    files = {
        "manifest": json.dumps(document).encode(),
        "rootfs/bin/busybox": _find_busybox().read_bytes(),
        "rootfs/data/note": b"hi\n",
    }
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


async def body() -> AsyncIterator[bytes]:
    yield archive()


async def test_an_app_container_image_runs(lab: Lab) -> None:
    (loaded,) = await asyncio.wait_for(lab.engine.images.loader.load(body(), Progress()), DEADLINE)
    assert loaded.app and loaded.app.memory == 96 << 20 and loaded.app.groups == ["400"]
    spec = ContainerSpec(
        image="example.com/vm", resources=Resources(memory=loaded.app.memory), groups=loaded.app.groups, network="none"
    )
    container = await lab.engine.containers.create(spec)
    await asyncio.wait_for(lab.engine.containers.start(container.id), DEADLINE)
    assert await asyncio.wait_for(lab.engine.containers.wait(container.id), DEADLINE) == 0
    said = [
        r.log
        async for batch in lab.engine.logs(container.id, tail=None, since="", until="", follow=False)
        for r in batch
    ]
    uid, gid, groups, place, who, note, memory = "".join(said).splitlines()
    assert (uid, gid, groups.split(), place, who, note) == ("100", "300", ["300", "400"], "/data", "me", "hi")
    assert 96 << 10 < int(memory.split()[1]) < 160 << 10, "the machine has what it asks for, and what the guest needs"
