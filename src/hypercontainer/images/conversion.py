# SPDX-License-Identifier: Apache-2.0
"""Starting the process that converts images (`worker`), and believing only so much of what it says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ..errors import DeadlineExceeded, HyperError, InternalError, InvalidArgument, NotFound, by_code
from ..jail import helpers, interpreter
from ..jail.jail import Limits as JailLimits
from ..jail.jail import Order
from ..model.ids import short
from ..sys import tasks
from ..sys.documents import UNREADABLE
from ..sys.files import no_space, no_space_as_error
from ..sys.users import pick_for_conversion
from .archive import is_compressed
from .convert import Layer
from .limits import DOCUMENT_MAX, Limits, beyond
from .manifests import StoredImage
from .worker import THREADS, Job

_THREADS_MAX = 4
_TABLE_MAX = 16 << 20  # bytes
_WORDS = 200  # bytes of the last that a worker said which went wrong
Report = Callable[[int, int], None]  # index of a layer, bytes done


class _Message(msgspec.Struct, rename="camel"):
    layer: int = -1
    done: int = -1
    names: list[str] | None = None
    without_acl: int = 0
    error: str = ""
    message: str = ""
    hint: str | None = None


async def convert(
    image: StoredImage, what: str, blobs: Sequence[Path], target: Path, limits: Limits, report: Report
) -> int:
    """Make the image disk `target` of compressed layers; how many entries have ACLs that nobody can read.

    A process without rights does it; it ends when this is cancelled. `what` is the image's name for messages.

    :raise NotFound: a blob is missing or corrupt; a corrupt one is removed.
    :raise InvalidArgument: the image is refused. :raise NoSpace: the disk is full.
    :raise DeadlineExceeded: it took too long.
    """
    uid, gid = pick_for_conversion()  # conversions are strangers to each other
    with contextlib.ExitStack() as stack, no_space_as_error(target.parent):
        opened = [_open_blob(stack, blob) for blob in blobs]
        threads = min(os.cpu_count() or 1, _THREADS_MAX, max(1, len(blobs)))
        spools = [stack.enter_context(tempfile.TemporaryFile(dir=target.parent)).fileno() for _ in range(threads)]
        out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, out)
        if os.geteuid() == 0:
            os.fchown(out, uid, -1)
        layers = [Layer(fd, diff) for fd, diff in zip(opened, image.config.rootfs.diff_ids, strict=True)]
        job = Job(uid, gid, limits, target=out, layers=layers, spools=spools)

        without_acl = 0

        def hear(message: _Message) -> None:
            nonlocal without_acl
            without_acl = message.without_acl
            if 0 <= message.layer < len(blobs) and message.done >= 0:
                report(message.layer, message.done)

        try:
            failed = await _run(job, [*opened, *spools, out], hear)
        finally:
            await tasks.in_thread(lambda: _emptied(spools))
        if failed:
            raise _error(failed, what, blobs, target.parent)
        if os.geteuid() == 0:
            os.fchown(out, 0, 0)
        return without_acl


async def archive_names(path: Path, what: str, unpacked: Path, limits: Limits) -> tuple[list[str], bool]:
    """The names in an archive of images; and whether it was compressed, and is now in the file `unpacked`.

    :raise NotFound: there is no such file. :raise InvalidArgument: it is no archive. :raise NoSpace: the disk is full.
    """
    (uid, gid), names = pick_for_conversion(), list[str]()
    with contextlib.ExitStack() as stack, no_space_as_error(unpacked.parent):
        try:
            source = stack.enter_context(open(path, "rb", buffering=0))
            begin = os.pread(source.fileno(), 6, 0)
        except OSError as error:
            why = "no such file" if error.errno == errno.ENOENT else str(error.strerror)
            raise NotFound(f"cannot pull {what}: {why}", hint="check the path") from error
        fds = [source.fileno()]
        if compressed := is_compressed(begin):
            fds += [stack.enter_context(open(unpacked, "x+b")).fileno()]
        job = Job(uid, gid, limits, archive=fds[0], target=fds[1] if compressed else -1)

        def hear(message: _Message) -> None:
            names.extend(message.names or [])

        if failed := await _run(job, fds, hear):
            raise _error(failed, what, [], unpacked.parent)
    return names, compressed


async def unpacked(path: Path, what: str, directory: Path, limits: Limits) -> Path:
    """The file itself, or a new one in the directory with what it is compressed from.

    :raise InvalidArgument: it is damaged, or beyond a limit. :raise NoSpace: the disk is full.
    """
    plain, _ = await _look(path, what, directory, limits, table=False)
    return plain


async def table_of(path: Path, what: str, directory: Path, limits: Limits) -> tuple[bytes, Path]:
    """Where the files of an archive are, as a stranger says (`bundle.Table`), and the archive without compression.

    :raise InvalidArgument: it is no archive, or beyond a limit. :raise NoSpace: the disk is full.
    """
    plain, found = await _look(path, what, directory, limits, table=True)
    return found, plain


async def appc_parts(path: Path, what: str, directory: Path, limits: Limits) -> tuple[bytes, Path]:
    """The manifest of an App Container image, whose archive is not compressed, and its files as a layer.

    :raise InvalidArgument: it is none, or beyond a limit. :raise NoSpace: the disk is full.
    """
    uid, gid = pick_for_conversion()
    with contextlib.ExitStack() as stack, no_space_as_error(directory):
        source = stack.enter_context(open(path, "rb", buffering=0)).fileno()
        manifest = stack.enter_context(tempfile.TemporaryFile(dir=directory))
        layer = stack.enter_context(open(directory / "layer", "x+b")).fileno()
        fds = [source, manifest.fileno(), layer]
        job = Job(uid, gid, limits, archive=source, spools=fds[1:], look="appc")
        if failed := await _run(job, fds, lambda _: None):
            if by_code(failed.error) is InvalidArgument:
                raise InvalidArgument(f"{what} {failed.message}", hint=failed.hint)
            raise _error(failed, what, [], directory)
        manifest.seek(0)
        return manifest.read(DOCUMENT_MAX), directory / "layer"


async def _look(path: Path, what: str, directory: Path, limits: Limits, *, table: bool) -> tuple[Path, bytes]:
    uid, gid = pick_for_conversion()
    with contextlib.ExitStack() as stack, no_space_as_error(directory):
        source = stack.enter_context(open(path, "rb", buffering=0))
        fds, plain, target = [source.fileno()], path, -1
        if is_compressed(os.pread(source.fileno(), 6, 0)):
            plain = directory / "unpacked"
            target = stack.enter_context(open(plain, "x+b")).fileno()
            fds.append(target)
        elif not table:
            return path, b""
        spool = stack.enter_context(tempfile.TemporaryFile(dir=directory))
        fds.append(spool.fileno())
        job = Job(
            uid, gid, limits, archive=fds[0], target=target, spools=[spool.fileno()], look="table" if table else "no"
        )
        if failed := await _run(job, fds, lambda _: None):
            if by_code(failed.error) is InvalidArgument:
                raise InvalidArgument(f"{what} {failed.message}", hint=failed.hint)
            raise _error(failed, what, [], directory)
        spool.seek(0)
        return plain, spool.read(_TABLE_MAX)


def _emptied(spools: Sequence[int]) -> None:
    """What is in them goes here, where nobody waits for it, and not when they are closed."""
    for fd in spools:
        os.ftruncate(fd, 0)


def _open_blob(stack: contextlib.ExitStack, path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"blob sha256:{path.name} is missing", hint="pull the image again") from None
    stack.callback(os.close, fd)
    return fd


async def _run(job: Job, fds: Sequence[int], hear: Callable[[_Message], None]) -> _Message | None:
    """Have a job done; what went wrong, None when nothing did."""
    limits = job.limits
    failed: _Message | None = None
    words = b""
    try:
        async with (
            asyncio.timeout(limits.time),
            helpers.running(_order(job, fds), msgspec.json.encode(job)) as process,
        ):
            async for line in process.output:
                message = _parse(line)
                if message is None:
                    words = line
                elif message.error:
                    failed = message
                else:
                    hear(message)
            status = await process.wait()
        words = process.errors.encode() or words
    except TimeoutError:
        return _Message(
            error=DeadlineExceeded.code, **_said(beyond(f"takes longer than {limits.time:g} s to be converted", "time"))
        )
    except ValueError:  # a line without an end
        return _Message(error=InvalidArgument.code, message="cannot be converted: its conversion went astray")
    if failed or not status:
        return failed
    if status == -signal.SIGXCPU:
        return _Message(
            error=DeadlineExceeded.code, **_said(beyond(f"takes more than {limits.time:g} s of CPU time", "time"))
        )
    said = words[-_WORDS:].decode(errors="replace").strip() or f"status {status}"
    return _Message(error="internal", message=f"cannot be converted: {said}")


def _order(job: Job, fds: Sequence[int]) -> Order:
    """The worker sees modules and libraries; it takes its job from stdin, and all that it writes to are descriptors."""
    environment = {**interpreter.environment(), "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}  # an arena has 64 MiB
    order = helpers.order(
        interpreter.binary(), "-P", "-S", "-B", "-m", "hypercontainer.images.worker",
        files=interpreter.files(), environment=environment, own_user=job.uid, limits=JailLimits(processes=THREADS),
    )  # fmt: skip
    return replace(order, descriptors=tuple(fds))


def _said(error: HyperError) -> dict[str, Any]:
    return {"message": error.message, "hint": error.hint}


def _parse(line: bytes) -> _Message | None:
    try:
        return msgspec.json.decode(line, type=_Message)
    except UNREADABLE:
        return None


def _error(found: _Message, what: str, blobs: Sequence[Path], directory: Path) -> HyperError:
    """The error that a message of the process stands for."""
    kind = by_code(found.error)
    index = found.layer if 0 <= found.layer < len(blobs) else -1
    if found.error == "no_space":
        return no_space(directory)
    if kind is NotFound and index >= 0:
        blobs[index].unlink(missing_ok=True)
        return NotFound(
            f"layer {index + 1} of image {what}, blob sha256:{blobs[index].name}, {found.message} and was removed",
            hint="pull the image again",
        )
    if found.error == InternalError.code:
        return InternalError(f"image {what} {found.message}")
    if kind not in (InvalidArgument, DeadlineExceeded):
        return kind(found.message, hint=found.hint)
    layer = f"layer {index + 1} (sha256:{short(blobs[index].name)}) " if index >= 0 else "it "
    return kind(f"image {what} is refused: {layer}{found.message}", hint=found.hint)
