# SPDX-License-Identifier: Apache-2.0
"""kernel: build hyperkernel on this host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from ..errors import Unavailable


def _builder() -> Path:
    """hyperkernel/build.py: in the package, or in the source tree."""
    package = Path(__file__).parents[1] / "kernel/hyperkernel/build.py"
    for path in (package, Path(__file__).parents[3] / "hyperkernel/build.py"):
        if path.exists():
            return path
    raise Unavailable("hyperkernel's build files are not in this installation", hint="reinstall the package")


@click.group()
def kernel() -> None:
    """The guest kernel."""


@kernel.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def build(arguments: tuple[str, ...]) -> int:
    """Build hyperkernel from Debian's kernel source; see `build --help` for its own options."""
    return subprocess.run([sys.executable, _builder(), *arguments], check=False).returncode
