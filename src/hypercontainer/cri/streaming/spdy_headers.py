# SPDX-License-Identifier: Apache-2.0
"""Blocks of names and values in SPDY/3.1: one zlib stream for each direction of a connection, with a dictionary.

https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/#2610-name-value-header-block
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from ...errors import InvalidArgument

BLOCK_MAX = 64 << 10  # bytes of one, uncompressed
_COUNT_MAX = 128
_NUMBER = struct.Struct(">I")
_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative"
    " Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Inter"
    "nal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:0"
    "0 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,applicatio"
    "n/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,"
    "*,enq=0."
)
_ENTRIES = [word.replace("_", " ").encode() for word in _WORDS.split()]
DICTIONARY = b"".join(_NUMBER.pack(len(w)) + w for w in _ENTRIES) + _REST.encode()


class HeaderReader:
    """What comes, block by block, in the order of the frames that hold them."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zdict=DICTIONARY)

    def read(self, block: bytes) -> dict[str, str]:
        """:raise InvalidArgument: it is none, or becomes too large."""
        try:
            plain = self._stream.decompress(block, BLOCK_MAX + 1)
        except zlib.error as error:
            raise InvalidArgument(f"SPDY headers cannot be uncompressed: {error}") from None
        if len(plain) > BLOCK_MAX or self._stream.unconsumed_tail:
            raise InvalidArgument(f"SPDY headers have more than {BLOCK_MAX} bytes")
        return _pairs(plain)


def _pairs(plain: bytes) -> dict[str, str]:
    fields, at = [], 4
    try:
        (count,) = _NUMBER.unpack_from(plain)
        if count > _COUNT_MAX:
            raise InvalidArgument(f"{count} SPDY headers are too many")
        for _ in range(2 * count):
            (length,) = _NUMBER.unpack_from(plain, at)
            at += 4 + length
            if at > len(plain):
                raise InvalidArgument("SPDY headers are cut off")
            fields.append(plain[at - length : at].decode("latin-1"))
    except struct.error:
        raise InvalidArgument("SPDY headers are cut off") from None
    return {name.lower(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}


class HeaderWriter:
    """What goes, block by block."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(zdict=DICTIONARY)

    def write(self, headers: Mapping[str, str]) -> bytes:
        plain = _NUMBER.pack(len(headers))
        for field in (f.encode("latin-1") for pair in headers.items() for f in pair):
            plain += _NUMBER.pack(len(field)) + field
        return self._stream.compress(plain) + self._stream.flush(zlib.Z_SYNC_FLUSH)
