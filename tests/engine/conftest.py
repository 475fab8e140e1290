# SPDX-License-Identifier: Apache-2.0
"""The engine's own tier: no virtual machine, no root, and no time that passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.jail import helpers
from hypercontainer.jail.fake import FakeJail
from tests.sample import Sample

from .stage import Stage, make_template, play, stage, whole
from .trials import Workers


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with an image."""
    root = tmp_path_factory.mktemp("template") / "root"
    make_template(root)
    return root


@pytest.fixture(scope="session")
def workers(template: Path, sample: Sample) -> Iterator[Workers]:
    """Processes that play trials."""
    made = Workers(template, sample)
    yield made
    made.close()


@pytest.fixture
def jail() -> Iterator[FakeJail]:
    """The daemon's jail for helpers."""
    before, fake = helpers.jail(), FakeJail()
    helpers.use(fake)
    yield fake
    helpers.use(before)


@pytest.fixture
def act(template: Path) -> Callable[..., None]:
    """Play a scenario on an empty host with a daemon; at its end everything can be removed."""

    def acted(scenario: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
        with stage(template, **settings) as s:
            play(s, whole(scenario))

    return acted
