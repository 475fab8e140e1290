# SPDX-License-Identifier: Apache-2.0
"""What names a container, logs of several files, and volumes that lie elsewhere."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Conflict, HyperError, InvalidArgument, NotFound
from hypercontainer.model.pods import VolumeRequest
from hypercontainer.model.specs import HealthCheck, HttpCheck, Mount, SecretMount

from .scenes import plan, spec
from .stage import Stage


def test_a_container_is_named_by_its_name_or_a_beginning_of_its_id(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.create("one")
        registry = s.engine.registry
        for key in ("one", "/one", id_, id_[:12]):
            assert registry.container(key).id == id_
        for wrong in ("on", "", "z"):
            with pytest.raises(NotFound):
                registry.container(wrong)
        ids = {id_[0]}
        while len(ids) == len(registry.containers()):  # until two begin with one digit: seventeen at most
            ids.add((await s.create(f"n{len(ids)}"))[0])
        twice = next(d for d in ids if sum(c.id[0] == d for c in registry.containers()) > 1)
        with pytest.raises(InvalidArgument, match="ambiguous"):
            registry.container(twice)
        with pytest.raises(Conflict):
            s.engine.containers.rename("one", "n1")
        with pytest.raises(InvalidArgument):
            s.engine.containers.rename("one", "-")
        s.engine.containers.rename("one", "two")
        assert registry.container("two").id == id_

    act(scenario)


def test_a_log_of_several_files_is_read_as_one(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "flood", str(1 << 20))

        async def sizes(tail: int | None) -> list[int]:
            found = s.engine.logs("a", tail=tail, since="", until="", follow=False)
            return [len(r.log) async for records in found for r in records]

        await s.call(s.engine.containers.wait("a"))
        await asyncio.sleep(1)
        path = Path(s.engine.registry.container("a").log_path)
        assert len(list(path.parent.glob(f"{path.name}*"))) > 1  # of 1 MiB each
        everything = await s.call(sizes(None))
        assert set(everything) == {1024} and 512 < len(everything) <= 1024  # the oldest file has gone
        first = path.stat().st_size // (everything[0] + 80)
        assert await s.call(sizes(first + 100)) == everything[: first + 100]

    act(scenario)


def test_volumes_that_lie_elsewhere(act: Any, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    os.truncate(image, 1 << 20)

    async def scenario(s: Stage) -> None:
        volumes = [
            VolumeRequest(name="raw", source=str(image), read_only=True),
            VolumeRequest(name="rbd", source="pool/image", monitors=["192.0.2.1:6789"], options={"keyring": "key"}),
        ]
        mounts = [Mount(target=f"/{v.name}", source=v.name) for v in volumes]
        await s.call(s.engine.pods.create(plan(spec("a", mounts=mounts), volumes=volumes)))
        await s.call(s.engine.pods.start("pod"))
        assert [v.kind for v in s.engine.registry.pod("pod").volumes] == ["disk", "rbd"]
        assert "key" not in str(s.engine.registry.pod("pod").volumes[1].options)
        assert len(s.machine("pod").disks) == 4  # the image's, the container's, and these

    act(scenario)


def test_a_pod_that_is_paused_ends_with_its_daemon(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.pods.pause("pod"))
        await s.close()
        assert not s.host.machines
        await s.open()
        assert s.status("a") == "exited"

    act(scenario)


def test_a_check_by_http_is_made_in_the_guest(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", health=HealthCheck(http=HttpCheck(port=80, headers={"X": "y"}), interval=1))
        await asyncio.sleep(3)
        health = s.engine.registry.container("a").state.health
        assert health and health.status == "healthy"

    act(scenario)


def test_a_container_that_joins_a_pod_asks_for_secrets_that_it_has(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"), secrets={"key": b"x"})))
        with pytest.raises(HyperError, match="the pod has no secret 'other'"):
            await s.create("b", pod="pod", secrets=[SecretMount(secret="other", target="/k")])
        with pytest.raises(NotFound):
            await s.create("b", pod="nobody")

    act(scenario)


def test_a_container_that_is_to_see_the_processes_of_another(act: Any) -> None:
    """Of one in its pod, by whatever name; its pod is not there without one."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("a"))))
        await s.create("b", pod="pod", pid="container:a")
        other = s.engine.registry.container("a")
        assert s.engine.registry.container("b").spec.pid == f"container:{other.id}"
        await s.create("alone")
        with pytest.raises(HyperError, match="container alone is not in pod pod: processes are seen within a pod only"):
            await s.create("c", pod="pod", pid="container:alone")
        with pytest.raises(NotFound, match="nobody"):
            await s.create("c", pod="pod", pid="container:nobody")
        with pytest.raises(HyperError, match="its processes are those of a container in a pod"):
            await s.create("c", pid="container:a")

    act(scenario)
