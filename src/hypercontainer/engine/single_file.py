# SPDX-License-Identifier: Apache-2.0
"""One file's contents, out of a container and into it, without the tar archive that carries it."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator

from ..errors import GuestError, InvalidArgument
from ..model.status import PathStat
from ..sys import clock
from .archive import Archives, first_entry, path_stat

_HEAD_MAX = 1 << 20  # bytes before a file's contents, which are few
_BLOCK = tarfile.BLOCKSIZE


@contextlib.asynccontextmanager
async def contents(archives: Archives, key: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
    """What is known of a file, and what is in it; a link is followed.

    :raise NotFound: there is no such path. :raise InvalidArgument: it is no file. :raise GuestError: it cannot be read,
    also in its midst.
    """
    async with contextlib.aclosing(archives.read(key, path, follow=True)) as chunks:
        head = b""
        async for data in chunks:
            head += data
            if entry := first_entry(head):
                break
            if len(head) > _HEAD_MAX:
                raise GuestError(f"reading {path} failed: what the guest sends is not understood")
        else:
            raise GuestError(f"reading {path} failed: an empty archive")
        if not entry.isreg():
            raise InvalidArgument(f"{path} is no file, which could be read")
        yield path_stat(entry), _of_one(path, head[entry.offset_data :], chunks, entry.size)


async def _of_one(path: str, head: bytes, chunks: AsyncGenerator[bytes, None], size: int) -> AsyncIterator[bytes]:
    """So many bytes of what begins with `head`; all the rest is read, since it may end with an error."""
    left = size
    if piece := head[:left]:
        left -= len(piece)
        yield piece
    async for data in chunks:
        if piece := data[:left]:
            left -= len(piece)
            yield piece
    if left:
        raise GuestError(f"reading {path} failed: {left} bytes of it did not come")


async def put(archives: Archives, key: str, directory: str, name: str, size: int, pieces: AsyncIterator[bytes]) -> None:
    """A file in a directory, of the user as whom the container runs; one of that name is replaced. Where the
    pieces end early, what came of them may be there.

    :raise NotFound: there is no such directory. :raise InvalidArgument: it is no name of a file, or not so many bytes
    came. :raise GuestError: it cannot be made.
    """
    info = _entry(name, 0o644)
    info.size = size
    await archives.write(key, directory, _packed(info, pieces), owned=True)


async def put_directory(archives: Archives, key: str, directory: str, name: str) -> None:
    """A directory in a directory. Raises what `put` does."""
    info = _entry(name, 0o755)
    info.type = tarfile.DIRTYPE
    await archives.write(key, directory, _packed(info), owned=True)


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name.encode(errors="replace")) > 255:
        raise InvalidArgument(f"{name!r} is no name of a file", hint="give one without a slash")
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = mode, int(clock.now().timestamp())
    return info


async def _packed(info: tarfile.TarInfo, pieces: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
    yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    left = info.size
    if pieces:
        async for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise InvalidArgument(f"not so many bytes came as the file {info.name} was said to have")
    yield b"\0" * (-info.size % _BLOCK) + b"\0" * 2 * _BLOCK
