# SPDX-License-Identifier: Apache-2.0
"""The engine of the vm tier, with another driver."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hypercontainer.hyperd.config import Config
from tests.vm.conftest import DEADLINE, lab, root, run_dir

__all__ = ["lab", "root", "run_dir"]


@pytest.fixture
def config(root: Path, run_dir: Path) -> Config:
    if os.environ.get("HYPER_TEST_ACCELERATOR") != "kvm" or not shutil.which("firecracker"):
        pytest.skip("it takes the lab: make test-kvm TESTS=tests/lab/test_firecracker.py")
    return Config(
        root=str(root), run=str(run_dir), driver="firecracker", accelerator="kvm",
        network="bridge", boot_timeout=DEADLINE,
    )  # fmt: skip
