# SPDX-License-Identifier: Apache-2.0
"""What volumes of pods are of this host, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, NotFound, Unsupported
from ..model.pods import VolumeRequest
from ..model.specs import ContainerSpec, Mount
from ..model.status import Container, PodVolume
from ..volumes import submounts


def format_of(r: VolumeRequest) -> str:
    """What a request that does not say it is for."""
    if r.monitors:
        return "rbd"
    if r.fstype in ("nfs", "nfs4"):
        return "nas"
    if r.source and not r.source.startswith(("/", "file://")):
        return "volume"
    if not r.source:
        return ""
    return "vfs" if os.path.isdir(r.source.removeprefix("file://")) else "raw"


def on_host(r: VolumeRequest, format_: str, common: dict[str, Any]) -> PodVolume:
    """A directory or a disk image of this host.

    :raise NotFound: it is not there. :raise InvalidArgument: it is none.
    """
    path = Path(r.source.removeprefix("file://"))
    if not path.is_absolute():
        raise InvalidArgument(f"volume {r.name}: the source {r.source!r} is not absolute", hint="begin it with /")
    if not path.exists():
        raise NotFound(f"volume {r.name}: the source {path} does not exist", hint="create it, or correct the path")
    if format_ == "vfs":
        return PodVolume(kind="directory", source=str(path), **common)
    if not path.is_file():
        raise InvalidArgument(f"volume {r.name}: {path} is no disk image", hint="use the format vfs for a directory")
    return PodVolume(kind="disk", source=str(path), format=format_ or "raw", fstype=r.fstype or "auto", **common)


def image_volume(image: str, fstype: str) -> PodVolume:
    """What a pod's containers have of an image by its id; one for all of them."""
    return PodVolume(name=f"image:{image}", kind="image", source=image, fstype=fstype, read_only=True)


def root_mount(spec: ContainerSpec) -> Mount:
    """Its root, of a container whose root is a directory of this host: what is made in it for mounts is written."""
    return Mount(target="/", type="bind", source=spec.rootfs)


def volumes_of(container: Container) -> list[str]:
    """The names of the pod's volumes that it has, its root among them where that is one."""
    root = [bind_name(root_mount(container.spec))] if container.spec.rootfs else []
    return list(dict.fromkeys([*root, *(m.volume for m in container.mounts if m.volume)]))


def bind_name(mount: Mount) -> str:
    """What the pod's volume is called that stands for a path of the host."""
    return f"bind:{Path(mount.source)}" + (":ro" if mount.read_only else "")


def add_bind(volumes: list[PodVolume], mount: Mount) -> str:
    """The name of the pod's volume for a path of the host; one per path and right to write."""
    path = Path(mount.source)
    if not path.is_absolute():
        raise InvalidArgument(f"the path {mount.source!r} of this host is not absolute", hint="begin it with /")
    if mount.make_source:
        _make_directory(path)
    if not path.exists():
        raise NotFound(f"the path {path} does not exist on this host", hint="create it, or correct the path")
    for v in volumes:
        if v.kind == "directory" and v.source == str(path) and v.read_only == mount.read_only and not v.named:
            return v.name
    name = bind_name(mount)
    volumes.append(PodVolume(name=name, kind="directory", source=str(path), read_only=mount.read_only))
    return name


def add_root(volumes: list[PodVolume], root: Mount) -> None:
    """By the name that `volumes_of` knows, whatever the pod calls that directory otherwise."""
    name = bind_name(root)
    if name not in {v.name for v in volumes}:
        volumes.append(PodVolume(name=name, kind="directory", source=str(Path(root.source))))


def check_propagation(mount: Mount, volume: PodVolume | None) -> None:
    """:raise InvalidArgument: nothing is mounted below such a volume. :raise Unsupported: this daemon cannot."""
    if not mount.propagation:
        return
    if volume is None or volume.kind != "directory":
        raise InvalidArgument(f"{mount.target}: {mount.propagation} is for directories of this host",
                              hint="leave the propagation out")  # fmt: skip
    if not submounts.can_follow():
        raise Unsupported(
            f"{mount.target}: what is mounted on this host later comes to containers by root's hyperd with its jail "
            "only", hint="leave the propagation out",
        )  # fmt: skip


def _make_directory(path: Path) -> None:
    """:raise InvalidArgument: it cannot be made; nothing is done where something is."""
    try:
        if not os.path.lexists(path):
            path.mkdir(parents=True)
    except OSError as error:
        raise InvalidArgument(f"cannot make the directory {path}: {error.strerror}", hint="make it yourself") from error
