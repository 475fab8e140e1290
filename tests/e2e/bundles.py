# SPDX-License-Identifier: Apache-2.0
"""Bundles for the OCI runtime, and the runtime as its callers have it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from hypercontainer.images import builtin

from .conftest import BIN, DEADLINE, Daemon


def make_root(directory: Path) -> Path:
    """busybox's files, as the built-in image has them."""
    directory.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(builtin._layer(builtin._find_busybox()))) as tar:
        tar.extractall(directory, filter="tar")
    return directory


def make_bundle(directory: Path, rootfs: Path, *args: str, **process: Any) -> Path:
    """One whose process has these arguments; its network is its loopback."""
    directory.mkdir(parents=True)
    subprocess.run([BIN / "hyper-runtime", "spec", "-b", directory], check=True, timeout=DEADLINE)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": list(args), **process}
    config["root"] = {"path": str(rootfs)}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


class Runtime:
    """hyper-runtime with a directory of its own."""

    def __init__(self, daemon: Daemon, root: Path) -> None:
        self._command = [BIN / "hyper-runtime", "--root", root, "--hyper-host", daemon.socket]

    def __call__(self, *args: str | Path, check: bool = True, **how: Any) -> subprocess.CompletedProcess[str]:
        """With `check` it must succeed. What stands for a container has the streams of its creation: pipes would be
        held open by it.
        """
        done = subprocess.run(
            [*self._command, *args], text=True, timeout=DEADLINE, check=False, **{"capture_output": True, **how}
        )
        assert not check or done.returncode == 0, f"{args}: {done.returncode} {done.stdout} {done.stderr}"
        return done

    def popen(self, *args: str | Path, **how: Any) -> subprocess.Popen[str]:
        """One that is not waited for."""
        return subprocess.Popen([*self._command, *args], text=True, **how)

    def state(self, id_: str) -> dict[str, Any]:
        """As the specification has it."""
        found: dict[str, Any] = json.loads(self("state", id_).stdout)
        return found
