# SPDX-License-Identifier: Apache-2.0
"""A guest that waits for ever without interrupts, as one that the emulator hung (docs/development.md)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from .ending import ended

_SIZE = 64 << 10  # of a firmware; a processor begins with its last 16 bytes
_WAITS = bytes.fromhex("fa f390 ebfc")  # cli; pause; jump to the pause
_LIMIT = 600.0  # seconds of the lab's
turns: list[int] = []


def test_its_machine_is_ended_and_the_test_run_again(tmp_path: Path) -> None:
    """The first turn fails, as any test whose machine was ended."""
    if os.environ.get("HYPER_TEST_ACCELERATOR") != "kvm":
        pytest.skip("it takes the lab: make test-kvm TESTS=tests/lab/test_hung_guest.py")
    turns.append(before := ended())
    if len(turns) == 1:
        firmware = tmp_path / "firmware"
        firmware.write_bytes(_WAITS.rjust(_SIZE - 16 + len(_WAITS), b"\0").ljust(_SIZE, b"\0"))
        command = ["qemu-system-x86_64", "-machine", "pc,accel=kvm", "-nodefaults", "-display", "none", "-m", "16M"]
        assert subprocess.run([*command, "-bios", firmware], timeout=_LIMIT, check=False).returncode == -signal.SIGKILL
    assert ended() == before == turns[0] + 1
