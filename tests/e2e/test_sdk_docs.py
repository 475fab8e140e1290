# SPDX-License-Identifier: Apache-2.0
"""The examples of the SDK's documents, as programs of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import DEADLINE, Daemon
from .python_image import with_python

ROOT = Path(__file__).parents[2]
LONG = 600  # seconds for one with an interpreter, where a processor is emulated
# The first one of these makes the image.
WITH_PYTHON = (pytest.mark.slow, pytest.mark.timeout(1800))
EXAMPLES = [
    pytest.param(example, id=f"{page.stem}-{number}", marks=WITH_PYTHON if "python:" in example else ())
    for page in (ROOT / "README.md", ROOT / "docs/sdk.md")
    for number, example in enumerate(re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(), re.M | re.S), 1)
]
"""Those of pytest are files of tests."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(hyper: Daemon, example: str, tmp_path: Path) -> None:
    if "python:" in example:
        with_python(hyper)
    program = tmp_path / "test_example.py"
    indent = len(example) - len(example.lstrip(" "))
    program.write_text(re.sub(f"^ {{{indent}}}", "", example, flags=re.M))
    module = (
        ["-m", "pytest", "-q", "-p", "hypercontainer.testing", "-p", "no:cacheprovider"]
        if "def test_" in example
        else []
    )
    environment = {**os.environ, "HYPER_HOST": str(hyper.socket)}
    done = subprocess.run(
        [sys.executable, *module, str(program)], env=environment, cwd=tmp_path, capture_output=True, text=True,
        timeout=LONG if "python:" in example else DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert hyper.out("ps", "-aq") == ""
