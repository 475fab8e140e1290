# SPDX-License-Identifier: Apache-2.0
"""Puts hyperstart's binaries into the wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class HyperstartHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles before the wheel is packed; also for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        path = Path(self.root) / "hyperstart/build.py"
        spec = importlib.util.spec_from_file_location("hyperstart_build", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.build_all()
