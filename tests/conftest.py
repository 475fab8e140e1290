# SPDX-License-Identifier: Apache-2.0
"""What all tiers share. A test's tier is the directory that it lies in."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A loaded machine is no failure.
settings.register_profile("hyper", deadline=None)
settings.load_profile("hyper")

TIERS = ("unit", "engine", "contract", "guest", "vm", "e2e")
REPOSITORY = Path(__file__).resolve().parents[1]
_counts: Counter[str] = Counter()  # of trials, by kind; here, since a process that shares tests out loads nothing below


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = Path(item.path).relative_to(REPOSITORY / "tests").parts[0]
        item.add_marker(getattr(pytest.mark, tier))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def count() -> Callable[[str], None]:
    """Tells of one trial more: a test of tests/engine is many."""

    def counted(kind: str) -> None:
        _counts[kind] += 1

    return counted


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # modules and tests are no garbage: nobody has to look through them again and again


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes, each with a share of the tests
        session.config.workeroutput["trials"] = dict(_counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _counts.update(getattr(node, "workeroutput", {}).get("trials", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried."""
    if _counts:
        kinds = ", ".join(f"{n} {kind}" for kind, n in _counts.most_common())
        terminalreporter.write_line(f"tests/engine: {_counts.total()} trials, each on a host of its own: {kinds}")
