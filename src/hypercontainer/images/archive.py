# SPDX-License-Identifier: Apache-2.0
"""Archives of images; runs in a process without rights (see `worker`)."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import zstandard
from isal import igzip, isal_zlib

from ..errors import InvalidArgument
from ..model.units import format_binary
from . import appc_archive
from .guard import Bounded
from .limits import DOCUMENT_MAX, Budget

REF_NAME = "org.opencontainers.image.ref.name"
_CHUNK = 1 << 20
_ENTRIES_MAX = 10_000
_ZSTD_WINDOW = 128 << 20  # bytes; what zstd itself takes unless told otherwise


class Damaged(Exception):
    """A compressed stream that is none; of what the library has no error of its own for."""


CORRUPT: tuple[Any, ...] = (
    Damaged,
    zlib.error,
    isal_zlib.error,
    zstandard.ZstdError,
    lzma.LZMAError,
    EOFError,
    gzip.BadGzipFile,
)


def uncompressed(source: IO[bytes]) -> Iterator[bytes]:
    """The contents of a file, whatever its compression; told by its first bytes."""
    magic = source.read(6)
    source.seek(0)
    stream: Any = source
    if magic[:2] == b"\x1f\x8b":
        stream = igzip.GzipFile(fileobj=source, mode="rb")  # type: ignore[no-untyped-call]
    elif magic[:4] == b"\x28\xb5\x2f\xfd":
        stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(source, read_across_frames=True)
    elif magic == b"\xfd7zXZ\0":
        stream = lzma.LZMAFile(source)
    elif magic[:3] == b"BZh":
        stream = bz2.BZ2File(source)
    try:
        while chunk := stream.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        if "memory" not in str(error):  # the library has no code for it
            raise
        raise InvalidArgument(f"is packed with a window of more than {format_binary(_ZSTD_WINDOW)}") from error
    except OSError as error:
        if error.errno is not None or isinstance(error, gzip.BadGzipFile):  # of the file itself
            raise
        raise Damaged(str(error)) from error  # of bz2


def is_compressed(begin: bytes) -> bool:
    """Whether a file that begins so is one that skopeo wants to have unpacked."""
    return begin.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"))


def unpack(source: int, target: int, budget: Budget) -> None:
    """:raise InvalidArgument: when it is damaged, or beyond a limit."""
    try:
        with os.fdopen(os.dup(source), "rb") as packed, os.fdopen(os.dup(target), "wb", buffering=0) as out:
            for chunk in uncompressed(packed):
                budget.unpack(len(chunk))
                left = memoryview(chunk)
                while left:
                    left = left[out.write(left) :]
    except CORRUPT as error:
        raise InvalidArgument(f"is damaged: {error}") from error


def names(source: int) -> list[str]:
    """The names that an uncompressed archive has for its first image, docker-archive or oci-archive.

    :raise InvalidArgument: when it is not such an archive.
    """
    with os.fdopen(os.dup(source), "rb") as file:
        file.seek(0)  # the offset is shared with whoever wrote it
        try:
            documents = _documents(file)
            if "manifest.json" in documents:
                return [str(n) for n in json.loads(documents["manifest.json"])[0].get("RepoTags") or []]
            entries = json.loads(documents["index.json"]).get("manifests", [])
            found = [e.get("annotations", {}).get(REF_NAME, "") for e in entries]
            return [str(n) for n in found if n]
        except (tarfile.TarError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise InvalidArgument("is not an image of this kind", hint="check what the file is") from error


def table(source: int) -> bytes:
    """Where in an uncompressed archive its files are, as the JSON of `bundle.Table`.

    :raise InvalidArgument: it is no archive, or has too many entries.
    """
    members, links, documents = dict[str, tuple[int, int]](), dict[str, str](), dict[str, str]()
    with os.fdopen(os.dup(source), "rb") as file:
        file.seek(0)  # the offset is shared with whoever wrote it
        try:
            for info in _entries(file):
                name = os.path.normpath(info.name).removeprefix("./")
                if appc_archive.begins_so(name):
                    return b'{"appc":true}'
                if info.issym():
                    links[name] = os.path.normpath(os.path.join(os.path.dirname(name), info.linkname))
                elif info.islnk():
                    links[name] = os.path.normpath(info.linkname)
                elif info.isreg() and not info.issparse():
                    members[name] = (info.offset_data, info.size)
                    if name in ("manifest.json", "index.json") and info.size <= DOCUMENT_MAX:
                        documents[name] = os.pread(file.fileno(), info.size, info.offset_data).decode()
        except (tarfile.TarError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            raise InvalidArgument("is not an archive of images", hint="check what the file is") from error
    found = json.dumps({"members": members, "links": links, "documents": documents})
    return found.encode(errors="replace")


def _entries(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    bounded, count = Bounded(file), 0
    with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:", errors="surrogateescape") as tar:
        for info in tar:
            count += 1
            bounded.next_entry()
            tar.members = []  # type: ignore[attr-defined]
            if count > _ENTRIES_MAX or info.size < 0:
                raise InvalidArgument(f"has more than {_ENTRIES_MAX} entries, or one of an impossible size")
            yield info


def _documents(file: IO[bytes]) -> dict[str, bytes]:
    """The small files at the archive's top that tell of its contents."""
    found = {}
    for info in _entries(file):
        name = info.name.removeprefix("./")
        if name in ("manifest.json", "index.json") and info.isreg() and info.size <= DOCUMENT_MAX:
            found[name] = os.pread(file.fileno(), info.size, info.offset_data)
    return found
