# SPDX-License-Identifier: Apache-2.0
"""What can be told of a container's program before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.oci import view


@pytest.mark.parametrize(("name", "wrong"), [("./bin", True), ("./text", True), ("./run", False), ("./none", False)])
def test_what_nobody_may_execute(tmp_path: Path, name: str, wrong: bool) -> None:
    (tmp_path / "bin").mkdir()
    for file, mode in (("text", 0o644), ("run", 0o755)):
        (tmp_path / file).touch()
        (tmp_path / file).chmod(mode)
    assert view.is_no_program(name, str(tmp_path)) is wrong
    assert not view.is_no_program("bin", str(tmp_path))  # it is looked for in PATH
