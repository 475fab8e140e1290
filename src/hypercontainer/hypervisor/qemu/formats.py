# SPDX-License-Identifier: Apache-2.0
"""Headers of disk images, looked at before the hypervisor does: none may lead to another file.

Formats: https://www.qemu.org/docs/master/interop/qcow2.html; VirtualBox's VDI as QEMU's block/vdi.c reads it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ...errors import InvalidArgument

_HINT = "copy it into an image of its own with `qemu-img convert -O qcow2`"
_QCOW2 = b"QFI\xfb"
_QCOW2_HEADER = struct.Struct(">4sIQI")  # magic, version, offset and length of the backing file's name
_INCOMPATIBLE = struct.Struct(">Q")  # incompatible features, at 72 since version 3
_LENGTH = struct.Struct(">I")  # of the header, at 100
_EXTENSION = struct.Struct(">II")  # kind, length; 8-byte aligned, kind 0 is the last
_EXTERNAL_DATA = 1 << 2  # an incompatible feature: the data are in another file
_DATA_FILE = 0x44415441
_VERSION_2_HEADER = 72  # bytes
_READ = 64 << 10  # bytes: the smallest cluster is 512, and headers end in the first one; extensions are short
_VDI_SIGNATURE = struct.pack("<I", 0xBEDA107F)  # at 64
_VDI_LINKS = slice(424, 456)  # uuid_link and uuid_parent of the images that it depends on


def check_image(fd: int, format_: str, path: Path) -> None:
    """Refuse an image that is not of this format, or that depends on other files.

    :raise InvalidArgument: with what it names.
    """
    head = os.pread(fd, _READ, 0)
    if format_ == "qcow2":
        _check_qcow2(head, path)
    elif format_ == "vdi":
        _check_vdi(head, path)


def _check_qcow2(head: bytes, path: Path) -> None:
    if len(head) < _VERSION_2_HEADER or not head.startswith(_QCOW2):
        raise InvalidArgument(f"{path} is not a qcow2 image", hint="name its format")
    _, version, backing, _ = _QCOW2_HEADER.unpack_from(head)
    if backing:
        raise InvalidArgument(f"{path} has a backing file: another file's content would be shown", hint=_HINT)
    at = _VERSION_2_HEADER
    if version >= 3:
        if len(head) < 104:
            raise InvalidArgument(f"the header of {path} is cut short", hint="make the image anew")
        if _INCOMPATIBLE.unpack_from(head, 72)[0] & _EXTERNAL_DATA:
            raise InvalidArgument(f"{path} has its data in another file", hint=_HINT)
        at = _LENGTH.unpack_from(head, 100)[0]
    while at + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, at)
        if kind == 0:
            return
        if kind == _DATA_FILE:
            raise InvalidArgument(f"{path} names another file for its data", hint=_HINT)
        at += _EXTENSION.size + (length + 7) // 8 * 8


def _check_vdi(head: bytes, path: Path) -> None:
    if len(head) < _VDI_LINKS.stop or head[64:68] != _VDI_SIGNATURE:
        raise InvalidArgument(f"{path} is not a vdi image", hint="name its format")
    if any(head[_VDI_LINKS]):
        raise InvalidArgument(f"{path} depends on another image", hint=_HINT)
