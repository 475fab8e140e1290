# SPDX-License-Identifier: Apache-2.0
"""From layers to a read-only image disk.

Each layer is uncompressed into an unnamed temporary file and verified on the
way; the merged tree goes as one tar stream through sqfstar into squashfs.
Nothing in it is compressed: the guest would pay for that at every read, and
under emulation dearly.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import zstandard
from isal import igzip, isal_zlib

from ..errors import InvalidArgument, NotFound, Unavailable
from ..sys.files import no_space, no_space_as_error
from ..sys.process import die_with_parent
from .layout import Layout, StoredImage
from .tarstream import BLOCK, Writer
from .tree import Tree

FSTYPE = "squashfs"
_CHUNK = 1 << 20
_CORRUPT: tuple[Any, ...] = (zlib.error, isal_zlib.error, zstandard.ZstdError, EOFError, gzip.BadGzipFile)
Report = Callable[[str, int, int], None]  # layer digest, bytes done, bytes in all


def _uncompressed(source: IO[bytes]) -> Iterator[bytes]:
    """The contents of a layer, whatever its compression; told by its first bytes."""
    magic = source.read(4)
    source.seek(0)
    stream: IO[bytes] = source
    if magic[:2] == b"\x1f\x8b":
        stream = igzip.GzipFile(fileobj=source, mode="rb")  # type: ignore[no-untyped-call, assignment]
    elif magic == b"\x28\xb5\x2f\xfd":
        stream = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    while chunk := stream.read(_CHUNK):
        yield chunk


def spool_layer(path: Path, diff_id: str, directory: Path, report: Callable[[int], None]) -> IO[bytes]:
    """Uncompress a layer into an unnamed file.

    :raise NotFound: when the blob is missing, or corrupt; it is removed then.
    :raise NoSpace: when the disk is full.
    """
    digest = hashlib.sha256()
    try:
        source = open(path, "rb")
    except FileNotFoundError:
        raise NotFound(f"blob sha256:{path.name} is missing", hint="pull the image again") from None
    spool: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # O_TMPFILE: gone with its last descriptor
    try:
        with source, no_space_as_error(directory):
            for chunk in _uncompressed(source):
                digest.update(chunk)
                spool.write(chunk)
                report(source.tell())
            # Some tools leave out the last padding and the end blocks; Go's
            # readers do not mind, and the digest says that nothing is missing.
            spool.truncate(spool.tell() + 3 * BLOCK - spool.tell() % BLOCK)
    except _CORRUPT as error:
        spool.close()
        path.unlink(missing_ok=True)
        raise NotFound(f"blob sha256:{path.name} is corrupt and was removed ({error})", hint="pull the image again") from error
    except BaseException:
        spool.close()
        raise
    if f"sha256:{digest.hexdigest()}" != diff_id:
        spool.close()
        path.unlink(missing_ok=True)
        raise NotFound(f"blob sha256:{path.name} is corrupt and was removed", hint="pull the image again")
    spool.seek(0)
    return spool


def make_squashfs(tree: Tree, layers: list[IO[bytes]], target: Path) -> None:
    """Write a tree as a squashfs image.

    :raise NoSpace: when the disk is full.
    :raise Unavailable: when sqfstar is missing.
    """
    root = tree.root.inode
    args = ["sqfstar", "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX", "-no-duplicates", "-exit-on-error",
            "-root-mode", f"{root.mode:o}", "-root-uid", str(root.uid), "-root-gid", str(root.gid),
            "-root-time", str(root.mtime), str(target)]  # fmt: skip
    try:
        child = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
    except FileNotFoundError:
        raise Unavailable("sqfstar is not installed", hint="install the package squashfs-tools") from None
    with child:
        assert child.stdin is not None and child.stderr is not None
        try:
            Writer(child.stdin.fileno(), [f.fileno() for f in layers]).write(tree)
            child.stdin.close()
        except BrokenPipeError:
            pass  # its message follows
        except BaseException:
            child.kill()
            raise
        message = child.stderr.read().decode(errors="replace").strip()
    if child.returncode:
        if "No space left" in message:
            raise no_space(target.parent)
        raise InvalidArgument(f"the image could not be converted: {message or 'sqfstar failed'}")


class DiskBuilder:
    """Makes each image disk once, however many ask for it."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        self._layout = layout
        self._directory = directory
        self._building: dict[str, asyncio.Task[Path]] = {}

    def path(self, chain_id: str) -> Path:
        return self._directory / f"{chain_id.removeprefix('sha256:')}.sqfs"

    async def ensure(self, image: StoredImage, report: Report) -> Path:
        """The disk of an image, made when it is not there; idempotent, safe to call at once."""
        path = self.path(image.chain_id)
        if path.exists():
            return path
        task = self._building.get(image.chain_id)
        if task is None:
            task = asyncio.create_task(self._build(image, path, report))
            self._building[image.chain_id] = task
            task.add_done_callback(lambda _: self._building.pop(image.chain_id, None))
        return await asyncio.shield(task)

    async def _build(self, image: StoredImage, path: Path, report: Report) -> Path:
        gate = asyncio.Semaphore(os.cpu_count() or 1)

        async def spool(index: int) -> IO[bytes]:
            layer = image.manifest.layers[index]
            blob, diff = self._layout.blob(layer.digest), image.config.rootfs.diff_ids[index]
            async with gate:
                return await asyncio.to_thread(
                    spool_layer, blob, diff, self._directory, lambda done: report(layer.digest, done, layer.size)
                )

        jobs = [asyncio.create_task(spool(i)) for i in range(len(image.manifest.layers))]
        with ExitStack() as stack:
            results = await asyncio.gather(*jobs, return_exceptions=True)
            layers = [stack.enter_context(r) for r in results if not isinstance(r, BaseException)]
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            await asyncio.to_thread(self._merge, layers, path)
        return path

    def _merge(self, layers: list[IO[bytes]], path: Path) -> None:
        tree = Tree()
        for index, layer in enumerate(layers):
            tree.apply(index, layer)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            make_squashfs(tree, layers, temporary)
            os.chmod(temporary, 0o600)
            os.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
