# SPDX-License-Identifier: Apache-2.0
"""The engine's own tier: no virtual machine, no root, and no time that passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .stage import make_template
from .trials import Workers

_counts: Counter[str] = Counter()


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


@pytest.fixture
def count() -> Callable[[str], None]:
    """Tells of one trial more."""

    def counted(kind: str) -> None:
        _counts[kind] += 1

    return counted


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried: a test of this tier is many trials."""
    if _counts:
        kinds = ", ".join(f"{n} {kind}" for kind, n in _counts.most_common())
        terminalreporter.write_line(f"tests/engine: {_counts.total()} trials, each on a host of its own: {kinds}")
