# SPDX-License-Identifier: Apache-2.0
"""What all tiers share. A test's tier is the directory that it lies in."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.sample import EVERY, LEFT_OUT, Sample, out_of_turn

# A loaded machine is no failure.
settings.register_profile("hyper", deadline=None)
settings.load_profile("hyper")

TIERS = ("unit", "engine", "contract", "guest", "vm", "e2e")
REPOSITORY = Path(__file__).resolve().parents[1]
_counts: Counter[str] = Counter()  # of trials, by kind; here, since a process that shares tests out loads nothing below


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trials", "places at which something comes between (tests/engine)")
    group.addoption("--trials-every", type=int, default=EVERY, metavar="N", help="make each Nth; 1: all of them")
    today = int(time.time() // 86400)
    group.addoption(
        "--trials-from", type=int, default=today, metavar="K", help="begin with another one; by default by the day"
    )


def pytest_report_header(config: pytest.Config) -> str:
    every, first = config.getoption("--trials-every"), config.getoption("--trials-from")
    return f"trials: each {every}. of a verb's places, and tests whose turn it is, --trials-from {first}"


@pytest.fixture(scope="session")
def sample(pytestconfig: pytest.Config) -> Sample:
    return Sample(pytestconfig.getoption("--trials-every"), pytestconfig.getoption("--trials-from"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        tier = Path(item.path).relative_to(REPOSITORY / "tests").parts[0]
        item.add_marker(getattr(pytest.mark, tier))
    if config.getoption("--trials-every") == 1 or any("::" in argument for argument in config.args):
        return
    marked = [(mark.args[0], item) for item in items if (mark := item.get_closest_marker("turns"))]
    files = [(every, str(item.path.relative_to(REPOSITORY))) for every, item in marked]
    waiting = {marked[place][1] for place in out_of_turn(files, config.getoption("--trials-from"))}
    config.hook.pytest_deselected(items=[item for item in items if item in waiting])
    items[:] = [item for item in items if item not in waiting]


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
def count(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Tells of one trial more, or of several: some tests are many."""
    tier = Path(request.path).relative_to(REPOSITORY).parent

    def counted(kind: str, trials: int = 1) -> None:
        _counts[f"{tier}:{kind}"] += trials

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
        left = of_it.pop(LEFT_OUT, 0)
        kinds = ", ".join(f"{n} {kind}" for kind, n in of_it.items())
        of_all = f" of {sum(of_it.values()) + left}" if left else ""
        terminalreporter.write_line(f"{tier}: {sum(of_it.values())}{of_all} trials: {kinds}")
