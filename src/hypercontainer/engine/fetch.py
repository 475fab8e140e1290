# SPDX-License-Identifier: Apache-2.0
"""The content of a podfile's files, where it is given by a URI."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from ..errors import InvalidArgument, NotFound, Unavailable

SIZE_MAX = 16 << 20  # bytes
_TIMEOUT = aiohttp.ClientTimeout(total=60)


async def fetch_all(uris: list[str]) -> dict[str, bytes]:
    """Its bytes.

    :raise NotFound: nothing there. :raise Unavailable: no answer.
    :raise InvalidArgument: another scheme, or too large.
    """
    wanted = list(dict.fromkeys(uris))
    found = await asyncio.gather(*(_fetch(uri) for uri in wanted))
    return dict(zip(wanted, found, strict=True))


async def _fetch(uri: str) -> bytes:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return await asyncio.to_thread(_read, Path(unquote(parts.path)), uri)
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(f"unknown scheme of the file {uri!r}", hint="use http, https or file")
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(uri) as response:
            if response.status >= 400:
                raise NotFound(f"{uri} answers with status {response.status}", hint="check the address")
            data = await response.content.read(SIZE_MAX + 1)
            while len(data) <= SIZE_MAX and (more := await response.content.read(SIZE_MAX)):
                data += more
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"{uri} cannot be fetched: {error}", hint="check the address") from error
    return _checked(data, uri)


def _read(path: Path, uri: str) -> bytes:
    try:
        # A FIFO would let us wait for its writer, a device may never end.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                raise InvalidArgument(f"{uri} is no regular file", hint="check the path")
            return _checked(f.read(SIZE_MAX + 1), uri)
    except OSError as error:
        raise NotFound(f"{uri} cannot be read: {error.strerror}", hint="check the path") from error


def _checked(data: bytes, uri: str) -> bytes:
    if len(data) > SIZE_MAX:
        raise InvalidArgument(f"{uri} is larger than {SIZE_MAX >> 20} MiB", hint="use a volume for it")
    return data
