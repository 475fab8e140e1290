# SPDX-License-Identifier: Apache-2.0
"""A machine as one stream of bytes, its memory without what is zeros: for a pod that is suspended.

MAGIC, then of the memory how long it is and of the devices' state how long that is, that state, and the parts of the
memory, each with its place and its length; one of length zero is the end. Numbers are of eight bytes, little-endian.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import BinaryIO

from ...errors import Unavailable
from ..driver import Snapshot
from .holes import runs
from .saving import STATE_MAX

MAGIC = b"hyperFC1"
_PAIR = struct.Struct("<QQ")
_USELESS = "what the machine is to go on from is not whole"


def write(stream: int, memory: int, size: int, state: int, given_up: threading.Event) -> None:
    """All of it, `size` bytes of memory, to a descriptor. It blocks.

    :raise OSError: nobody reads it. :raise Unavailable: it was given up.
    """
    devices = os.pread(state, STATE_MAX, 0)
    with open(os.dup(stream), "wb") as target:
        target.write(MAGIC + _PAIR.pack(size, len(devices)) + devices)
        for at, data in runs(memory, size):
            if given_up.is_set():
                raise Unavailable("the machine is not put away: that was given up")
            target.write(_PAIR.pack(at, len(data)))
            target.write(data)
        target.write(_PAIR.pack(0, 0))


def read(stream: int, size: int) -> Snapshot:
    """As two files of memory, which are the caller's to close; `size` is the memory's, in bytes. It blocks.

    :raise Unavailable: it is no such stream, or of another machine.
    """
    made = Snapshot(os.memfd_create("hyper-memory", os.MFD_CLOEXEC), os.memfd_create("hyper-state", os.MFD_CLOEXEC))
    try:
        os.ftruncate(made.memory, size)
        with open(os.dup(stream), "rb") as source:
            _read(source, made, size)
    except BaseException:
        os.close(made.memory)
        os.close(made.state)
        raise
    return Snapshot(made.memory, made.state, live=True)


def _read(source: BinaryIO, made: Snapshot, size: int) -> None:
    if _exactly(source, len(MAGIC)) != MAGIC:
        raise Unavailable(_USELESS)
    whole, devices = _PAIR.unpack(_exactly(source, _PAIR.size))
    if whole != size or devices > STATE_MAX:
        raise Unavailable(_USELESS)
    os.pwrite(made.state, _exactly(source, devices), 0)
    while (found := _PAIR.unpack(_exactly(source, _PAIR.size)))[1]:
        at, length = found
        if at + length > size:
            raise Unavailable(_USELESS)
        os.pwrite(made.memory, _exactly(source, length), at)


def _exactly(source: BinaryIO, count: int) -> bytes:
    data = source.read(count)
    if len(data) != count:
        raise Unavailable(_USELESS)
    return data
