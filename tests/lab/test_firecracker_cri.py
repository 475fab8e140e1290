# SPDX-License-Identifier: Apache-2.0
"""A kubelet's pod of the handler `hyper-fc`: `make test-kvm TESTS=tests/lab/test_firecracker_cri.py`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.test_cri import kubelet_runs_a_pod


@pytest.mark.skipif(
    os.environ.get("HYPER_TEST_ACCELERATOR") != "kvm" or not shutil.which("firecracker"), reason="it takes the lab"
)
def test_a_pod_of_firecracker_as_a_kubelet_runs_it(tmp_path: Path) -> None:
    """Its containers' disks come later; its directories, and a part of one, by a stream."""
    kubelet_runs_a_pod(tmp_path, "hyper-fc", "--network", "bridge", "--accelerator", "kvm")
