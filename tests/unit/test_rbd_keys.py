# SPDX-License-Identifier: Apache-2.0
"""The key of a Ceph cluster reaches QEMU, and nobody who lists processes or reads the log."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from hypercontainer.hypervisor.driver import MachineConfig, RbdDisk
from hypercontainer.hypervisor.qemu.driver import QemuDriver

KEY = base64.b64encode(b"the key of the cluster").decode()

# Takes the options as QEMU does, as the user that QEMU would be, and writes down what it was given.
QEMU = """#!/usr/bin/env python3
import json, os, sys
objects = [sys.argv[i + 1] for i, a in enumerate(sys.argv) if a == "-object"]
found = [dict(p.partition("=")[::2] for p in o.split(",")) for o in objects]
files = {f["id"]: open(f["file"]).read() for f in found if "file" in f}
print(json.dumps({"argv": sys.argv, "environment": dict(os.environ), "files": files, "uid": os.getuid()}))
"""


async def test_keys_are_not_arguments(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    binary = Path("/tmp", f"{tmp_path.parent.name}-{tmp_path.name}-qemu")  # a path that the user may reach
    binary.write_text(QEMU)
    binary.chmod(0o755)
    for name in ("kernel", "initramfs"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).chmod(0o644)
    disks = tuple(RbdDisk(f"v{i}", "pool", "image", ("10.0.0.1:6789",), user="admin", keyring=KEY) for i in range(2))
    config = MachineConfig(name="m", directory=tmp_path / "run", vcpus=1, memory=128 << 20, kernel=tmp_path / "kernel",
                           initramfs=tmp_path / "initramfs", disks=disks)  # fmt: skip
    driver = QemuDriver(binary=str(binary), accelerator="tcg", cache=tmp_path)
    try:
        with caplog.at_level(logging.DEBUG):
            machine = await driver.launch(config)
            await machine.wait()
    finally:
        binary.unlink()
    seen = json.loads((tmp_path / "run/qemu.log").read_text())
    assert seen["files"] == {"disk-v0-key": KEY, "disk-v1-key": KEY}
    assert KEY not in " ".join(seen["argv"]) + str(seen["environment"]) and KEY not in caplog.text + repr(config)
