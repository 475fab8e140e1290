# SPDX-License-Identifier: Apache-2.0
"""A short storm of verbs and faults; `make chaos` has longer ones. HYPER_TEST_SEED repeats one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.cycles import cycles, pods, quiet_host
from tests.chaos.host import host
from tests.chaos.storm import Storm, report

SEED = int(os.environ.get("HYPER_TEST_SEED", "0")) or 4
STEPS = 16


@pytest.mark.turns(2)
def test_a_short_storm(tmp_path: Path) -> None:
    with host(tmp_path, f"s{os.getpid()}") as made:
        storm = Storm(made, SEED)
        storm.run(steps=STEPS)
        report(storm, SEED, None)
    assert storm.steps > STEPS and sum(storm.times.values()) > 2


@pytest.mark.turns(2)
def test_nothing_is_left_of_cycles_and_of_pods(tmp_path: Path) -> None:
    with quiet_host(tmp_path) as made:
        cycles(made, 5)
        pods(made, 4)
