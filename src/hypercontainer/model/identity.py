# SPDX-License-Identifier: Apache-2.0
"""Whose a process is."""

from __future__ import annotations

from msgspec import field

from .base import Model


class Identity(Model, frozen=True, kw_only=True):
    """Who a process began as, by numbers of its container's."""

    uid: int
    gid: int
    groups: list[int] = field(default_factory=list)  # further ones
