# SPDX-License-Identifier: Apache-2.0
"""A program: a machine of a user's libvirt, with disks that come and go. Its argument is a directory of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from hypercontainer.guest import initramfs
from hypercontainer.guest.session import GuestSession
from hypercontainer.hypervisor.driver import Disk, MachineConfig, UserNetwork
from hypercontainer.hypervisor.facets import DiskHotplug
from hypercontainer.hypervisor.libvirt.driver import OpenDriver
from hypercontainer.kernel.locate import locate
from hypercontainer.protocol.constants import FIRST_TOKEN
from hypercontainer.sys.caches import cache_directory

USER = 1000
_DEADLINE = 60.0  # seconds


def _disk(place: Path, name: str) -> Disk:
    (place / name).write_bytes(bytes(1 << 20))
    return Disk(name, place / name, read_only=False)


async def _use(place: Path) -> None:
    assert os.geteuid() == USER
    driver = OpenDriver(uri="", accelerator="tcg", cache=place, run=place)
    assert (found := await driver.probe()) and not found.trouble, found
    machine = await driver.launch(
        MachineConfig(
            name="a", directory=place / "a", vcpus=1, memory=128 << 20, kernel=locate("").path,
            initramfs=initramfs.cached(place), disks=(_disk(place, "one"),),
            networks=(UserNetwork("52:54:00:12:34:56"),), expandable=True,
        )
    )  # fmt: skip
    try:
        session = await GuestSession.open(machine.connect(), FIRST_TOKEN, timeout=_DEADLINE)
        assert isinstance(machine, DiskHotplug)
        late = _disk(place, "late")
        await machine.add_disk(late)
        await machine.remove_disk("late")
        await machine.remove_disk("late")
        await machine.add_disk(late)
        assert (await session.stats()).memory_total > 0
        session.close()
    finally:
        await machine.kill()
    assert not machine.alive
    await driver.close()


def main() -> None:
    """With a libvirtd that is ended afterwards."""
    place = Path(sys.argv[1])
    os.environ.update(HYPER_CACHE=str(cache_directory("kernel").parent))
    own = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    for variable, name in own.items():
        (place / name).mkdir(mode=0o700)
        os.environ[variable] = str(place / name)
    settings = place / "config" / "libvirt" / "qemu.conf"
    settings.parent.mkdir()
    settings.write_text('stdio_handler = "file"\n')
    pidfile = place / "libvirtd.pid"
    subprocess.run(["libvirtd", "--daemon", "--pid-file", pidfile], check=True, timeout=_DEADLINE)
    try:
        asyncio.run(_use(place))
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGKILL)


if __name__ == "__main__":
    main()
