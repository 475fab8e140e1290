# SPDX-License-Identifier: Apache-2.0
"""What the lab's kernel says of guests that boot with its KVM."""

from __future__ import annotations

import re
import subprocess

import pytest

from hypercontainer.hyperd.config import Config
from tests.vm.conftest import Lab

# A counter of performance, which the lab's processor lacks: the guest's kernel tries on AMD whether there is one
# (check_hw_exists in arch/x86/events/core.c of Linux), and KVM refuses.
_KNOWN = {"0xc0010007"}


@pytest.fixture(params=["qemu", "firecracker"])
def driver(request: pytest.FixtureRequest, config: Config) -> None:
    """Use before `lab`."""
    config.driver = request.param


async def test_no_register_is_unknown_to_kvm(driver: None, lab: Lab) -> None:
    assert (await lab.run("echo", "up", isolation="fresh", network="none")).out == "up\n"
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"[Uu]nhandled (?:RD|WR)MSR\((0x[0-9a-f]+)\)", said)) <= _KNOWN
