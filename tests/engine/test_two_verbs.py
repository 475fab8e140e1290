# SPDX-License-Identifier: Apache-2.0
"""Two verbs at once: the second begins at every place where the first waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .scenes import PARTNERS, PODS, SINGLES
from .trials import Workers, judge

# What is known to go wrong: what is said then, and the reason. Whoever mends it takes it off.
KNOWN: dict[tuple[str, str], tuple[str, str]] = {}
_OF_PODS = ("pod start", "pod stop", "pod rm -f", "pod pause", "pod unpause")


@pytest.mark.parametrize("second", [v for v in PARTNERS if v not in _OF_PODS])
@pytest.mark.parametrize("first", SINGLES)
def test_two_verbs_on_a_container(workers: Workers, count: Callable[..., None], first: str, second: str) -> None:
    _both(workers, count, first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (first, second)
        for first in ("start in a network", "rm -f in a network")
        for second in ("start", "rm -f", "kill")
    ],
)
def test_two_verbs_on_a_container_with_a_tap(
    workers: Workers, count: Callable[..., None], first: str, second: str
) -> None:
    _both(workers, count, first, second)


@pytest.mark.parametrize("second", _OF_PODS)
@pytest.mark.parametrize("first", PODS)
def test_two_verbs_on_a_pod(workers: Workers, count: Callable[..., None], first: str, second: str) -> None:
    _both(workers, count, first, second)


def _both(workers: Workers, count: Callable[..., None], first: str, second: str) -> None:
    wrong = workers.at_every_place(first, second, count, "orders of two verbs")
    judge(wrong, KNOWN.get((first, second)))
