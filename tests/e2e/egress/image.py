# SPDX-License-Identifier: Apache-2.0
"""Python, curl and the certificates of Debian: what tries to get out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import images

_PACKAGES = "python3,curl,ca-certificates,iproute2"


def layout() -> Path:
    """The OCI layout, made once."""

    def make(layout: Path, scratch: Path) -> None:
        images._base(layout, scratch, _PACKAGES)

    return images.cached(f"egress-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}", make)
