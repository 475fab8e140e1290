# SPDX-License-Identifier: Apache-2.0
"""What all tiers share. A test's tier is the directory that it lies in."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def jail_of_helpers() -> Iterator[None]:
    """An engine that a test builds starts helpers by its jail: the next test has none of it."""
    from hypercontainer.jail import helpers

    before = helpers.jail()
    yield
    helpers.use(before)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tells of one trial more: some tests are many."""
    tier = Path(request.path).relative_to(REPOSITORY).parent

    def counted(kind: str) -> None:
        _counts[f"{tier}:{kind}"] += 1

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
    for tier in sorted({key.partition(":")[0] for key in _counts}):
        of_it = {key.partition(":")[2]: n for key, n in _counts.most_common() if key.startswith(f"{tier}:")}
        kinds = ", ".join(f"{n} {kind}" for kind, n in of_it.items())
        terminalreporter.write_line(f"{tier}: {sum(of_it.values())} trials: {kinds}")
