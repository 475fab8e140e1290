# SPDX-License-Identifier: Apache-2.0
"""The engine's own tier: no virtual machine, no root, and no time that passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .stage import make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with an image."""
    root = tmp_path_factory.mktemp("template") / "root"
    make_template(root)
    return root
