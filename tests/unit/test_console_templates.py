# SPDX-License-Identifier: Apache-2.0
"""Templates of the console: nothing in them needs what its Content-Security-Policy forbids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hypercontainer.console

_TEMPLATES = sorted((Path(hypercontainer.console.__file__).parent / "templates").glob("**/*.html"))
_FORBIDDEN = {
    "a handler in an attribute": r"\s(on[a-z]+|hx-on[^=\s]*)\s*=",
    "an event's filter, which htmx evaluates": r"hx-trigger=\"[^\"]*\[",
    "a value that htmx evaluates": r"hx-(vals|headers|vars)=[\"'](js|javascript):|hx-vars=",
    "a style in an attribute": r"\sstyle=",
    "a script in the page": r"<script(?![^>]*\ssrc=)",
}


@pytest.mark.parametrize("path", _TEMPLATES, ids=lambda p: p.name)
def test_nothing_is_evaluated(path: Path) -> None:
    text = path.read_text()
    assert [what for what, pattern in _FORBIDDEN.items() if re.search(pattern, text)] == []
