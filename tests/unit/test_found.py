# SPDX-License-Identifier: Apache-2.0
"""Whose processes are taken for machines that an earlier daemon left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.hypervisor import found
from hypercontainer.hypervisor.libvirt.driver import LibvirtDriver
from hypercontainer.hypervisor.xen.driver import XenDriver
from hypercontainer.sys import users

STRANGER = 12345  # a user number of nobody's here
UUID = "6c5d1d2e-6a4e-4f0b-9c6e-0d8d3b1a2f3c"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextlib.contextmanager
def process(driver: str, directory: Path, user: int, *, name: str = "xl", domain: str = "") -> Iterator[int]:
    """One that has begun, with the environment of a machine's, and words of libvirt's on its command line."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # $TMPDIR may be closed to others
        os.chmod(place, 0o755)
        os.symlink("/bin/sh", f"{place}/{name}")
        environment = {"PATH": os.environ["PATH"], **found.mark(driver, directory), "HYPER_DOMAIN": domain}
        words = [f"{place}/{name}", "-c", "echo begun; read end", "-name", "guest=web", "-uuid", UUID]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, env=environment, user=user, cwd="/") as started:
            assert started.stdout is not None and started.stdout.readline() == b"begun\n"
            yield started.pid
            started.communicate(b"end\n")


@needs_root
@pytest.mark.parametrize("driver", ["qemu", "firecracker", "xen", "libvirt"])
def test_what_another_user_calls_a_machine_is_none(tmp_path: Path, driver: str) -> None:
    with process(driver, tmp_path / "a", STRANGER):
        assert found.strays(driver, tmp_path, set()) == []
    with process(driver, tmp_path / "a", users.pick()) as pid:
        assert [f.pid for f in found.strays(driver, tmp_path, set())] == [pid]


@needs_root
@pytest.mark.parametrize(("domain", "count"), [("hyper-a-0123", 1), ("database", 0), ("", 0)])
def test_no_domain_of_anothers_is_ended(tmp_path: Path, domain: str, count: int) -> None:
    with process("xen", tmp_path / "a", 0, domain=domain):
        assert len(XenDriver(boot_timeout=1).strays(tmp_path, set())) == count


@needs_root
def test_no_domain_of_libvirt_is_ended_for_a_program_of_root(tmp_path: Path) -> None:
    """It may have become root's, and its words are its caller's."""
    driver = LibvirtDriver(uri="qemu:///system", accelerator="tcg", cache=tmp_path, run=tmp_path)
    for user, count in ((0, 0), (users.pick(), 1)):
        with process("libvirt", tmp_path / "a", user, name="qemu"):
            assert len(driver.strays(tmp_path, set())) == count
