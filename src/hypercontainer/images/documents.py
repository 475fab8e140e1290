# SPDX-License-Identifier: Apache-2.0
"""Documents that were read, verified and decoded once, kept in memory by their digests. Threads may share it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")
_KEPT, _KEPT_SIZE = 1024, 64 << 10  # documents; bytes that each may have had


class Documents(Generic[T]):
    """The ones that were asked for last."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str) -> T | None:
        """None: it was not kept."""
        with self._lock:
            if (document := self._found.get(digest)) is not None:
                self._found.move_to_end(digest)
            return document

    def keep(self, digest: str, document: T, size: int) -> None:
        """`size` is what it had as bytes: large ones are read again each time."""
        if size <= _KEPT_SIZE:
            with self._lock:
                self._found[digest] = document
                if len(self._found) > _KEPT:
                    self._found.popitem(last=False)

    def forget_others(self, keep: Collection[str]) -> None:
        """What is not among these: its blob has gone, or will."""
        with self._lock:
            for digest in [d for d in self._found if d not in keep]:
                del self._found[digest]
