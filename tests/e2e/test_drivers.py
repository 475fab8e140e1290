# SPDX-License-Identifier: Apache-2.0
"""What `make test-drivers` does in the lab with each driver, here with the one that works everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .conftest import DEADLINE


def test_a_container_as_people_type_it(repository: Path) -> None:
    command = [sys.executable, "-m", "tests.drivers", "--accelerator", "tcg", "qemu"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nof this host\n")
