# SPDX-License-Identifier: Apache-2.0
"""How images look to Docker's clients."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import HyperError
from ..images.describe import labels
from ..model.images import HistoryEntry, Image
from ..model.moments import SECOND, read_moment, write_moment
from .versions import ApiVersion

_NOWHERE = "<none>:<none>"
_NO_DIGEST = "<none>@<none>"
# What an image's configuration had of a container's until 1.50, always empty.
_OF_CONTAINERS: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip
# What it has from then on, where it is not empty.
_FIELDS = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "ArgsEscaped",
    "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip


class Descriptor(msgspec.Struct, kw_only=True, rename="camel"):
    """OCI's, of what a name stands for."""

    media_type: str
    digest: str
    size: int


class Summary(msgspec.Struct, kw_only=True, rename="pascal"):
    """A line of `docker images`."""

    containers: int = -1
    created: int
    id: str
    labels: dict[str, str] | None
    parent_id: str = ""
    descriptor: Descriptor | UnsetType = UNSET
    manifests: list[Any] | UnsetType = UNSET
    repo_digests: list[str]
    repo_tags: list[str]
    shared_size: int = -1
    size: int
    virtual_size: int | UnsetType = UNSET


class Details(msgspec.Struct, kw_only=True, rename="pascal"):
    """What `docker image inspect` shows."""

    id: str
    repo_tags: list[str]
    repo_digests: list[str]
    parent: str = ""
    comment: str
    created: str
    container: str | UnsetType = UNSET
    container_config: Any = UNSET
    docker_version: str = ""
    author: str
    config: dict[str, Any]
    architecture: str
    variant: str | UnsetType = UNSET
    os: str
    size: int
    virtual_size: int | UnsetType = UNSET
    graph_driver: Any
    root_fs: Any = msgspec.field(name="RootFS")
    metadata: dict[str, str] = msgspec.field(default_factory=lambda: {"LastTagTime": "0001-01-01T00:00:00Z"})
    manifests: list[Any] | UnsetType = UNSET


class Step(msgspec.Struct, kw_only=True, rename="pascal"):
    """A line of `docker history`."""

    comment: str
    created: int
    created_by: str
    id: str
    size: int
    tags: list[str] | None


def step(entry: HistoryEntry) -> Step:
    """Of one."""
    return Step(
        comment=entry.comment,
        created=_seconds(entry.created),
        created_by=entry.created_by,
        id=entry.id,
        size=entry.size,
        tags=entry.tags or None,
    )


def summary(
    image: Image, version: ApiVersion, *, shared: int = -1, containers: int = -1, size: int | None = None
) -> Summary:
    """Of one image; without names it has none, or, for old clients, the words for none.

    Nobody asked for what is -1. `size` is that of all that it takes, where it was measured.
    """
    size = image.size if size is None else size
    old = version < (1, 43)
    nowhere = old and not image.repo_tags
    return Summary(
        created=_seconds(image.created),
        id=image.id,
        labels=labels(image) or None,
        repo_tags=[_NOWHERE] if nowhere else image.repo_tags,
        repo_digests=[_NO_DIGEST] if nowhere and not image.repo_digests else image.repo_digests,
        size=size,
        shared_size=shared,
        containers=containers,
        virtual_size=size if version < (1, 44) else UNSET,
    )


def details(image: Image, version: ApiVersion) -> Details:
    """Of one image, as far as it is not damaged."""
    driver = image.graph_driver
    return Details(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        comment=image.comment,
        created=_moment(image.created),
        container="" if version < (1, 45) else UNSET,
        container_config=dict(_OF_CONTAINERS) if version < (1, 45) else UNSET,
        author=image.author,
        config=configuration(image, version),
        architecture=image.architecture,
        variant=image.variant or UNSET,
        os=image.os,
        size=image.size,
        virtual_size=image.size if version < (1, 44) else UNSET,
        graph_driver={"Data": dict(driver.data) if driver else {}, "Name": driver.name if driver else ""},
        root_fs={"Type": image.root_fs.type, "Layers": image.root_fs.layers},
    )


def configuration(image: Image, version: ApiVersion) -> dict[str, Any]:
    """What it says of its containers."""
    if version < (1, 50):
        return _OF_CONTAINERS | image.config
    return {key: image.config[key] for key in _FIELDS if image.config.get(key)}


def _moment(text: str) -> str:
    try:
        return write_moment(read_moment(text)) if text else ""
    except HyperError:
        return ""


def _seconds(text: str) -> int:
    try:
        return read_moment(text) // SECOND if text else 0
    except HyperError:
        return 0
