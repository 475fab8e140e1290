# SPDX-License-Identifier: Apache-2.0
"""A body as its sender packed it: gzip, bzip2, xz, or not at all, as its first bytes say."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

from ..errors import InvalidArgument, Unsupported
from ..sys import tasks

_PIECE = 256 << 10  # bytes that are unpacked at a time, however much a piece of the body becomes
_XZ_MEMORY = 256 << 20  # bytes for a dictionary; `xz -9` takes 65 MiB
_MAGIC_LENGTH = 6


class Unpacker(Protocol):
    """Of one stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def take(self, data: bytes) -> bytes:
        """What comes of it, at most a piece; the rest of it comes with further calls, with b""."""

    @property
    def hungry(self) -> bool:
        """Whether more can come only of further data."""


class _Zlib:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def take(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _PIECE)

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


class _Bounded:
    """bz2 and lzma have one interface."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    def take(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _PIECE)

    @property
    def hungry(self) -> bool:
        return self._inner.eof or self._inner.needs_input

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


_KINDS: list[tuple[bytes, Callable[[], Unpacker]]] = [
    (b"\x1f\x8b", _Zlib),
    (b"BZh", lambda: _Bounded(bz2.BZ2Decompressor())),
    (b"\xfd7zXZ\0", lambda: _Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))),
]
_ZSTD = b"\x28\xb5\x2f\xfd"


async def unpacked(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Its content, piece by piece.

    :raise InvalidArgument: it is damaged, or ends too early. :raise Unsupported: zstd, which Python cannot read.
    """
    head = b""
    async for data in body:
        head += data
        if len(head) >= _MAGIC_LENGTH:
            break
    if head.startswith(_ZSTD):
        raise Unsupported("an archive that is packed with zstd", hint="send it as gzip, bzip2, xz or plain tar")
    make = next((make for magic, make in _KINDS if head.startswith(magic)), None)
    if make is None:
        if head:
            yield head
        async for data in body:
            yield data
        return
    stream = _Streams(make)
    async for data in _with(head, body):
        async for piece in stream.pieces(data):
            yield piece
    if not stream.whole:
        raise InvalidArgument("the archive is cut short")


class _Streams:
    """One stream behind another, as `cat a.gz b.gz` makes them."""

    def __init__(self, make: Callable[[], Unpacker]) -> None:
        self._make = make
        self._now = make()

    @property
    def whole(self) -> bool:
        return self._now.eof

    async def pieces(self, data: bytes) -> AsyncIterator[bytes]:
        while True:
            if self._now.eof:
                if not data.strip(b"\0"):
                    return  # padding
                self._now = self._make()
            if piece := await tasks.in_thread(partial(self._take, data)):
                yield piece
            data = self._now.unused_data if self._now.eof else b""
            if not data and self._now.hungry:
                return

    def _take(self, data: bytes) -> bytes:
        try:
            return self._now.take(data)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise InvalidArgument(f"the archive cannot be unpacked: {error}") from error


async def _with(head: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for data in body:
        yield data
