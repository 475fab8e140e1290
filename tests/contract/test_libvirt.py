# SPDX-License-Identifier: Apache-2.0
"""libvirt's domains when libvirtd ends and comes back, when a start fails, with a tap; and those of a user."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.driver import Disk, TapNetwork
from hypercontainer.hypervisor.libvirt import domain
from hypercontainer.jail.jail import Started

from .conftest import DEADLINE, MAC, LibvirtOne, greet, libvirtd_of_tests
from .libvirt_user import USER


@pytest.fixture
async def host() -> AsyncIterator[LibvirtOne]:
    with tempfile.TemporaryDirectory(prefix="hc") as short:
        made = LibvirtOne(Path(short))
        yield made
        await made.close()


async def test_machines_outlive_libvirtd(host: LibvirtOne) -> None:
    machine = await host.launch()
    session = await greet(machine)
    daemon = libvirtd_of_tests()
    await asyncio.to_thread(daemon.end, signal.SIGKILL)
    with pytest.raises(Unavailable, match="libvirt"):
        await host.driver().launch(host.config("b"))
    assert (await session.stats()).memory_total > 0
    again = await host.driver().reattach(machine.handle)
    assert again is not None
    again.detach()
    await asyncio.to_thread(daemon.start)
    waiting = asyncio.create_task(machine.wait())
    await machine.pause()
    await machine.resume()
    assert (await session.stats()).memory_total > 0
    assert not waiting.done()
    session.close()
    await machine.kill()
    await asyncio.wait_for(waiting, DEADLINE)


async def test_a_machine_is_ended_without_libvirtd(host: LibvirtOne) -> None:
    machine = await host.launch()
    daemon = libvirtd_of_tests()
    await asyncio.to_thread(daemon.end, signal.SIGKILL)
    await machine.kill()
    assert not machine.alive
    await asyncio.to_thread(daemon.start)
    # It finds that the process has gone, at its start; `host` sees that it has no domain.


async def test_a_start_that_fails_leaves_nothing(host: LibvirtOne, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = libvirtd_of_tests().logs  # as the host has them, who does not see its mounts
    monkeypatch.setattr(domain, "log_of", lambda name: logs / f"{name}.log")
    before = set(logs.glob("*"))
    kernel = host.place / "vmlinux"
    kernel.write_bytes(b"\x7fELF" + bytes(5000))
    with pytest.raises(Unavailable, match="Error while loading elf kernel"):
        await host.launch(kernel=kernel)
    with pytest.raises(Unavailable, match="/missing does not exist"):
        await host.launch(disks=(Disk("d", host.place / "missing", read_only=True),))
    assert await asyncio.to_thread(libvirtd_of_tests().domains) == []
    assert set(logs.glob("*")) <= before


async def test_a_start_that_is_given_up_leaves_nothing(host: LibvirtOne, monkeypatch: pytest.MonkeyPatch) -> None:
    """While libvirt is at it: `host` sees afterwards that there is no domain."""
    begun, ended, process_of = threading.Event(), threading.Event(), domain.process_of

    def slowly(uuid: str) -> Started:
        begun.set()
        assert ended.wait(DEADLINE)
        return process_of(uuid)

    monkeypatch.setattr(domain, "process_of", slowly)
    task = asyncio.create_task(host.driver().launch(host.config(disks=(host.disk("d"),))))
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    assert len(await asyncio.to_thread(libvirtd_of_tests().domains)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended.set()


async def test_a_tap_goes_with_its_machine(host: LibvirtOne) -> None:
    with host.tap() as (tap, held):
        machine = await host.launch(networks=(TapNetwork(MAC, tap.fd, tap.name),))
        (await greet(machine)).close()
    assert held()
    os.kill(machine.pid, signal.SIGKILL)
    await asyncio.wait_for(machine.wait(), DEADLINE)
    assert not held()
    await machine.kill()


@pytest.mark.slow
def test_a_users_libvirt() -> None:
    """Without root: in a namespace where this user is another one."""
    if not shutil.which("libvirtd"):
        pytest.skip("it takes the package libvirt-daemon")
    with tempfile.TemporaryDirectory(prefix="hu") as place:
        command = ["unshare", "--user", f"--map-user={USER}", f"--map-group={USER}", sys.executable, "-m",
                   "tests.contract.libvirt_user", place]  # fmt: skip
        found = subprocess.run(command, capture_output=True, text=True, timeout=4 * DEADLINE)
        if "unshare failed" in found.stderr:
            pytest.skip("it takes user namespaces")
        assert found.returncode == 0, found.stderr[-3000:]
        assert not list(Path(place).rglob("hyper-*.log"))
