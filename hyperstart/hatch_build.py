# SPDX-License-Identifier: Apache-2.0
"""Puts the binaries of hyperstart and of hyperjail into the wheel."""

from __future__ import annotations

import importlib.util
import sys
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
        sys.modules[spec.name] = module  # where dataclasses look up what annotations mean
        spec.loader.exec_module(module)
        module.build_all()
