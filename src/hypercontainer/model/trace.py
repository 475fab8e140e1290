# SPDX-License-Identifier: Apache-2.0
"""The parts of one `run`, as `hyperctl run --trace` shows them."""

from __future__ import annotations

from .base import Model


class Span(Model, frozen=True, kw_only=True):
    """A step; `lane` is who took it: hyperctl, hyperd, qemu or guest. Times are nanoseconds since the epoch."""

    lane: str
    name: str
    begin: int
    end: int
