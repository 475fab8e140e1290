# SPDX-License-Identifier: Apache-2.0
"""Files of the node that a kubelet mounts into containers.

Directories are given to a virtual machine when it boots, and CRI names those of a container later. A kubelet makes a
pod's volumes before the sandbox, below `pods/UID` of its own directory, with `/etc/hosts` and the files for last
words; so a sandbox has that directory, and what is mounted in it, from its start. What else a container mounts is
added to the tree that the machine is served (volumes/share.py).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ..errors import InvalidState
from ..model.pods import VolumeRequest
from ..model.specs import Mount, Propagation
from ..model.status import Pod
from ..sys.mount_table import MountPoint, mount_table

_NAME = "kubelet"


class Place(NamedTuple):
    """A file, whatever it is mounted as."""

    device: str
    path: str  # in the file system

    def below(self, other: Place) -> str | None:
        """The way from there; None where there is none."""
        if self.device != other.device or not f"{self.path}/".startswith(other.path.rstrip("/") + "/"):
            return None
        return self.path[len(other.path) :].strip("/")


def place_of(path: str, table: list[MountPoint]) -> Place:
    """Of a real path; what is mounted last hides what was there before."""
    over = [m for m in table if f"{path}/".startswith(m.point.rstrip("/") + "/")]
    mounted = max(enumerate(over), key=lambda pair: (len(pair[1].point), pair[0]))[1]
    below = path[len(mounted.point.rstrip("/")) :]
    return Place(mounted.device, mounted.root.rstrip("/") + below or "/")


def volumes(kubelet: str, uid: str) -> list[VolumeRequest]:
    """For a pod of this uid; none where the kubelet has no directory for it."""
    if not uid or "/" in uid or uid in (".", ".."):
        return []
    root = os.path.realpath(os.path.join(kubelet, "pods", uid))
    if not os.path.isdir(root):
        return []
    places = [root, *sorted({m.point for m in mount_table() if m.point.startswith(root + "/")})]
    return [VolumeRequest(name=f"{_NAME}-{n}", source=place, format="vfs") for n, place in enumerate(places)]


class NodeFiles:
    """What a sandbox was given of the node, as the node's mounts are now."""

    def __init__(self, pod: Pod) -> None:
        self._table = mount_table()
        given = [v for v in pod.volumes if v.declared and v.kind == "directory"]
        self._given = [(v.name, place_of(v.source, self._table)) for v in given]

    def mount(self, host_path: str, target: str, *, read_only: bool, propagation: Propagation = "") -> Mount:
        """A directory or a file of the node; a symbolic link is followed, as CRI has it.

        A kubelet makes a `subPath` by mounting a part of a volume elsewhere, after the sandbox was made: it is found
        by its place in its file system.

        :raise InvalidState: it does not exist.
        """
        path = os.path.realpath(host_path)
        if not os.path.lexists(path):
            raise InvalidState(f"the path {host_path} does not exist on the node")
        place = place_of(path, self._table)
        ways = [(len(way), name, way) for name, of in self._given if (way := place.below(of)) is not None]
        if not ways:
            return Mount(type="bind", source=path, target=target, read_only=read_only, copy_up=False,
                         propagation=propagation)  # fmt: skip
        _, name, below = min(ways)
        return Mount(source=name, target=target, sub_path=below, read_only=read_only, copy_up=False,
                     propagation=propagation)  # fmt: skip
