# SPDX-License-Identifier: Apache-2.0
"""What a program loads before it runs, for its jail."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.jail.libraries import _names_a_loader, libraries

PROGRAM = Path("/bin/sh").resolve()


def test_libraries_and_loader() -> None:
    found = {path.name.partition(".so")[0] for path in libraries(PROGRAM)}
    assert "libc" in found and any(name.startswith("ld-linux") for name in found)


def test_wherever_the_loader_lies() -> None:
    """On NixOS, say."""
    head = PROGRAM.read_bytes()[: 64 << 10]
    assert _names_a_loader(head) and b"\0/lib" in head
    assert _names_a_loader(head.replace(b"\0/lib", b"\0/nix"))


@pytest.mark.parametrize("head", [b"", b"#!/bin/sh\n\0/lib/x", b"\x7fELF\2", b"\x7fELF\1" + bytes(100)])
def test_what_is_no_such_program_is_not_executed(head: bytes, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(head)
    assert libraries(program) == ()


def test_a_static_program_has_none(repository: Path) -> None:
    made = sorted((repository / "src/hypercontainer/guest/bin").glob("hyperstart-*"))
    assert made and all(libraries(program) == () for program in made)
