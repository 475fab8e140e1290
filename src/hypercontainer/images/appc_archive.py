# SPDX-License-Identifier: Apache-2.0
"""An App Container image's archive into its manifest and a layer; runs in a process without rights (see `worker`)."""

from __future__ import annotations

import copy
import os
import tarfile
from collections.abc import Iterator
from typing import IO, cast

from ..errors import InvalidArgument
from .entry import shown
from .guard import Bounded
from .limits import DOCUMENT_MAX, Budget

MANIFEST = "manifest"
_ROOT = "rootfs"
_CHUNK = 1 << 20  # bytes
_KEPT = ("SCHILY.", "mtime")  # records of a header that say something of the file itself


def begins_so(name: str) -> bool:
    """Whether an archive with an entry of this name is one of these."""
    return name == MANIFEST or name.partition("/")[0] == _ROOT


def divide(source: int, manifest: int, layer: int, budget: Budget) -> None:
    """Write the manifest, and what is below `rootfs` as a layer, to open files.

    :raise InvalidArgument: it is no such archive, has anything else in it, or something twice.
    """
    seen: set[str] = set()
    with os.fdopen(os.dup(source), "rb") as file, os.fdopen(os.dup(layer), "wb") as out:
        file.seek(0)  # the offset is shared with whoever wrote it
        bounded = Bounded(file)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:", errors="surrogateescape") as tar:
                for info in tar:
                    bounded.next_entry()
                    tar.members = []  # type: ignore[attr-defined]
                    _take(info, file.fileno(), manifest, out, seen, budget)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArgument(f"is not a tar archive: {error}") from error
        out.write(bytes(2 * tarfile.BLOCKSIZE))
    for needed in (MANIFEST, _ROOT):
        if needed not in seen:
            raise InvalidArgument(f"has no {needed}, which App Container images have")


def _take(info: tarfile.TarInfo, source: int, manifest: int, out: IO[bytes], seen: set[str], budget: Budget) -> None:
    name = os.path.normpath(info.name)
    if info.size < 0 or name.startswith(("/", "..")):
        raise InvalidArgument(f"has an entry {shown(info.name)} that cannot be")
    if name == ".":
        return
    if name in seen:
        raise InvalidArgument(f"has {shown(name)} twice")
    seen.add(name)
    budget.file(info.size)
    if name == MANIFEST and info.isreg() and info.size <= DOCUMENT_MAX:
        os.pwrite(manifest, os.pread(source, info.size, info.offset_data), 0)
    elif name.partition("/")[0] == _ROOT:
        seen.add(_ROOT)
        if name != _ROOT or info.isdir():
            _write(info, name.removeprefix(_ROOT).lstrip("/") or ".", source, out)
    else:
        raise InvalidArgument(f"has an entry {shown(name)}, which is neither its manifest nor below rootfs")


def _write(info: tarfile.TarInfo, name: str, source: int, out: IO[bytes]) -> None:
    """As it was, but for its name; files with holes have zeros there."""
    entry = copy.copy(info)
    entry.name = name
    entry.pax_headers = {k: v for k, v in info.pax_headers.items() if k.startswith(_KEPT)}
    if info.islnk():
        target = os.path.normpath(info.linkname)
        if target.partition("/")[0] != _ROOT:
            raise InvalidArgument(f"has a hard link {shown(info.name)} that leads out of rootfs")
        entry.linkname = target.removeprefix(f"{_ROOT}/")
    if info.issparse():
        entry.type = tarfile.REGTYPE
    out.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    if info.isreg():
        for piece in _contents(info, source):
            out.write(piece)
        out.write(bytes(-info.size % tarfile.BLOCKSIZE))


def _contents(info: tarfile.TarInfo, source: int) -> Iterator[bytes]:
    at, done = info.offset_data, 0
    pieces = getattr(info, "sparse", None) or [(0, info.size)]
    for offset, size in [*pieces, (info.size, 0)]:
        if offset < done or size < 0 or offset + size > info.size:
            raise InvalidArgument(f"has an entry {shown(info.name)} that has contents that are not there")
        yield from _zeros(offset - done)
        end = at + size
        while at < end:
            data = os.pread(source, min(_CHUNK, end - at), at)
            if not data:
                raise InvalidArgument("is damaged: it ends too early")
            at += len(data)
            yield data
        done = offset + size


def _zeros(count: int) -> Iterator[bytes]:
    while count:
        step = min(count, _CHUNK)
        yield bytes(step)
        count -= step
