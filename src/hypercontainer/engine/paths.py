# SPDX-License-Identifier: Apache-2.0
"""Where the daemon keeps things."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from ..model.principal import Tenant
from ..sys.private import close_to_others

_OF_PROJECT = ".project-"  # what the directory of a project's volumes is called, before its id
SOCKET = "hyper.sock"  # the API's; below `run` unless the configuration says otherwise
VOLUME_DATA = "_data"  # of a directory volume; users of the guest own what is in it, and its mode
# What names begin with that we make.
_OF_ROOT = (
    "state.db",
    "hyperd.lock",
    "images",
    "containers",
    "pods",
    "volumes",
    "keys",
    "cache",
    "waiting",
    "snapshots",
    "volume-snapshots",
)
_OF_RUN = ("pods", SOCKET)
MACHINES_OF_OURS = ("pool-", "make-", "probe")  # what names of machines' directories begin with that are no pod's


@dataclass(frozen=True)
class BootFiles:
    """What every machine of an architecture boots, and how long that may take, in seconds."""

    kernel: Path
    initramfs: Path
    timeout: float


# For an architecture, by OCI's name; "" is this host's. It raises Unavailable where there is nothing to boot.
FindBootFiles = Callable[[str], BootFiles]


@dataclass(frozen=True)
class Paths:
    """`root` survives a reboot of the host, `run` does not."""

    root: Path
    run: Path

    @property
    def database(self) -> Path:
        """The SQLite file with all records."""
        return self.root / "state.db"

    @property
    def images(self) -> Path:
        """The OCI layout with all images, and their disks."""
        return self.root / "images"

    @property
    def cache(self) -> Path:
        """What can be made again: the initramfs, empty disks, templates."""
        return self.root / "cache"

    def container(self, id_: str) -> Path:
        """A container's own directory."""
        return self.root / "containers" / id_

    def scratch(self, id_: str) -> Path:
        """The disk that a container writes to."""
        return self.container(id_) / "scratch.img"

    def log(self, id_: str) -> Path:
        """A container's output, where its specification names no other file."""
        return self.container(id_) / "container.log"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def volume(self, name: str, tenant: Tenant = UNSET) -> Path:
        """A named volume's directory; no volume's name begins with a dot."""
        return self.volumes / f"{_OF_PROJECT}{tenant}" / name if tenant else self.volumes / name

    def project_volumes(self) -> list[Path]:
        """The directories in which those of projects are."""
        return sorted(self.volumes.glob(f"{_OF_PROJECT}*"))

    @property
    def volume_snapshots(self) -> Path:
        """Volumes as they were."""
        return self.root / "volume-snapshots"

    def pod(self, id_: str) -> Path:
        """What belongs to the pod rather than to one of its containers; may not exist."""
        return self.root / "pods" / id_

    def pod_volume(self, id_: str, name: str) -> Path:
        """The disk of a volume that is made with its pod, and goes with it."""
        return self.pod(id_) / "volumes" / f"{name}.img"

    def suspended(self, id_: str) -> Path:
        """What a suspended pod goes on from."""
        return self.pod(id_) / "suspended"

    @property
    def snapshots(self) -> Path:
        """Pods that were saved while they ran."""
        return self.root / "snapshots"

    def snapshot(self, id_: str) -> Path:
        """One of them."""
        return self.snapshots / id_

    @property
    def waiting(self) -> Path:
        """Disks of containers that wait in the pool; beside the containers' own, so that they can become one."""
        return self.root / "waiting"

    @property
    def keys(self) -> Path:
        """What secrets are encrypted with."""
        return self.root / "keys"

    def machine(self, pod_id: str) -> Path:
        """Short: a socket's path has 107 bytes."""
        return self.run / "pods" / pod_id[:12]

    def create(self) -> None:
        """Make the directories, for the daemon's user only; those of earlier versions get these rights too."""
        for top, ours in ((self.root, _OF_ROOT), (self.run, _OF_RUN)):
            top.mkdir(parents=True, exist_ok=True, mode=0o700)
            names = os.listdir(top)
            if all(name.startswith(ours) for name in names):  # it may be one where other things are, too
                top.chmod(stat.S_IMODE(top.stat().st_mode) & 0o700)
            for name in names:
                if name.startswith(ours) and name != SOCKET:
                    close_to_others(str(top / name), skip=VOLUME_DATA)
        for path in (
            self.root / "containers",
            self.root / "pods",
            self.volumes,
            self.cache,
            self.waiting,
            self.run / "pods",
        ):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
