# SPDX-License-Identifier: Apache-2.0
"""Volumes as they were at one instant, and what is asked of them. Sizes are in bytes."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, field

from .base import Model
from .principal import Tenant

# idle    nobody wrote to the volume
# frozen  a pod that runs had it: its file system was whole on the disk, and took no writes
# paused  a pod had it, and its machine stood still, or was on the disk: as after a power cut
Manner = Literal["idle", "frozen", "paused"]


class VolumeSnapshotRequest(Model, frozen=True, kw_only=True):
    """Keep a volume as it is now."""

    volume: str
    name: str = ""  # "" is made up
    labels: dict[str, str] = field(default_factory=dict)


class VolumeSnapshot(Model, frozen=True, kw_only=True):
    """A volume as it was."""

    id: str
    name: str
    created_at: str
    volume: str  # name of the volume that it is of, which may be gone
    size: int  # that a volume made of it may grow to
    fstype: str
    format: str
    manner: Manner
    still_ms: int  # for how long nothing was written meanwhile
    labels: dict[str, str] = field(default_factory=dict)
    disk_usage: int = 0  # on this host's disk, when it is told
    owner: str = ""  # the principal that made it; "" is the daemon
    tenant: Tenant = UNSET
