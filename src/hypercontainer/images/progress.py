# SPDX-License-Identifier: Apache-2.0
"""What a pull tells while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from .layout import Layout
from .manifests import Manifest

Update = dict[str, Any]


class Progress:
    """Fans updates of one pull out to all that wait for it; late comers get the last state first."""

    def __init__(self) -> None:
        self.name = ""  # that the image got, once it is there; "" for none
        self._state: dict[str, Update] = {}
        self._listeners: set[asyncio.Queue[Update | None]] = set()
        self._loop = asyncio.get_running_loop()
        self._finished = False

    def update(self, id_: str, status: str, done: int = 0, total: int = 0) -> None:
        """Tell; an update that says nothing new is dropped. Safe from any thread."""
        self._loop.call_soon_threadsafe(self._update, id_, status, done, total)

    def _update(self, id_: str, status: str, done: int, total: int) -> None:
        update = {"id": id_, "status": status, "current": done, "total": total}
        if self._state.get(id_) == update:
            return
        self._state[id_] = update
        for queue in self._listeners:
            queue.put_nowait(update)

    def finish(self) -> None:
        self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        self._finished = True
        for queue in self._listeners:
            queue.put_nowait(None)

    async def listen(self) -> AsyncIterator[Update]:
        """Where each part stands, and then each step until the end."""
        queue: asyncio.Queue[Update | None] = asyncio.Queue()
        for update in self._state.values():
            yield update
        if self._finished:
            return
        self._listeners.add(queue)
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            self._listeners.discard(queue)


class DownloadMeter:
    """Bytes of each layer as skopeo writes them.

    skopeo names its temporary files at random, so the unfinished ones are
    matched in order of age with the layers not there yet.
    """

    def __init__(self, layout: Layout, staging: Path, progress: Progress) -> None:
        self._layout = layout
        self._staging = staging
        self._progress = progress
        self._layers: list[tuple[str, int]] = []
        self._known: set[str] = set()
        self._own: Collection[str] | None = None

    def expect(self, manifest: Manifest, own: Collection[str] | None = None) -> None:
        """These are the layers that will come, with their sizes; those that are here count if they are `own`, too."""
        self._own = own
        self._layers = list({d.digest: d.size for d in manifest.layers}.items())
        for digest, size in self._layers:
            if self._is_here(digest):
                self._known.add(digest)
                self._progress.update(digest, "Already exists", size, size)
            else:
                self._progress.update(digest, "Waiting", 0, size)

    def tick(self) -> None:
        """Look at what has come by now, and tell of what has grown."""

        def age(path: Path) -> int:
            return path.stat().st_ctime_ns

        try:
            files = sorted(self._staging.glob("oci-put-blob*"), key=age)
            sizes = [f.stat().st_size for f in files]
        except FileNotFoundError:
            sizes = []
        for digest, size in self._layers:
            if digest in self._known:
                continue
            if self._is_here(digest) or self._came(digest):
                self._known.add(digest)
                self._progress.update(digest, "Download complete", size, size)
            elif sizes:
                self._progress.update(digest, "Downloading", min(sizes.pop(0), size), size)

    def _is_here(self, digest: str) -> bool:
        return (self._own is None or digest in self._own) and self._layout.blobs.path(digest).exists()

    def _came(self, digest: str) -> bool:
        return (self._staging / "blobs/sha256" / digest.partition(":")[2]).exists()
