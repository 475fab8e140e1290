# SPDX-License-Identifier: Apache-2.0
"""cp: a container's files as tar streams, made and unpacked by hyperstart.

The host never mounts what a guest has written. A container that does not run
is booted without its program for the time of the copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import posixpath
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from pathlib import PurePosixPath
from typing import Any

from ..errors import GuestError, InvalidArgument, NotFound, Unsupported
from ..guest.agent import Agent, MakeLayers, Process, require
from ..model.status import Change, Container, ContainerStatus, PathKind, PathStat
from ..protocol.constants import Builtin
from ..protocol.messages import GuestProcess
from ..sys import tasks
from . import resolve
from .builtins import running
from .containers import Containers
from .registry import Registry
from .streams import Reader

_PATH_MISSING = 2  # exit status of the builtins
_BLOCK = 512
_CHANGES_MAX = 64 << 20  # bytes of a list of changes
_ERRORS_MAX = 64 << 10  # bytes of a builtin's last words
_LINKS_MAX = 40  # as in Linux: path_resolution(7)
_HEAD_MAX = 1 << 20  # bytes in which a tar stream's first entry ends: names and attributes are limited by Linux


class _Job:
    """A builtin that runs, with what it writes."""

    def __init__(self, handle: Process, reader: Reader) -> None:
        self.handle = handle
        self.stderr = b""
        self._reader = reader

    async def output(self) -> AsyncIterator[bytes]:
        async for stream, data in self._reader:
            if stream == 1:
                yield data
            else:
                self.stderr = (self.stderr + data)[-_ERRORS_MAX:]

    async def check(self, path: str) -> None:
        status = await self.handle.exited
        if status.code == _PATH_MISSING:
            raise NotFound(f"no such path in the container: {path}")
        if status.shell_code:
            message = self.stderr.decode(errors="replace").strip().splitlines()
            raise GuestError(f"copying {path} failed: {message[-1] if message else f'status {status.shell_code}'}")


class Archives:
    """Tar streams out of and into containers."""

    def __init__(self, registry: Registry, containers: Containers) -> None:
        self._registry = registry
        self._containers = containers

    @contextlib.asynccontextmanager
    async def _agent(self, key: str) -> AsyncIterator[tuple[Container, Agent]]:
        """The container's guest; booted for the purpose when it does not run."""
        await self._containers.rouse(key)
        container = self._registry.container(key)
        if container.state.status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED):
            with self._containers.runtime(container).in_use() as agent:
                yield container, agent
            return
        async with self._containers.lent(container) as runtime:
            yield container, runtime.agent

    @contextlib.asynccontextmanager
    async def _run(
        self, container: Container | None, agent: Agent, builtin: Builtin, *args: str, stdin: bool
    ) -> AsyncIterator[_Job]:  # fmt: skip
        """In a container; without one it runs beside hyperstart."""
        process = GuestProcess(
            args=args, container=container.id[:12] if container else "", builtin=builtin, stdin=stdin
        )
        async with running(agent, process) as (handle, reader):
            yield _Job(handle, reader)

    async def stat(self, key: str, path: str) -> PathStat:
        """:raise NotFound: when the path does not exist."""
        async with (
            self._agent(key) as (container, agent),
            self._run(container, agent, Builtin.TAR_CREATE, _absolute(path), stdin=False) as job,
        ):
            head = b""
            async for data in job.output():
                head += data
                if (found := first_entry(head)) is not None:
                    return path_stat(found)
                if len(head) > _HEAD_MAX:
                    break
            await job.check(path)
            raise GuestError(f"copying {path} failed: an empty archive")

    async def read(self, key: str, path: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """The tar stream of a path; its first entry is the path itself."""
        args = (_absolute(path), "follow") if follow else (_absolute(path),)
        async with (
            self._agent(key) as (container, agent),
            self._run(container, agent, Builtin.TAR_CREATE, *args, stdin=False) as job,
        ):
            async for data in job.output():
                yield data
            await job.check(path)

    @contextlib.asynccontextmanager
    async def opened(self, key: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """`stat` and `read` of a path in one.

        :raise NotFound: when the path does not exist.
        """
        async with contextlib.aclosing(self.read(key, path, follow=False)) as chunks:
            head = b""
            async for data in chunks:
                head += data
                if (found := first_entry(head)) is not None:
                    self._containers.tell("archive-path", self._registry.container(key))
                    yield path_stat(found), _joined(head, chunks)
                    return
                if len(head) > _HEAD_MAX:
                    break
            raise GuestError(f"copying {path} failed: an empty archive")

    async def target(self, key: str, path: str, link: PathStat) -> str:
        """Where a symbolic link leads in the end, as far as something is there; an absolute path."""
        at = _absolute(path)
        for _ in range(_LINKS_MAX):
            at = _absolute(posixpath.join(posixpath.dirname(at), link.link_target))
            try:
                link = await self.stat(key, at)
            except NotFound:
                break
            if not link.link_target:
                break
        return at

    async def write(
        self, key: str, path: str, chunks: AsyncIterator[bytes], *, replaces: bool = False, owned: bool = False
    ) -> None:
        """Unpack a tar stream below a directory of the container.

        What `replaces` takes a directory's place with a file, and the reverse. What is `owned` becomes that of the
        user as whom the container runs.

        :raise NotFound: no such directory. :raise GuestError: when an entry cannot be made.
        """
        async with (
            self._agent(key) as (container, agent),
            self._run(
                container, agent, Builtin.TAR_EXTRACT, _absolute(path), *_manner(container, replaces, owned), stdin=True
            ) as job,
        ):
            await _unless_lost(job.handle, _fill(job.handle, chunks))
            async for _ in job.output():
                pass
            await job.check(path)
            self._containers.tell("extract-to-dir", container)

    async def export(self, key: str) -> AsyncGenerator[bytes, None]:
        """The container's whole root as a tar stream, without what is mounted in it."""
        async with (
            self._agent(key) as (container, agent),
            self._run(None, agent, Builtin.EXPORT, container.id[:12], stdin=False) as job,
        ):
            self._containers.tell("export", container)
            async for data in job.output():
                yield data
            await job.check("/")

    async def layer(self, key: str) -> AsyncGenerator[bytes, None]:
        """What the container's root has become, as a layer above its image.

        :raise Unsupported: its guest cannot make one. :raise GuestError: a file has no place in a layer.
        """
        async with self._agent(key) as (container, agent):
            process = require(agent, MakeLayers).layer_process(container.id[:12], sorted(_mount_points(container)))
            async with running(agent, process) as (handle, reader):
                job = _Job(handle, reader)
                async for data in job.output():
                    yield data
                await job.check("/")

    async def changes(self, key: str) -> list[Change]:
        """What the container's root has that its image has not, and the reverse; by path.

        :raise NotFound: no such container. :raise Unsupported: it has no image.
        """
        if root := self._registry.container(key).spec.rootfs:
            raise Unsupported(f"there is no image to compare with: the container's root is the directory {root}")
        async with (
            self._agent(key) as (container, agent),
            self._run(None, agent, Builtin.DIFF, container.id[:12], stdin=False) as job,
        ):
            found = bytearray()
            async for data in job.output():
                found += data
                if len(found) > _CHANGES_MAX:
                    raise GuestError(
                        f"container {container.name} has changed too much to be listed: use `hyperctl export`"
                    )
            await job.check("/")
        return await tasks.in_thread(lambda: _listed(bytes(found), container))


async def _fill(handle: Process, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await handle.write_stdin(chunk)
    handle.close_stdin()


async def _unless_lost(handle: Process, work: Coroutine[Any, Any, None]) -> None:
    """Do it; a client may let its next piece be waited for, and a machine that has ended does not wait for that.

    :raise HyperError: the process is lost.
    """
    doing, exited = asyncio.create_task(work), handle.exited
    doing.add_done_callback(lambda d: d.cancelled() or d.exception())  # when the process is lost, that is said
    both: set[asyncio.Future[Any]] = {doing, exited}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if exited.done():
            exited.result()
        await doing
    finally:
        await tasks.end([doing])


_OURS = ("/dev", "/proc", "/sys", *resolve.OWN_FILES)


def _listed(found: bytes, container: Container) -> list[Change]:
    """By path. Names that are no UTF-8 are shown as in Docker's answers, with U+FFFD."""
    lines = found.decode("utf-8", "replace").split("\0")
    changes = sorted((Change(kind=line[0], path=line[2:]) for line in lines if line), key=lambda c: c.path)
    return _without_mount_points(changes, container)


def _mount_points(container: Container) -> set[str]:
    return {*_OURS, *(m.mount.target for m in container.mounts), *(s.target for s in container.spec.secrets)}


def _without_mount_points(changes: list[Change], container: Container) -> list[Change]:
    """What was made only to mount something there is no change of the container's."""
    made = _mount_points(container)
    ours = [c for c in changes if c.kind == "A" and c.path in made]
    parents = {str(p) for c in ours for p in PurePosixPath(c.path).parents}
    needed: set[str] = set()  # parents that hold something of the container's
    kept = []
    for change in reversed(changes):  # what lies in a directory comes before it
        path = change.path
        if (change.kind == "A" and path in made) or (path in parents and path not in needed):
            continue
        kept.append(change)
        end = path.find("/", 1)
        while end > 0 and path[:end] in parents:
            needed.add(path[:end])
            end = path.find("/", end + 1)
    return kept[::-1]


def _absolute(path: str) -> str:
    if not path or "\0" in path:
        raise InvalidArgument("an empty path in the container")
    dot = path.endswith("/.") or path == "."
    clean = posixpath.normpath("/" + path)
    clean = "/" + clean.lstrip("/")
    return clean.rstrip("/") + "/." if dot else clean


def _manner(container: Container, replaces: bool, owned: bool) -> list[str]:
    user = container.process.user
    return ["replace"] * replaces + ([f"owner={user}"] if owned and user else [])


async def _joined(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


def first_entry(head: bytes) -> tarfile.TarInfo | None:
    """The first real entry of a tar stream whose beginning this is; None when more is needed."""
    if len(head) < _BLOCK:
        return None
    with contextlib.suppress(tarfile.TarError, EOFError):
        with tarfile.open(fileobj=io.BytesIO(head), mode="r|", errors="surrogateescape") as tar:
            return tar.next()
    return None


_KINDS: dict[bytes, PathKind] = {
    tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "character", tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}  # fmt: skip


def path_stat(info: tarfile.TarInfo) -> PathStat:
    """What is told of a path, by its entry in a tar stream."""
    return PathStat(
        name=info.name.rstrip("/").rpartition("/")[2] or ".",
        size=info.size,
        mode=info.mode,
        mtime=int(info.mtime),
        is_dir=info.isdir(),
        link_target=info.linkname if info.issym() else "",
        kind=_KINDS.get(info.type, "file"),
        uid=info.uid,
        gid=info.gid,
    )
