# SPDX-License-Identifier: Apache-2.0
"""What happens to images, for `events`: with their labels, whoever asked for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..errors import NotFound
from ..images.load import Loaded
from ..images.manifests import StoredImage
from ..images.store import ImageStore
from ..model.images import RemovedImage
from .events import Events


class ImageEvents:
    """Front ends tell it what they had the store do."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def tell(self, action: str, image: StoredImage, name: str) -> None:
        """`name` is the one that was meant."""
        labels = image.config.config.get("Labels") or {}
        self._events.publish("image", action, image.id, of=labels, name=name)

    def saved(self, names: Iterable[str], images: ImageStore) -> None:
        """To an archive; a repository's name stands for further ones, of which nothing is said."""
        for name in names:
            with contextlib.suppress(NotFound):
                self.tell("save", images.find(name), name)

    def loaded(self, loaded: Iterable[Loaded]) -> None:
        """From an archive."""
        for each in loaded:
            self.tell("load", each.image, next(iter(each.names), ""))

    def removed(self, removed: RemovedImage) -> None:
        """Names, and images: of what is gone, no labels are left."""
        for name in removed.untagged:
            self._events.publish("image", "untag", removed.id, name=name)
        for id_ in removed.deleted:
            self._events.publish("image", "delete", id_)

    def pruned(self, removed: RemovedImage) -> None:
        """Those that a prune found, and how much that was."""
        for id_ in removed.deleted:
            self._events.publish("image", "delete", id_)
        self._events.pruned("image", removed.freed)
