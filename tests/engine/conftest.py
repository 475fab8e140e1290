# SPDX-License-Identifier: Apache-2.0
"""The engine's own tier: no virtual machine, no root, and no time that passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .stage import make_template
from .trials import Workers


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with an image."""
    root = tmp_path_factory.mktemp("template") / "root"
    make_template(root)
    return root


@pytest.fixture(scope="session")
def workers(template: Path) -> Iterator[Workers]:
    """Processes that play trials."""
    made = Workers(template)
    yield made
    made.close()
