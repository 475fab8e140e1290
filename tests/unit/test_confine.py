# SPDX-License-Identifier: Apache-2.0
"""What a process has that gave up its rights."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import os, resource
from hypercontainer.sys.confine import Confinement, confine
resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
confine(Confinement(os.getuid(), os.getgid(), 1 << 30, 0, 1 << 20, 64, 1 << 20))
print(resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_program_that_collects_cores_gets_none() -> None:
    """It would with a limit of 0, by core(5)."""
    assert subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True).stdout == b"(1, 1)\n"
