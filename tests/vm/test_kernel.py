# SPDX-License-Identifier: Apache-2.0
"""What hyperkernel is built with, as a container meets it."""

from __future__ import annotations

import errno
import os

import pytest

from hypercontainer.model.specs import Resources

from .conftest import Lab
from .test_confinement import calls, probe  # noqa: F401 - a fixture

HARDENING = ("STACKPROTECTOR", "HARDENED_USERCOPY", "SLAB_FREELIST_RANDOM", "SLAB_FREELIST_HARDENED")


async def test_a_file_of_the_image_can_be_given_an_acl(lab: Lab, calls: dict[str, bytes]) -> None:  # noqa: F811
    """It has none at first, and setting one copies the file up."""
    result = await lab.run("/calls", "/etc/passwd", files=probe(calls["x86_64"]))
    assert result.out.split() == [str(errno.ENODATA), "0", "0"]


async def test_processes_are_limited_by_memory_alone(lab: Lab) -> None:
    assert int((await lab.run("cat", "/proc/sys/kernel/pid_max")).out) > 32768


async def test_the_kernel_is_hardened(lab: Lab) -> None:
    """docs/adr/0003 says what of it and why."""
    result = await lab.run("zcat", "/proc/config.gz")
    options = set(result.out.splitlines())
    assert {f"CONFIG_{o}=y" for o in HARDENING} <= options


async def test_clock_processors_and_health(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """With KVM the guest reads KVM's clock, or a steady counter; all processors are there, and no taint."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # the lab has one
    source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    script = f"cat /proc/sys/kernel/tainted; nproc; cat {source}"
    tainted, processors, clock = (await lab.sh(script, resources=Resources(cpus=2), network="none")).out.split()
    # In the lab the guest's kernel warns of its emulated XSAVE, which is bit 9 (docs/development.md).
    assert tainted in ({"0", "512"} if "HYPER_TEST_SLOWNESS" in os.environ else {"0"})
    assert processors == "2"
    clocks = {"kvm": {"kvm-clock", "tsc"}, "tcg": {"tsc", "tsc-early"}}
    assert clock in clocks[(await lab.engine.info()).accelerator]
