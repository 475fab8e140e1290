# SPDX-License-Identifier: Apache-2.0
"""How large an image may be, and how much its conversion may take.

An image is what a stranger made: a few kilobytes can stand for terabytes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ..errors import InvalidArgument
from ..model.units import format_binary

DOCUMENT_MAX = 4 << 20  # bytes of a manifest or a configuration; what skopeo takes from registries, too
HEADER_MAX = 1 << 20  # bytes of one entry's names and attributes; Go's archive/tar has the same limit
PATH_MAX = 4096  # bytes; Linux opens nothing longer
DEPTH_MAX = PATH_MAX // 2
_RATIO_FROM = 256 << 20  # bytes: what unpacks to less is no bomb, however well it was packed


@dataclass(frozen=True)
class Limits:
    """Of one image."""

    size: int = 128 << 30  # bytes, of the uncompressed layers together, and of all files
    files: int = 800_000  # entries of all layers
    ratio: int = 200  # uncompressed bytes per compressed one
    layers: int = 256
    memory: int = 1 << 30  # bytes, of each process of the conversion
    time: float = 3600.0  # seconds, of the conversion


def beyond(what: str, setting: str) -> InvalidArgument:
    """The error for an image that is more than the setting allows."""
    return InvalidArgument(what, hint=f"raise image_{setting} in hyperd's configuration if you trust it")


class Budget:
    """What is left of an image's limits while it is converted; may be used from several threads."""

    def __init__(self, limits: Limits, packed: int) -> None:
        """`packed` is the size of all compressed layers, in bytes."""
        self.limits = limits
        self._packed = packed
        self._lock = threading.Lock()
        self._unpacked = self._seen = self._files = self._contents = 0

    def unpack(self, count: int) -> None:
        """So many more bytes came out of a layer.

        :raise InvalidArgument: they are too many.
        """
        with self._lock:
            self._unpacked += count
            self._check(self._unpacked, "unpacks to")

    def see(self, count: int) -> None:
        """So many more headers are in a layer, at least; the exact count comes later, by `file`."""
        with self._lock:
            self._seen += count
            self._count(self._seen)

    def file(self, size: int) -> None:
        """One more entry, with contents of so many bytes once its holes are filled."""
        self._files += 1
        self._count(self._files)
        self._contents += size
        if size:
            self._check(self._contents, "holds files of")

    def _count(self, count: int) -> None:
        if count > self.limits.files:
            raise beyond(f"has more than {self.limits.files} files", "files")

    def _check(self, size: int, verb: str) -> None:
        if size > self.limits.size:
            raise beyond(f"{verb} more than {format_binary(self.limits.size)}", "size")
        if size > max(_RATIO_FROM, self.limits.ratio * self._packed):
            raise beyond(f"{verb} more than {self.limits.ratio} times its compressed size", "ratio")
