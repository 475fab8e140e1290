# SPDX-License-Identifier: Apache-2.0
"""commit: an image of what a container has become, without its volumes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from msgspec.structs import replace

from ..errors import HyperError, Unsupported
from ..images.changes import apply_changes
from ..images.commit import Addition
from ..images.load import Loaded
from ..images.manifests import StoredImage
from ..images.store import ImageStore
from ..model.images import CommitRequest
from ..model.status import Container, ContainerStatus
from . import egress_secrets
from .archive import Archives
from .container_config import container_config, merged
from .containers import Containers
from .naming import OWN_LABELS, PLACE_LABELS
from .registry import Registry


class Commits:
    """Makes images of containers."""

    def __init__(self, registry: Registry, containers: Containers, archives: Archives, images: ImageStore) -> None:
        self._registry = registry
        self._containers = containers
        self._archives = archives
        self._images = images

    def config(self, key: str) -> dict[str, Any]:
        """A container's configuration as an image of it has it.

        :raise NotFound: no such container, or its image is damaged. :raise Unsupported: it has none.
        """
        container = self._registry.container(key)
        env = egress_secrets.without_variables(container.spec.env, self._registry.pod(container.pod).spec.egress)
        # Ours say what this container is, such as a sandbox; who runs its image has another one.
        labels = {
            name: text for name, text in container.spec.labels.items()
            if not name.startswith(OWN_LABELS) and name not in PLACE_LABELS
        }  # fmt: skip
        own = replace(container, spec=replace(container.spec, env=env, labels=labels))
        return container_config(own, self._image(container).config.config)

    def _image(self, container: Container) -> StoredImage:
        if container.spec.rootfs:
            raise Unsupported(
                f"container {container.name} has no image: its root is the directory {container.spec.rootfs}",
                hint="make an image of that directory",
            )
        return self._images.find(container.image_id)

    async def commit(self, key: str, request: CommitRequest) -> Loaded:
        """An image of the container's files, as they are now, above its own image.

        It is paused while they are read, unless the request says otherwise; one that does not run stays so.

        :raise NotFound: no such container. :raise InvalidArgument: the name or a change is malformed.
        :raise Unsupported: its guest is too old. :raise GuestError: a file cannot be in a layer.
        """
        container = self._registry.container(key)
        base = self._image(container)
        config = merged(request.config or {}, self.config(container.id))
        added = Addition(
            config=apply_changes(config, request.changes), name=request.reference, author=request.author,
            message=request.message, created_by=" ".join(config.get("Cmd") or []),
        )  # fmt: skip
        async with contextlib.aclosing(self._layer(container, pause=request.pause)) as layer:
            loaded = await self._images.committer.commit(base, layer, added)
        self._containers.tell(
            "commit", container, comment=request.message, imageID=loaded.image.id, imageRef=request.reference
        )
        return loaded

    async def _layer(self, container: Container, *, pause: bool) -> AsyncGenerator[bytes, None]:
        """What it has changed; meanwhile it stands still."""
        running = self._registry.container(container.id).state.status is ContainerStatus.RUNNING
        if pause and running:
            await self._containers.pause(container.id)
        try:
            async with contextlib.aclosing(self._archives.layer(container.id)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            if pause and running:
                with contextlib.suppress(HyperError):  # it has ended, or somebody else let it go on
                    await self._containers.unpause(container.id)
