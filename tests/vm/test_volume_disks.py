# SPDX-License-Identifier: Apache-2.0
"""Block volumes are empty when they are new, of the size asked for, and give back what is deleted in them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.specs import Mount
from hypercontainer.sys.trees import disk_usage

from .conftest import DEADLINE, Lab
from .test_pods import SLEEP, Pods, pods

__all__ = ["pods"]


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
@pytest.mark.parametrize("image", ["raw", "qcow2"])
async def test_new_volumes_are_empty(lab: Lab, fstype: str, image: str) -> None:
    """initdb and its like refuse a directory in which something is."""
    volume = await lab.engine.volumes.create(
        VolumeSpec(name="new", fstype=fstype, format=image, size=(400 << 20) + 4096)
    )
    try:
        done = await lab.sh(
            "ls -A /d; df -k /d | awk 'END {print $2}'", mounts=[Mount(target="/d", source=volume.name)]
        )
        (size,) = done.out.split()
        assert 300 << 10 < int(size) <= 400 << 10
    finally:
        await lab.engine.volumes.remove("new")


@pytest.mark.parametrize("volume", [{"name": "v"}, {"name": "v", "format": "qcow2"}], ids=["raw", "qcow2"])
async def test_a_pods_own_volumes_are_empty(pods: Pods, volume: dict[str, Any]) -> None:
    await pods.run(
        containers=[{"name": "a", "command": SLEEP, "volumes": [{"volume": "v", "path": "/data"}]}], volumes=[volume]
    )
    assert await pods.exec("a", "ls -A /data") == ""


async def test_deleted_files_leave_the_host(lab: Lab) -> None:
    volume = await lab.engine.volumes.create(VolumeSpec(name="shrinks"))
    path = lab.engine.settings.paths.volume("shrinks") / "volume.img"
    id_ = await lab.create("sleep", "1000", mounts=[Mount(target="/d", source=volume.name)])
    try:
        await lab.engine.containers.start(id_)
        assert (await lab.exec(id_, "sh", "-c", "dd if=/dev/urandom of=/d/x bs=1M count=40; sync")).code == 0
        assert disk_usage(path) > 40 << 20
        assert (await lab.exec(id_, "sh", "-c", "rm /d/x; sync")).code == 0
        end = time.monotonic() + DEADLINE
        while disk_usage(path) > 10 << 20:
            assert time.monotonic() < end, "what was deleted still takes space on the host"
            await asyncio.sleep(0.1)
    finally:
        await lab.engine.containers.remove(id_, force=True)
        await lab.engine.volumes.remove("shrinks")
