# SPDX-License-Identifier: Apache-2.0
"""What all tiers share. A test's tier is the directory that it lies in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine is no failure.
settings.register_profile("hyper", deadline=None)
settings.load_profile("hyper")

TIERS = ("unit", "engine", "contract", "guest", "vm", "e2e")
REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = Path(item.path).relative_to(REPOSITORY / "tests").parts[0]
        item.add_marker(getattr(pytest.mark, tier))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
