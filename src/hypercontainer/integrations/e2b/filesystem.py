# SPDX-License-Identifier: Apache-2.0
"""The service filesystem.Filesystem: directories, names and changes."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import secrets
import stat as modes
from collections.abc import AsyncIterator
from typing import Any

from ...errors import Conflict, HyperError, InvalidArgument, InvalidState, NotFound
from ...model.files import FileChange, FileEntry
from .book import Entry, Watched
from .connect import Call, Message
from .terms import time_of

ALIVE: Message = {"keepalive": {}}
_TYPES = {"file": "FILE_TYPE_FILE", "directory": "FILE_TYPE_DIRECTORY", "link": "FILE_TYPE_SYMLINK"}
_EVENTS = {
    "created": "EVENT_TYPE_CREATE", "written": "EVENT_TYPE_WRITE", "removed": "EVENT_TYPE_REMOVE",
    "moved": "EVENT_TYPE_RENAME", "attributes": "EVENT_TYPE_CHMOD",
}  # fmt: skip
_DEPTH_ALL = 64  # levels, of who asks for all of them
_WATCHES_MAX = 64  # of a sandbox; each is a process in it
_NEWS_MAX = 10_000  # changes that wait for a client which does not ask for them


def text_of(message: Message, name: str) -> str:
    """:raise InvalidArgument: it is not given."""
    found = message.get(name)
    if not isinstance(found, str) or not found:
        raise InvalidArgument(f"no {name} is given")
    return found


def absolute(entry: Entry, path: str) -> str:
    """As the sandbox's files are named."""
    return entry.sandbox.files._absolute(path)


def whose_files(user: str) -> None:
    """:raise InvalidArgument: not root's."""
    if user not in ("", "root"):
        raise InvalidArgument(f"files are made and seen by root here, not by {user}")


async def _asked(call: Call) -> Message:
    whose_files(call.user)
    return await call.message()


def _view(path: str, entry: FileEntry) -> dict[str, Any]:
    found = {
        "name": posixpath.basename(path) or "/", "type": _TYPES.get(entry.kind, "FILE_TYPE_UNSPECIFIED"), "path": path,
        "size": str(entry.size), "mode": entry.mode & 0o7777, "permissions": modes.filemode(entry.mode & 0o777)[1:],
        "owner": _name(entry.uid), "group": _name(entry.gid), "modifiedTime": time_of(entry.mtime),
    }  # fmt: skip
    if entry.kind == "link":
        found["symlinkTarget"] = entry.link_target
    return found


def _name(number: int) -> str:
    """root, or the number: names are the image's own affair."""
    return str(number) if number else "root"


async def _look(entry: Entry, path: str) -> dict[str, Any]:
    """:raise NotFound: there is none."""
    whole = absolute(entry, path)
    found = await entry.sandbox.files.stat(whole)
    return _view(whole, FileEntry(
        name=posixpath.basename(whole), kind=found.kind, mode=found.mode, uid=found.uid, gid=found.gid,
        size=found.size, mtime=found.mtime, link_target=found.link_target,
    ))  # fmt: skip


async def stat(entry: Entry, call: Call) -> Message:
    """One path; a symbolic link itself."""
    return {"entry": await _look(entry, text_of(await _asked(call), "path"))}


async def list_dir(entry: Entry, call: Call) -> Message:
    """What is in a directory, and in those below it as deep as was asked."""
    message = await _asked(call)
    top = absolute(entry, text_of(message, "path"))
    if not (await entry.sandbox.files.stat(top)).is_dir:
        raise InvalidArgument(f"{top} is no directory")
    depth = message.get("depth", 1) or _DEPTH_ALL
    found = await entry.sandbox.files.list(top, depth=depth)
    return {"entries": [_view(posixpath.join(top, each.name), each) for each in found if each.kind in _TYPES]}


async def make_dir(entry: Entry, call: Call) -> Message:
    """:raise Conflict: it is there."""
    path = text_of(await _asked(call), "path")
    if await entry.sandbox.files.exists(path):
        raise Conflict(f"{path} is there already")
    await entry.sandbox.files.mkdir(path)
    return {"entry": await _look(entry, path)}


async def move(entry: Entry, call: Call) -> Message:
    """A file or a directory."""
    message = await _asked(call)
    to = text_of(message, "destination")
    await entry.sandbox.files.rename(text_of(message, "source"), to)
    return {"entry": await _look(entry, to)}


async def remove(entry: Entry, call: Call) -> Message:
    """A file, or a directory with what is below it; what is not there is no error."""
    with contextlib.suppress(NotFound):
        await entry.sandbox.files.remove(text_of(await _asked(call), "path"), recursive=True)
    return {}


def _event(top: str, change: FileChange) -> dict[str, Any] | None:
    """None of what there is no word for."""
    kind = _EVENTS.get(change.kind)
    return {"name": posixpath.relpath(posixpath.join(top, change.path), top), "type": kind} if kind else None


async def watch_dir(entry: Entry, call: Call) -> AsyncIterator[Message]:
    """Changes as they happen."""
    message = await _asked(call)
    path = absolute(entry, text_of(message, "path"))
    async with await entry.sandbox.files.watch(path, recursive=bool(message.get("recursive"))) as watch:
        yield {"start": {}}
        async for change in watch:
            if event := _event(path, change):
                yield {"filesystem": event}


async def create_watcher(entry: Entry, call: Call) -> Message:
    """The same for a client that asks now and then."""
    message = await _asked(call)
    path = absolute(entry, text_of(message, "path"))
    if len(entry.watches) >= _WATCHES_MAX:
        raise InvalidState(f"a sandbox has at most {_WATCHES_MAX} watchers", hint="remove some")
    watch = await entry.sandbox.files.watch(path, recursive=bool(message.get("recursive")))
    news: list[dict[str, object]] = []

    async def collect() -> None:
        with contextlib.suppress(HyperError):
            async for change in watch:
                if event := _event(path, change):
                    news.append(event)
                    del news[:-_NEWS_MAX]

    id_ = secrets.token_hex(8)
    entry.watches[id_] = Watched(watch, asyncio.create_task(collect()), news)
    return {"watcherId": id_}


def _watched(entry: Entry, message: Message) -> tuple[str, Watched]:
    id_ = text_of(message, "watcherId")
    if id_ not in entry.watches:
        raise NotFound(f"no such watcher: {id_}")
    return id_, entry.watches[id_]


async def get_watcher_events(entry: Entry, call: Call) -> Message:
    """What happened since the last time."""
    _, watched = _watched(entry, await _asked(call))
    found = list(watched.news)
    watched.news.clear()
    return {"events": found}


async def remove_watcher(entry: Entry, call: Call) -> Message:
    """It is watched no more."""
    id_, watched = _watched(entry, await _asked(call))
    del entry.watches[id_]
    await watched.close()
    return {}


SERVER_STREAMS = {"WatchDir": watch_dir}
UNARY = {
    "Stat": stat,
    "ListDir": list_dir,
    "MakeDir": make_dir,
    "Move": move,
    "Remove": remove,
    "CreateWatcher": create_watcher,
    "GetWatcherEvents": get_watcher_events,
    "RemoveWatcher": remove_watcher,
}
