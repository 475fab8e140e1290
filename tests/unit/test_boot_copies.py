# SPDX-License-Identifier: Apache-2.0
"""Copies in memory of what machines boot, for a hypervisor that may not read the files themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hypercontainer.hypervisor import boot_files

PROGRAM = """
import os, sys
os.geteuid = lambda: 0
from hypercontainer.hypervisor import boot_files
with open(sys.argv[1], "rb") as f:
    fd = boot_files.for_all(f.fileno(), jailed=True)
    print(fd != f.fileno(), os.pread(fd, 100, 0))
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(b"bzImage")
    path.chmod(0o600)
    return path


def test_none_is_open_when_the_process_ends(kernel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM, str(kernel)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True b'bzImage'\n", "")


def test_a_kernel_is_copied_once_and_again_when_it_is_another(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(boot_files, "_copies", {})
    with open(kernel, "rb") as f:
        first = boot_files.for_all(f.fileno(), jailed=False)
        assert boot_files.for_all(f.fileno(), jailed=False) == first != f.fileno()
        kernel.chmod(0o644)
        assert boot_files.for_all(f.fileno(), jailed=False) == f.fileno()  # everybody may read it
        kernel.chmod(0o600)
        kernel.write_bytes(b"another")
        second = boot_files.for_all(f.fileno(), jailed=False)
        assert os.pread(second, 100, 0) == b"another" and os.pread(first, 100, 0) == b"bzImage"
    boot_files._close_copies()
    assert boot_files._copies == {}
