# SPDX-License-Identifier: Apache-2.0
"""An error, a cancellation, a full disk, and the daemon's death at every place where a verb waits.

After each the verb has returned, the account is right, everything can be removed, and nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .scenes import SCENES
from .trials import KINDS, Wanted, Workers

# What is known to go wrong, by scene, kind and place, with the reason; whoever mends it takes it off.
KNOWN: dict[tuple[str, str], dict[str, str]] = {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_fault_at_every_place(workers: Workers, count: Callable[[str], None], scene: str, kind: str) -> None:
    found: dict[str, str] = {}
    for at, (site, wrong) in enumerate(workers.at_every_place(scene, kind)):
        assert site or not wrong, f"without a fault: {wrong}"
        if site:
            count(kind)
        if wrong:
            found[re.sub(r":\d+", "", site)] = f"[{at}] at {site}\n    {wrong}"
    known = KNOWN.get((scene, kind), {})
    new = [text for site, text in found.items() if site not in known]
    assert not new, f"{len(new)} places:\n" + "\n".join(new)
    assert found.keys() == known.keys(), f"mended, and still in KNOWN: {known.keys() - found.keys()}"
    if known:
        pytest.xfail("; ".join(dict.fromkeys(known.values())))


@pytest.mark.parametrize("scene", [name for name, scene in SCENES.items() if not scene.opens])
def test_a_disk_that_is_full_from_the_beginning(workers: Workers, count: Callable[[str], None], scene: str) -> None:
    count("full")
    outcome = workers.one(Wanted(scene, "full", -1))
    assert not outcome.wrong
