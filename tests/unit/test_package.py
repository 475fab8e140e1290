# SPDX-License-Identifier: Apache-2.0
"""What `pip install` runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def test_the_build_hook_builds(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hatchling loads it: by its path, in a process that knows no other module of ours."""
    monkeypatch.delitem(sys.modules, "hyperstart_build", raising=False)
    path = repository / "hyperstart/hatch_build.py"
    spec = importlib.util.spec_from_file_location("hatch_build_of_a_test", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook = module.HyperstartHook(str(repository), {}, None, None, "", "wheel")
    hook.initialize("editable", {})
    built = {p.name for p in (repository / "src/hypercontainer").rglob("bin/*")}
    assert {"hyperstart-x86_64", "hyperstart-aarch64"} <= built and any("hyperjail" in name for name in built)
    sys.modules.pop("hyperstart_build", None)
