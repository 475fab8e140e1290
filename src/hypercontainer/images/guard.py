# SPDX-License-Identifier: Apache-2.0
"""A look at a layer's headers while it is uncompressed.

It refuses what is too much as soon as it comes by, before gigabytes of it
have been written. It need not see everything: where it is not sure of its
place it stops looking, and `tree` finds the same later.
"""

from __future__ import annotations

from typing import IO

from ..errors import InvalidArgument
from ..model.units import format_binary
from .limits import HEADER_MAX, Budget

_BLOCK = 512
_EMPTY = b"00000000000"  # the size field of most entries without contents
_DESCRIPTIONS = b"LKxgX"  # of the entry that follows
_SPARSE = ord("S")


class Guard:
    """Takes a layer's bytes in order."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._skip = 0  # bytes until the next header
        self._rest = b""
        self._lost = False

    def feed(self, data: bytes) -> None:
        """:raise InvalidArgument: when a header describes too much, or there are too many."""
        if self._lost:
            return
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end, seen = self._skip, len(data) - _BLOCK, 0
        while at <= end:
            size = 0 if data[at + 124 : at + 135] == _EMPTY else self._size(data, at)
            kind = data[at + 156]
            if size < 0:
                self._lost = True
                break
            if kind in _DESCRIPTIONS:
                if size > HEADER_MAX:
                    raise header_too_large(size)
                if at + _BLOCK + size > len(data):
                    break  # once all of it is there
                if (
                    data.find(b" size=", at + _BLOCK, at + _BLOCK + size) >= 0
                ):  # the next header's own size does not count
                    self._lost = True
                    break
            else:
                seen += 1
            at += _BLOCK + size + -size % _BLOCK
        self._budget.see(seen)
        if at < len(data):
            self._rest, self._skip = data[at:], 0
        else:
            self._skip = at - len(data)

    @staticmethod
    def _size(data: bytes, at: int) -> int:
        """Of an entry's contents; -1 where this is no header, the archive's end, or one of a kind of its own."""
        if data[at + 257 : at + 262] != b"ustar" or data[at + 156] == _SPARSE:
            return -1
        field = data[at + 124 : at + 136]
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        try:
            return int(field.strip(b" \0") or b"0", 8)
        except ValueError:
            return -1


def header_too_large(size: int) -> InvalidArgument:
    """The refusal of an entry whose names or attributes have this many bytes."""
    return InvalidArgument(
        f"has an entry with names or attributes of {format_binary(size)}, more than {format_binary(HEADER_MAX)}"
    )


class Bounded:
    """The file that tarfile reads: what one entry makes it read at once, its headers, is limited."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = HEADER_MAX

    def next_entry(self) -> None:
        """Another header begins, with the whole limit for itself."""
        self._left = HEADER_MAX

    def read(self, count: int) -> bytes:
        """As a file's; bytes of headers count.

        :raise InvalidArgument: an entry has more of them than is allowed.
        """
        self._left -= count
        if self._left < 0:
            raise header_too_large(HEADER_MAX - self._left)
        return self._file.read(count)

    def seek(self, offset: int) -> int:
        """As a file's: contents that are passed over do not count."""
        return self._file.seek(offset)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()
