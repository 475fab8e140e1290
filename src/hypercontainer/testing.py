# SPDX-License-Identifier: Apache-2.0
"""Fixtures for pytest: sandboxes that end with the test. The plugin is there when `hypercontainer` is installed.

    def test_it(sandbox):
        assert sandbox.run("uname -s").stdout == "Linux\\n"

`sandbox` is one of the image that `--sandbox-image` or `sandbox_image` of pytest's configuration names; further ones,
of any image, are `sandbox_factory`'s. They are hyperd's that HYPER_HOST names, else this user's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from .sdk import Sandbox

_IMAGE = "busybox"


class SandboxFactory(Protocol):
    """What `sandbox_factory` is."""

    def __call__(self, image: str | None = None, **how: Any) -> Sandbox:
        """A new sandbox, by default of the configured image; `how` is `Sandbox.create`'s."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the plugin can be told."""
    text = "image of the fixture `sandbox`"
    parser.getgroup("hypercontainer").addoption("--sandbox-image", metavar="IMAGE", default=None, help=text)
    parser.addini("sandbox_image", text, default=_IMAGE)


@pytest.fixture
def sandbox_factory(pytestconfig: pytest.Config) -> Iterator[SandboxFactory]:
    """Makes sandboxes, which end with the test; what could not be ended fails it."""
    from .sdk import Sandbox  # most runs of pytest need none

    configured = pytestconfig.getoption("sandbox_image") or pytestconfig.getini("sandbox_image")
    with contextlib.ExitStack() as made:

        def create(image: str | None = None, **how: Any) -> Sandbox:
            return made.enter_context(Sandbox.create(image or configured, **how))

        yield create


@pytest.fixture
def sandbox(sandbox_factory: SandboxFactory) -> Sandbox:
    """A sandbox of the configured image."""
    return sandbox_factory()
