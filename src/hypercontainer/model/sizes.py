# SPDX-License-Identifier: Apache-2.0
"""Sizes of machines by name: what is asked for, counted and paid in one word."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import InvalidArgument
from .base import Model
from .units import parse_size

_MIB, _GIB = 1 << 20, 1 << 30


class Size(Model, frozen=True, kw_only=True):
    """What a pod of it has for its containers; what the guest itself needs comes on top."""

    name: str
    vcpus: int
    memory: int  # bytes


def _size(name: str, vcpus: int, memory: int) -> Size:
    return Size(name=name, vcpus=vcpus, memory=memory)


# Those of the cloud that the first HyperContainer's makers had (hyper.sh, 2016-2018).
DEFAULTS: Mapping[str, Size] = {
    s.name: s
    for s in (
        _size("S1", 1, 64 * _MIB),
        _size("S2", 1, 128 * _MIB),
        _size("S3", 1, 256 * _MIB),
        _size("S4", 1, 512 * _MIB),
        _size("M1", 1, 1 * _GIB),
        _size("M2", 2, 2 * _GIB),
        _size("M3", 2, 4 * _GIB),
        _size("L1", 4, 4 * _GIB),
        _size("L2", 4, 8 * _GIB),
        _size("L3", 8, 16 * _GIB),
    )
}


def read_size(name: str, text: str) -> Size:
    """From `VCPUS/MEMORY`, such as `2/4g`.

    :raise InvalidArgument: it is none.
    """
    vcpus, _, memory = text.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InvalidArgument(f"invalid name of a size {name!r}", hint="use letters, digits, '_', '.' and '-'")
    if not vcpus.isdigit() or not int(vcpus) or not memory:
        raise InvalidArgument(f"invalid size {name} {text!r}", hint="write it as VCPUS/MEMORY, such as 2/4g")
    return _size(name, int(vcpus), parse_size(memory))
