# SPDX-License-Identifier: Apache-2.0
"""An error, a cancellation and a full disk at every place where a verb waits; its death is in `test_deaths`.

After each the verb has returned, the account is right, everything can be removed, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .trials import KINDS, SCENES, Wanted, Workers, judge

# What is known to go wrong: what is said then, and the reason. Whoever mends it takes it off.
KNOWN: dict[tuple[str, str], tuple[str, str]] = {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_fault_at_every_place(workers: Workers, count: Callable[..., None], scene: str, kind: str) -> None:
    judge(workers.at_every_place(scene, kind, count), KNOWN.get((scene, kind)))


@pytest.mark.parametrize("scene", [name for name, scene in SCENES.items() if not scene.opens])
def test_a_disk_that_is_full_from_the_beginning(workers: Workers, count: Callable[..., None], scene: str) -> None:
    count("full")
    outcome = workers.one(Wanted(scene, "full", -1))
    assert not outcome.wrong
