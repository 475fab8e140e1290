# SPDX-License-Identifier: Apache-2.0
"""What `make test-drivers` does in the lab with each driver, here with those that work without KVM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import libvirtd

from .conftest import DEADLINE


def played(repository: Path, driver: str) -> str:
    command = [sys.executable, "-m", "tests.drivers", "--accelerator", "tcg", driver]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_container_as_people_type_it(repository: Path) -> None:
    assert played(repository, "qemu").endswith("\nof this host\n")


@pytest.mark.slow
def test_a_container_of_libvirts(repository: Path) -> None:
    if why := libvirtd.missing():
        pytest.skip(why)
    assert "\npage\n" in played(repository, "libvirt")
