# SPDX-License-Identifier: Apache-2.0
"""A daemon that ends, by its own will or not, and the next one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.errors import HyperError, Unavailable
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.hypervisor.facets import PortForwarding, require
from hypercontainer.model.specs import PortMapping
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab, machines
from .test_pod_network import free_port


async def _next(config: Config, old: Engine) -> Engine:
    """The daemon goes away without stopping anything, another comes."""
    await old.close(keep_running=True)
    engine = build_engine(config)
    await engine.open()
    return engine


async def test_containers_outlive_the_daemon_with_output_and_exit_status(lab: Lab, config: Config) -> None:
    script = "echo before; while ! test -e /go; do sleep 0.05; done; seq 1 30000; echo after; exit 9"
    id_ = await lab.create("sh", "-c", script)
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "before")
    lab.engine = await _next(config, lab.engine)
    container = lab.engine.registry.container(id_)
    assert container.state.status is ContainerStatus.RUNNING
    assert (await lab.exec(id_, "touch", "/go")).code == 0
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 9
    records = [r.log async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False) for r in b]
    assert records == ["before\n", *(f"{n}\n" for n in range(1, 30001)), "after\n"]


async def test_an_end_while_nobody_watched(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sh", "-c", "sleep 1; echo late; exit 6")
    await lab.engine.containers.start(id_)
    machine = lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine
    os.kill(machine.pid, signal.SIGSTOP)  # it cannot end before nobody watches, however long that takes
    await lab.engine.close(keep_running=True)
    os.kill(machine.pid, signal.SIGCONT)
    with pytest.raises(TimeoutError):  # the process ends meanwhile, its VM does not
        await asyncio.wait_for(machine.wait(), 2)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert await asyncio.wait_for(lab.engine.containers.wait(id_), DEADLINE) == 6
    records = [r.log async for b in lab.engine.logs(id_, tail=None, since="", until="", follow=False) for r in b]
    assert records == ["late\n"]


async def test_a_machine_that_died_meanwhile(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    machine = lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine
    await lab.engine.close(keep_running=True)
    import os

    os.kill(machine.pid, signal.SIGKILL)
    await asyncio.wait_for(machine.wait(), DEADLINE)
    lab.engine = build_engine(config)
    await lab.engine.open()
    state = lab.engine.registry.container(id_).state
    assert state.status is ContainerStatus.EXITED and state.exit_code == 255


async def test_a_machine_of_no_container_is_ended(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    await lab.engine.close(keep_running=True)
    assert len(machines(config.run_path)) == 1
    engine = build_engine(config)
    pod = engine.registry.container(id_).pod
    engine.registry.erase(engine.registry.container(id_), engine.registry.pod(pod))
    (config.root_path / "containers" / id_ / "scratch.img").unlink()
    import shutil

    shutil.rmtree(config.root_path / "containers" / id_)
    await engine.open()
    lab.engine = engine

    async def gone() -> None:
        while machines(config.run_path):
            await asyncio.sleep(0.05)

    await asyncio.wait_for(gone(), DEADLINE)


async def test_a_kernel_that_does_not_boot(lab: Lab, config: Config, tmp_path: Path) -> None:
    bad = tmp_path / "vmlinux"
    bad.write_bytes(b"\x7fELF" + bytes(5000))
    config.kernel, config.accelerator = str(bad), "tcg"
    lab.engine = await _next(config, lab.engine)
    id_ = await lab.create("true")
    with pytest.raises(Unavailable, match="the virtual machine did not start"):
        await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    state = lab.engine.registry.container(id_).state
    assert state.status is ContainerStatus.EXITED and state.exit_code == 125
    assert machines(config.run_path) == []


async def test_a_kernel_that_hangs_is_given_up(lab: Lab, config: Config) -> None:
    config.boot_timeout = 0.05
    lab.engine = await _next(config, lab.engine)
    id_ = await lab.create("true")
    with pytest.raises(HyperError, match="did not start"):
        await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    assert machines(config.run_path) == []


async def test_ports_that_a_dead_daemon_was_about_to_change_are_as_the_record_says(lab: Lab, config: Config) -> None:
    id_ = await lab.create("sleep", "1000", network="user")
    engine = lab.engine
    await engine.containers.start(id_)
    kept, lost, stray = [PortMapping(container_port=80 + n, host_port=free_port()) for n in range(3)]
    await engine.pods.add_ports(id_, [kept, lost])
    runtime = engine.containers.runtime(engine.registry.container(id_))
    machine = require(runtime.machine, PortForwarding)
    await machine.remove_port(lost)
    await machine.add_port(stray)
    runtime.ports_in_change = [kept, lost, stray]
    engine._sandboxes.sandbox(engine.registry.container(id_).pod).save()
    assert [_listens(p) for p in (kept, lost, stray)] == [True, False, True]
    lab.engine = await _next(config, engine)
    assert [_listens(p) for p in (kept, lost, stray)] == [True, True, False]
    vm = lab.engine.registry.pod(lab.engine.registry.container(id_).pod).vm
    assert vm and vm.ports_in_change == []


def _listens(port: PortMapping) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port.host_port)) == 0
