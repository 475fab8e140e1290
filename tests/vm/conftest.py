# SPDX-License-Identifier: Apache-2.0
"""Real virtual machines, through the engine in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.errors import HyperError
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.specs import ContainerSpec, ExecSpec
from hypercontainer.sys import process
from tests.world import World

DEADLINE = 60.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))  # seconds for anything that a VM does


class Result:
    """What a container printed and how it ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode(errors="replace")
        self.err = err.decode(errors="replace")


class Lab:
    """An engine and shorthands for it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def create(self, *command: str, **how: object) -> str:
        spec = ContainerSpec(image="busybox", command=list(command) or None, **how)  # type: ignore[arg-type]
        return (await self.engine.containers.create(spec)).id

    async def run(self, *command: str, stdin: bytes | None = None, **how: object) -> Result:
        """Create, start, wait; the container is removed by its own end."""
        id_ = await self.create(*command, stdin=stdin is not None, **{"auto_remove": True, **how})
        life = self.engine.containers.supervisor(self.engine.registry.container(id_))
        reader = life.fan_out.attach()
        collect = asyncio.ensure_future(_collect(reader))
        await asyncio.wait_for(self.engine.containers.start(id_), DEADLINE)
        if stdin is not None and life.fan_out.handle:
            await life.fan_out.handle.write_stdin(stdin)
            life.fan_out.handle.close_stdin()
        out = await asyncio.wait_for(collect, DEADLINE)
        await asyncio.wait_for((life.removed if how.get("mounts") else life.stopped).wait(), DEADLINE)
        return Result(life.exit_code, out[1], out[2])

    async def sh(self, script: str, **how: object) -> Result:
        return await self.run("sh", "-c", script, **how)  # type: ignore[arg-type]

    async def printed(self, id_: str, text: str) -> None:
        """Wait until the container's log holds a line."""

        async def seen() -> None:
            async for batch in self.engine.logs(id_, tail=None, since="", until="", follow=True):
                if any(text in r.log for r in batch):
                    return
            raise AssertionError(f"{text!r} was never printed")

        await asyncio.wait_for(seen(), DEADLINE)

    async def exec(self, id_: str, *command: str, **how: object) -> Result:
        exec_ = self.engine.execs.create(id_, ExecSpec(command=list(command), **how))  # type: ignore[arg-type]
        collect = asyncio.ensure_future(_collect(exec_.fan_out.attach()))
        await self.engine.execs.start(exec_)
        out = await asyncio.wait_for(collect, DEADLINE)
        await asyncio.wait_for(exec_.ended.wait(), DEADLINE)
        return Result(exec_.exit_code or 0, out[1], out[2])


async def _collect(reader: object) -> dict[int, bytes]:
    out = {1: b"", 2: b""}
    async for stream, data in reader:  # type: ignore[attr-defined]
        out[stream] += data
    return out


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State that the tests of a run share: image disks, caches."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hv") as short:  # sockets need short paths
        yield Path(short)


@pytest.fixture
def config(root: Path, run_dir: Path) -> Config:
    accelerator: Any = os.environ.get("HYPER_TEST_ACCELERATOR", "auto")  # tests/lab says kvm
    # QEMU has its filter of system calls only with another one than slirp, which is a part of it.
    user_network: Any = os.environ.get("HYPER_TEST_USER_NETWORK", "slirp")
    return Config(
        root=str(root), run=str(run_dir), network="user", user_network=user_network, accelerator=accelerator,
        boot_timeout=DEADLINE,
    )  # fmt: skip


@pytest.fixture
async def lab(config: Config) -> AsyncIterator[Lab]:
    """An engine; at the end nothing of it may be left."""
    from hypercontainer.engine.paths import Paths

    paths = Paths(config.root_path, config.run_path)
    paths.create()
    engine = build_engine(config)
    await engine.open()
    try:
        engine.images.find("busybox")
    except HyperError:
        await engine.pull("builtin:busybox")[1]
    made = Lab(engine)
    yield made
    lab_engine = made.engine  # a test may have put another in its place
    for container in lab_engine.registry.containers():
        await lab_engine.containers.remove(container.id, force=True)
    await lab_engine.volumes.prune(everything=True)
    try:
        await asyncio.to_thread(World(paths.root, paths.run).check)
    finally:  # what waits in the pool would be the next test's fault
        await lab_engine.close(keep_running=False)
    assert list((paths.run / "pods").iterdir()) == []
    assert list((paths.root / "containers").iterdir()) == []
    assert World(paths.root, paths.run).nothing() == []


def _open_files(process: Path) -> list[str]:
    """What a process of /proc has open; of connections that are closed meanwhile there is nothing."""
    found = []
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(fd.readlink()))
    return found


def machines(run: Path, *, factory: bool = False) -> list[int]:
    """QEMU processes whose files are below `run`; those of the factory, which no container has, only if asked for."""
    waiting = () if factory else (str(run / "pods/pool-"), str(run / "pods/make-"), str(run / "pods/probe"))
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
                cwd_fds = _open_files(entry) if b"hyper-" in line and b"qemu" in line else []
            except OSError:
                continue
            if any(f.startswith(str(run)) for f in cwd_fds) and not any(
                f.startswith(w) for f in cwd_fds for w in waiting
            ):
                found.append(int(entry.name))
    return [p for p in found if process.start_time(p)]


@pytest.fixture
async def lab_image(lab: Lab) -> None:
    """The built-in image in the shared root, for tests that run an engine in another process."""
