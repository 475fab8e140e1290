# SPDX-License-Identifier: Apache-2.0
"""What others made for the console is what its list says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def test_files_of_others_are_as_they_were_published(repository: Path) -> None:
    vendor = repository / "src/hypercontainer/console/static/vendor"
    listed = dict(re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (vendor / "README.md").read_text(), re.M))
    there = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in vendor.iterdir() if p.suffix in (".js", ".css")
    }
    assert there == listed and len(there) == 4
