# SPDX-License-Identifier: Apache-2.0
"""Files of memory that were written as a whole: holes in them, and what lies between.

How long one is, whoever calls says: a process that has it, which may be its guest's by now, can make it endless.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

_CHUNK, _PAGE = 4 << 20, 4096  # bytes
_ZEROS = bytes(_PAGE)
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h


def runs(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Places in the first `size` bytes, and what is there, but for pages that are all zeros. It blocks."""
    for at in range(0, size, _CHUNK):
        data, begun = os.pread(fd, min(_CHUNK, size - at), at), -1
        for offset in range(0, len(data), _PAGE):
            if data.startswith(_ZEROS, offset):
                if begun >= 0:
                    yield at + begun, data[begun:offset]
                begun = -1
            elif begun < 0:
                begun = offset
        if begun >= 0:
            yield at + begun, data[begun:]


def punch(fd: int, size: int) -> None:
    """Make holes of the pages that are all zeros, of the first `size` bytes: the whole memory was written.

    :raise OSError: the file's system has no holes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    for at, length in _zeros(fd, size):
        if libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, at, length):
            raise OSError(ctypes.get_errno(), "a hole cannot be made")


def _zeros(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where zeros begin, and how many bytes they are, by whole pages."""
    begun = -1
    for at in range(0, size, _CHUNK):
        data = os.pread(fd, min(_CHUNK, size - at), at)
        for offset in range(0, len(data), _PAGE):
            zero = data.startswith(_ZEROS, offset)
            if zero and begun < 0:
                begun = at + offset
            elif not zero and begun >= 0:
                yield begun, at + offset - begun
                begun = -1
    if begun >= 0:
        yield begun, size - begun
