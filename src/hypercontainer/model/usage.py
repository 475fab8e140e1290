# SPDX-License-Identifier: Apache-2.0
"""What takes disk space: `system df`."""

from __future__ import annotations

from msgspec import field

from .base import Model
from .images import Image
from .snapshots import SnapshotInfo
from .status import VolumeInfo
from .volume_snapshots import VolumeSnapshot


class ImageUsage(Model, frozen=True, kw_only=True):
    """An image with the bytes of its blobs and its disk."""

    image: Image
    size: int
    shared_size: int  # of blobs that other images have, too
    containers: int  # made from it


class ContainerUsage(Model, frozen=True, kw_only=True):
    """A container with the bytes of its own disk."""

    id: str
    name: str
    image: str
    command: list[str]
    created_at: str
    status: str
    running: bool
    local_volumes: int
    size: int


class BuildCacheUsage(Model, frozen=True, kw_only=True):
    """What builds have kept; nothing while no builder runs."""

    records: int = 0
    active: int = 0  # of those, what builds use now
    size: int = 0  # bytes of what images do not have, too
    reclaimable: int = 0  # of these, bytes of what no build uses


class Freed(Model, frozen=True, kw_only=True):
    """What a removal brought."""

    freed: int  # bytes


class SuspendedUsage(Model, frozen=True, kw_only=True):
    """What a suspended pod goes on from."""

    pod: str  # name
    size: int  # bytes


class DiskUsage(Model, frozen=True, kw_only=True):
    """All of it; bytes of images count what they share once."""

    layers_size: int
    images_reclaimable: int  # of what images that containers and snapshots use do not need
    images: list[ImageUsage] = field(default_factory=list)
    containers: list[ContainerUsage] = field(default_factory=list)
    volumes: list[VolumeInfo] = field(default_factory=list)
    snapshots: list[SnapshotInfo] = field(default_factory=list)
    volume_snapshots: list[VolumeSnapshot] = field(default_factory=list)
    suspended: list[SuspendedUsage] = field(default_factory=list)
    build_cache: BuildCacheUsage = BuildCacheUsage()
