# SPDX-License-Identifier: Apache-2.0
"""What a container's root is made of: the port that the engine asks, and the source that joins two disks.

A source decides what a machine has for a container's root, and so what its guest mounts. Each kind of root is a
type of its own; today there is one. A container's own part is made before its record is written (`create`), and
lasts until nothing is left of the container (`release`); `prepare` says, before each start, what there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..sys import tasks
from ..sys.files import copy_sparse
from ..sys.removal import unlinked
from .manifests import StoredImage
from .store import ImageDisk


@dataclass(frozen=True)
class DiskRoot:
    """Two disks that the guest joins by overlayfs: the image's, which nobody writes, and the container's own."""

    image: Path
    fstype: str  # of the image's disk
    own: Path  # an ext4


Root = DiskRoot  # a union, as soon as there are others: a shared directory, a block device


class RootSource(Protocol):
    """Where roots come from. Containers and images are ids."""

    async def create(self, container: str, *, base: str = "") -> None:
        """Make what is the container's own: empty, or a copy of that of `base`, which does not run.

        The container's directory is there. What is half made goes by `release`.

        :raise NoSpace: when the disk is full.
        """

    async def prepare(self, container: str, image: str) -> Root:
        """What its machine shall have. Idempotent; what can be made again of the image is made again.

        :raise NotFound: no such image.
        """

    async def image(self, image: str) -> ImageDisk:
        """What all have of an image, and nobody writes; it is made again when it is not there.

        :raise NotFound: no such image.
        """

    async def release(self, container: str) -> None:
        """Nothing of it is left. Idempotent."""


class Disks(Protocol):
    """What this source needs of the image store."""

    def find(self, name: str, *, platform: str = "") -> StoredImage:
        """An image of the store.

        :raise NotFound: there is none of this name.
        """

    async def disk(self, image: StoredImage) -> ImageDisk:
        """The image as a disk, which is made when it is not there."""


class ImageRoots:
    """Image disks, each shared by all containers of its image, and scratch disks."""

    def __init__(
        self, images: Disks, empty: Callable[[Path], Awaitable[None]], place: Callable[[str], Path]
    ) -> None:  # fmt: skip
        """`empty` makes an empty scratch disk at a path, `place` says where a container has its own."""
        self._images = images
        self._empty = empty
        self._place = place

    async def create(self, container: str, *, base: str = "") -> None:
        own = self._place(container)
        if base:
            await tasks.in_thread(lambda: copy_sparse(self._place(base), own))
        else:
            await self._empty(own)

    async def prepare(self, container: str, image: str) -> DiskRoot:
        disk = await self.image(image)
        return DiskRoot(disk.path, disk.fstype, self._place(container))

    async def image(self, image: str) -> ImageDisk:
        return await self._images.disk(self._images.find(image))

    async def release(self, container: str) -> None:
        await unlinked(self._place(container))
