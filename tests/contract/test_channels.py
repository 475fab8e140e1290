# SPDX-License-Identifier: Apache-2.0
"""A driver says over which device the agent speaks, and by what the guest finds a disk; nobody else knows."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.engine.builtins import run_builtin
from hypercontainer.hypervisor.driver import Disk
from hypercontainer.hypervisor.qemu import command
from hypercontainer.protocol.constants import Builtin

from .conftest import QemuOne, greet


@pytest.fixture
async def host() -> AsyncIterator[QemuOne]:
    with tempfile.TemporaryDirectory(prefix="hc") as short:
        made = QemuOne(Path(short))
        yield made
        await made.close()


async def test_the_channel_has_the_drivers_name(host: QemuOne, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GUEST_CHANNEL", "another.port")
    machine = await host.launch()
    session = await greet(machine)
    assert (await session.stats()).memory_total > 0
    session.close()


async def test_a_disk_by_what_the_kernel_calls_it(host: QemuOne) -> None:
    """A hypervisor may give its disks no serial numbers."""
    path = host.place / "v.ext4"
    with open(path, "wb") as f:
        f.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    machine = await host.launch(disks=(Disk("unnamed", path, read_only=False),))
    session = await greet(machine)
    await session.setup_pod("h", [], {}, 1 << 20)
    await run_builtin(session, Builtin.MOUNT, "v", "ext4", "disk:dev:vda", "0", "", what="a volume")
    session.close()
