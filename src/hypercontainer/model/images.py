# SPDX-License-Identifier: Apache-2.0
"""Images as they are shown."""

from __future__ import annotations

from typing import Any

from msgspec import field

from .appc import Rights
from .base import Model


class RootFs(Model, frozen=True, kw_only=True):
    """What an image's layers are once they are uncompressed."""

    type: str = "layers"
    layers: list[str] = field(default_factory=list)  # diff ids, lowest first


class ImageDisk(Model, frozen=True, kw_only=True):
    """What machines have of an image; the path is "" until it is made."""

    name: str  # kind of file system
    data: dict[str, str] = field(default_factory=dict)


class Image(Model, frozen=True, kw_only=True):
    """An image of the store."""

    id: str  # digest of the configuration
    names: list[str]
    digest: str  # of the manifest
    created: str
    size: int  # bytes of the image disk
    architecture: str
    os: str
    layers: list[str]  # diff ids, lowest first
    config: dict[str, Any]  # OCI image configuration's "config"
    damaged: str = ""  # why it cannot be run; it can be removed, or pulled again
    repo_tags: list[str] = field(default_factory=list)  # names as people write them
    repo_digests: list[str] = field(default_factory=list)  # the same by digests of what registries have
    variant: str = ""
    author: str = ""
    comment: str = ""  # of the last step
    root_fs: RootFs = field(default_factory=RootFs, name="rootFS")
    graph_driver: ImageDisk | None = None
    platforms: list[str] = field(default_factory=list)  # of an index: those that are here


class HistoryEntry(Model, frozen=True, kw_only=True):
    """A step of how an image was made, the last one first."""

    id: str  # of the image for the last step; else `<missing>`, as Docker has it
    created: str
    created_by: str
    size: int  # bytes of its layer as it is stored
    comment: str = ""
    tags: list[str] = field(default_factory=list)


class RemovedImage(Model, frozen=True, kw_only=True):
    """What a removal did."""

    untagged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    freed: int = 0  # bytes
    id: str = ""  # of the image that lost names, where one was named


class LoadedImage(Model, frozen=True, kw_only=True):
    """An image that was taken from an archive."""

    id: str
    names: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)  # names that other images lost to it -> their ids
    app: Rights | None = None  # of an App Container image


class CommitRequest(Model, frozen=True, kw_only=True):
    """What an image of a container is to be."""

    reference: str = ""  # its name; "" for none
    author: str = ""
    message: str = ""
    changes: list[str] = field(default_factory=list)  # instructions of a Dockerfile
    pause: bool = True  # while its files are read
    config: dict[str, Any] | None = None  # goes over the container's own
