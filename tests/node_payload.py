# SPDX-License-Identifier: Apache-2.0
"""Wheels for the payload of a node's image (deploy/node)."""

from __future__ import annotations

import ensurepip
import zipfile
from pathlib import Path

import pytest


def own_wheel(directory: Path, version: int) -> Path:
    """One with programs of our names, which needs no other."""
    name, path = f"hypercontainer-{version}.dist-info", directory / f"hypercontainer-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("hypercontainer.py", "def main():\n    print('it runs')\n")
        programs = "".join(f"{p} = hypercontainer:main\n" for p in ("hyperd", "hyperctl", "hyper-runtime"))
        wheel.writestr(f"{name}/entry_points.txt", f"[console_scripts]\n{programs}")
        wheel.writestr(f"{name}/METADATA", f"Metadata-Version: 2.1\nName: hypercontainer\nVersion: {version}\n")
        wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}/RECORD", "")
    return path


def pip_wheel() -> Path:
    """The one that Python has, or Debian for it."""
    places = Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")
    found = [wheel for place in places for wheel in place.glob("pip-*.whl")]
    if not found:
        pytest.skip("there is no wheel of pip here: it comes with Python, or with Debian's python3-pip-whl")
    return found[0]
