# SPDX-License-Identifier: Apache-2.0
"""By what a machine is found again, also when an earlier hyperd wrote it down."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from hypercontainer.engine.runtime import handle_of
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.model.status import Vm
from hypercontainer.sys import process


async def test_a_record_of_an_earlier_hyperd(tmp_path: Path) -> None:
    """It had no handle, but the parts of QEMU's."""
    old = {
        "driver": "qemu", "pid": os.getpid(), "pidStarted": process.start_time(os.getpid()),
        "directory": str(tmp_path), "token": "00", "accelerator": "tcg",
    }  # fmt: skip
    driver = QemuDriver(binary="none", accelerator="tcg", cache=tmp_path)
    machine = await driver.reattach(handle_of(msgspec.convert(old, Vm)))
    assert machine is not None and (machine.pid, machine.accelerator) == (os.getpid(), "tcg")
    machine.detach()
    new = Vm(driver="qemu", pid=1, directory="", token="", handle=machine.handle)
    again = await driver.reattach(handle_of(msgspec.convert(msgspec.to_builtins(new), Vm)))
    assert again is not None and again.handle == machine.handle
    again.detach()
    ended = {**old, "pidStarted": 1}
    assert await driver.reattach(handle_of(msgspec.convert(ended, Vm))) is None
