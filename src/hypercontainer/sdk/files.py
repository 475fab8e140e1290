# SPDX-License-Identifier: Apache-2.0
"""The files of a sandbox. Paths that do not begin with / begin at its working directory."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import posixpath
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from ..client.base import container_route
from ..errors import InvalidArgument, NotFound
from ..model.files import FileEntry
from ..model.status import PathStat
from . import archives
from .api import Api, Query
from .exchange import Exchange
from .limits import DEFAULT, Bounded, Deadline
from .watch import AsyncWatch

_IN_MEMORY = 8 << 20  # bytes of an archive; what is larger goes by a temporary file
_LONG = 600.0  # seconds for a tree of files


class AsyncFiles(Bounded):
    """Read and written by hyperd, so that nothing need be in the image."""

    def __init__(self, api: Api, container: str, workdir: str) -> None:
        super().__init__(api, container)
        self._workdir = workdir

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None, timeout: float = DEFAULT) -> bytes:
        """A file's contents, from byte `offset` on and at most `limit` bytes; symbolic links are followed.

        :raise NotFound: there is none. :raise InvalidArgument: it is a directory, or a device.
        """
        return (await read_part(self, path, offset, limit, timeout))[0]

    async def read_text(self, path: str, *, timeout: float = DEFAULT) -> str:
        """A file's contents as UTF-8. :raise InvalidArgument: they are something else; and what `read` raises."""
        try:
            return (await self.read(path, timeout=timeout)).decode()
        except UnicodeDecodeError:
            raise InvalidArgument(f"{self._absolute(path)} is not UTF-8 text", hint="use `read`") from None

    async def write(self, path: str, data: str | bytes, *, mode: int = 0o644, timeout: float = DEFAULT) -> None:
        """A file in the place of what file was there; directories above it are made."""
        whole = self._absolute(path)
        raw = data.encode() if isinstance(data, str) else data
        await self._put(archives.one_file(whole, raw, mode), timeout, f"writing {whole}")

    async def mkdir(self, path: str, *, mode: int = 0o755, timeout: float = DEFAULT) -> None:
        """A directory, and those above it; one that is there stays."""
        whole = self._absolute(path)
        deadline = Deadline(timeout)
        try:
            if (await self.stat(whole, timeout=timeout)).is_dir:
                return
        except NotFound:
            pass
        await self._put(archives.one_directory(whole, mode), deadline.left, f"making {whole}")

    async def stat(self, path: str, *, timeout: float = DEFAULT) -> PathStat:
        """Of a path itself: a symbolic link is not followed. :raise NotFound: there is none."""
        whole = self._absolute(path)
        call = self._api.call(PathStat, "GET", self._route("/archive/stat"), {"path": whole})
        return await self._within(timeout, f"looking at {whole}", call)

    async def list(self, path: str, *, depth: int = 1, timeout: float = DEFAULT) -> builtins.list[FileEntry]:
        """What is in a directory; with a greater `depth`, what is in those within it, too.

        :raise NotFound: there is none.
        """
        whole = self._absolute(path)
        query: Query = {"path": whole, "depth": depth}
        call = self._api.call(list[FileEntry], "GET", self._route("/files"), query)
        return await self._within(timeout, f"the list of {whole}", call)

    async def remove(self, path: str, *, recursive: bool = False, timeout: float = DEFAULT) -> None:
        """A file, or an empty directory; `recursive`: with all that is below it.

        :raise NotFound: there is none. :raise GuestError: it is a directory that is not empty.
        """
        whole = self._absolute(path)
        call = self._api.do("DELETE", self._route("/files"), {"path": whole, "recursive": recursive})
        await self._within(timeout, f"removing {whole}", call)

    async def rename(self, path: str, new: str, *, timeout: float = DEFAULT) -> None:
        """In the place of what file has the new path.

        :raise NotFound: there is none. :raise GuestError: it cannot be, as between two file systems.
        """
        whole = self._absolute(path)
        call = self._api.do("POST", self._route("/files/rename"), {"path": whole, "to": self._absolute(new)})
        await self._within(timeout, f"renaming {whole}", call)

    async def watch(self, path: str, *, recursive: bool = False, timeout: float = DEFAULT) -> AsyncWatch:
        """What happens in a directory from now on; `timeout` is until it is watched.

        :raise NotFound: there is none.
        """
        whole = self._absolute(path)
        query: Query = {"path": whole, "recursive": recursive}
        call = self._api.opened("GET", self._route("/files/watch"), query)
        exchange = await self._within(timeout, f"watching {whole}", call, Exchange.close)
        return AsyncWatch(self._api, self._container_id, exchange)

    async def exists(self, path: str, *, timeout: float = DEFAULT) -> bool:
        """Whether there is such a path, of whatever kind."""
        try:
            await self.stat(path, timeout=timeout)
        except NotFound:
            return False
        return True

    async def upload(self, local: str | os.PathLike[str], path: str, *, timeout: float = _LONG) -> None:
        """A file or a directory of this host, as `path`; what is in a directory there already stays."""
        whole = self._absolute(path)

        async def work() -> None:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as archive:
                await asyncio.to_thread(archives.pack, Path(local), whole, archive)
                async with self._api.open(
                    "PUT", self._route("/archive"), {"path": "/"}, body=archives.pieces(archive)
                ) as exchange:
                    await exchange.read()

        await self._within(timeout, f"sending {whole}", work())

    async def download(self, path: str, local: str | os.PathLike[str], *, timeout: float = _LONG) -> None:
        """A file or a directory of the sandbox, as `local` on this host. Nothing is written outside of that, whatever
        the sandbox sends.

        :raise NotFound: there is none. :raise InvalidArgument: something in it cannot be made here, such as a device.
        """
        whole = self._absolute(path)

        async def work() -> None:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as archive:
                async with self._api.open("GET", self._route("/archive"), {"path": whole}) as exchange:
                    async for piece in exchange.chunks():
                        archive.write(piece)
                archive.seek(0)
                await asyncio.to_thread(archives.unpack, archive, Path(local))

        await self._within(timeout, f"fetching {whole}", work())

    async def _put(self, archive: bytes, timeout: float, what: str) -> None:
        async def work() -> None:
            query: Query = {"path": "/", "owned": True}
            async with self._api.open("PUT", self._route("/archive"), query, body=archive) as exchange:
                await exchange.read()

        await self._within(timeout, what, work())

    def _absolute(self, path: str) -> str:
        """:raise InvalidArgument: it is none."""
        if not path or "\0" in path or path != path.encode(errors="replace").decode():
            raise InvalidArgument(f"{path!r} is no path", hint="a path is UTF-8 text without the character 0")
        return posixpath.normpath(posixpath.join(self._workdir or "/", path))

    def _route(self, suffix: str) -> str:
        return container_route(self._container_id, suffix)


@contextlib.asynccontextmanager
async def opened(files: AsyncFiles, path: str) -> AsyncIterator[archives.Contents]:
    """A file's contents as they come.

    :raise NotFound: there is none. :raise InvalidArgument: it is a directory, or a device.
    """
    whole = files._absolute(path)
    query: Query = {"path": whole, "follow": True}
    async with files._api.open("GET", files._route("/archive"), query) as exchange:
        found = archives.Contents(exchange.chunks(), whole)
        await found.begin()
        yield found


async def read_part(
    files: AsyncFiles, path: str, offset: int, limit: int | None, timeout: float = DEFAULT
) -> tuple[bytes, int]:
    """A part of a file, and the size of all of it.

    :raise InvalidArgument: there is no such part; and what `opened` raises.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise InvalidArgument("offset and limit are 0 or more")

    async def work() -> tuple[bytes, int]:
        async with opened(files, path) as found:
            return b"".join([piece async for piece in found.pieces(offset, limit)]), found.size

    return await files._within(timeout, f"reading {files._absolute(path)}", work())
