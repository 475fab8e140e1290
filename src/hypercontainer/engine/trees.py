# SPDX-License-Identifier: Apache-2.0
"""Files of a container that runs: listed, removed, renamed and watched by its guest, whatever is in its image."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator

from ..errors import GuestError, InvalidArgument, NotFound
from ..guest.agent import EditFiles, FilesVerb, Process, require
from ..model.files import ChangeKind, FileChange, FileEntry, FileKind
from .builtins import running
from .containers import Containers
from .registry import Registry

_PATH_MISSING = 2  # exit status
_LIST_MAX = 16 << 20  # bytes of a list
_WORDS_MAX = 4096  # bytes of why it failed
_DEPTH_MAX = 64
_KINDS: dict[str, FileKind] = {
    "f": "file", "d": "directory", "l": "link", "c": "character", "b": "block", "p": "fifo", "s": "socket"
}  # fmt: skip
_CHANGES: dict[str, ChangeKind] = {
    "C": "created", "W": "written", "A": "attributes", "M": "moved", "D": "removed", "O": "lost", "E": "gone"
}  # fmt: skip


class Trees:
    """What the guest says is checked, and read as text: a name that is no UTF-8 has marks in its place."""

    def __init__(self, registry: Registry, containers: Containers) -> None:
        self._registry = registry
        self._containers = containers

    async def list(self, key: str, path: str, depth: int) -> list[FileEntry]:
        """What is in a directory, and so many levels below it.

        :raise NotFound: there is no such directory. :raise GuestError: it cannot be read, or has too much in it.
        :raise InvalidState: the container does not run.
        """
        if not 1 <= depth <= _DEPTH_MAX:
            raise InvalidArgument(f"a depth of {depth} cannot be listed", hint=f"give one of 1 to {_DEPTH_MAX}")
        said = await self._done(key, "list", path, str(depth))
        try:
            return await asyncio.to_thread(_entries, said)  # which may be many
        except (ValueError, KeyError):
            raise GuestError(f"the guest's list of {path} is not understood") from None

    async def remove(self, key: str, path: str, *, recursive: bool) -> None:
        """:raise NotFound: there is no such path. :raise GuestError: it cannot be removed, or is not empty."""
        await self._done(key, "remove", path, "recursive" * recursive)

    async def rename(self, key: str, path: str, new: str) -> None:
        """What file is at the new path is replaced.

        :raise NotFound: there is no such path. :raise GuestError: it cannot be renamed.
        """
        await self._done(key, "rename", path, _absolute(new))

    async def watch(self, key: str, path: str, *, recursive: bool) -> AsyncGenerator[FileChange | None, None]:
        """What happens in a directory, as it happens; first None, when it is watched.

        :raise NotFound: there is no such directory. :raise GuestError: it cannot be watched.
        """
        rest, said = b"", bytearray()
        agent = self._containers.runtime(container := self._registry.container(key)).agent
        process = require(agent, EditFiles).files_process(
            container.id[:12], "watch", _absolute(path), "recursive" * recursive
        )
        async with running(agent, process) as (handle, reader):
            async for stream, data in reader:
                if stream != 1:
                    said += data[: _WORDS_MAX - len(said)]
                    continue
                *whole, rest = (rest + data).split(b"\0")
                for record in whole:
                    kind, _, at = record.decode(errors="replace").partition(" ")
                    yield None if kind == "R" else FileChange(kind=_CHANGES.get(kind, "lost"), path=at)
                if len(rest) > _WORDS_MAX * 2:
                    raise GuestError("what the guest says of its files is not understood")
            await _check(handle, path, said)

    async def _done(self, key: str, verb: FilesVerb, path: str, option: str) -> str:
        out, said = bytearray(), bytearray()
        agent = self._containers.runtime(container := self._registry.container(key)).agent
        process = require(agent, EditFiles).files_process(container.id[:12], verb, _absolute(path), option)
        async with running(agent, process) as (handle, reader):
            async for stream, data in reader:
                if stream == 1:
                    out += data
                else:
                    said += data[: _WORDS_MAX - len(said)]
                if len(out) > _LIST_MAX:
                    raise GuestError(f"{path} has too much in it to be listed")
            await _check(handle, path, said)
        return out.decode(errors="replace")


async def _check(handle: Process, path: str, said: bytearray) -> None:
    status = (await handle.exited).shell_code
    if status == _PATH_MISSING:
        raise NotFound(f"no such path in the container: {path}")
    if status:
        raise GuestError(said.decode(errors="replace").strip() or f"{path}: status {status}")


def _absolute(path: str) -> str:
    """:raise InvalidArgument: it is not."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{path!r} is no absolute path of a container", hint="begin it with /")
    return posixpath.normpath(path).replace("//", "/", 1)


def _entries(said: str) -> list[FileEntry]:
    """:raise ValueError, KeyError: they are none."""
    fields = said.split("\0")[:-1]
    return [_entry(head, target) for head, target in zip(fields[::2], fields[1::2], strict=True)]


def _entry(head: str, target: str) -> FileEntry:
    """:raise ValueError, KeyError: it is none."""
    kind, mode, uid, gid, size, mtime, name = head.split(" ", 6)
    return FileEntry(
        name=name, kind=_KINDS[kind], mode=int(mode, 8), uid=int(uid), gid=int(gid), size=int(size), mtime=int(mtime),
        link_target=target,
    )  # fmt: skip
