# SPDX-License-Identifier: Apache-2.0
"""A pod that is put on the disk, and goes on from there as the same one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.pods import VolumeSpec
from hypercontainer.model.specs import ExecSpec, Mount
from hypercontainer.sys import clock

from .conftest import DEADLINE, Lab, machines
from .test_forks import COUNTS, counted, fork


async def test_it_goes_on_where_it_was(lab: Lab, config: Config) -> None:
    """Memory, root, volume, a command that runs in it; its machine is gone meanwhile."""
    await lab.engine.volumes.create(VolumeSpec(name="data"))
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data", source="data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 3")
    shell = lab.engine.execs.create(id_, ExecSpec(command=["sh"], stdin=True))
    await lab.engine.execs.start(shell)
    assert shell.handle
    reader = shell.fan_out.attach()
    await shell.handle.write_stdin(b"x=before; cat /proc/sys/kernel/random/boot_id\n")
    boot = b""
    async for _, data in reader:
        boot += data
        if b"\n" in boot:
            break
    await lab.engine.suspensions.suspend("web")
    assert machines(config.run_path) == [] and not shell.ended.is_set()
    began = (await counted(lab, id_))[-1]
    await lab.engine.suspensions.resume("web")
    await lab.printed(id_, f"counted {began + 3}")
    root, volume = (await lab.exec(id_, "tail", "-qn", "1", "/n", "/data/n")).out.split()
    assert abs(int(root) - int(volume)) <= 1
    numbers = await counted(lab, id_)
    assert numbers == list(range(1, len(numbers) + 1))
    assert (await lab.exec(id_, "cat", "/proc/sys/kernel/random/boot_id")).out == boot.decode()
    await shell.handle.write_stdin(b"echo $x\nexit 5\n")
    await asyncio.wait_for(shell.ended.wait(), DEADLINE)
    now = (await lab.exec(id_, "date", "+%s")).out
    assert abs(int(now) - clock.now().timestamp()) < DEADLINE  # the guest's stood still
    assert shell.exit_code == 5 and (await lab.exec(id_, "hostname")).out.strip() == id_[:12]


async def test_the_next_daemon_resumes_it(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 2")
    await lab.engine.suspensions.suspend("web")
    await lab.engine.close(keep_running=False)
    kept = Path(config.root) / "pods" / id_ / "suspended/memory"
    assert 0 < kept.stat().st_size < lab.engine.registry.pod(id_).memory
    lab.engine = build_engine(config)
    await lab.engine.open()
    began = (await counted(lab, id_))[-1]
    await lab.engine.containers.start(id_)
    await lab.printed(id_, f"counted {began + 2}")
    numbers = await counted(lab, id_)
    assert numbers == list(range(1, len(numbers) + 1)) and not kept.exists()


async def test_forks_before_and_after(lab: Lab) -> None:
    """A machine that came from a snapshot is put on the disk; one that came from there is forked."""
    id_ = await lab.create("sh", "-c", COUNTS, name="web", mounts=[Mount(target="/data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 2")
    (child,) = await fork(lab, "web", "child")
    await lab.engine.suspensions.suspend("child")
    await lab.engine.suspensions.resume("child")
    (grandchild,) = await fork(lab, "child", "grandchild")
    began = (await counted(lab, grandchild))[-1]
    for one in (child, grandchild):
        await lab.printed(one, f"counted {began + 2}")
        numbers = await counted(lab, one)
        assert numbers == list(range(1, len(numbers) + 1))
