# SPDX-License-Identifier: Apache-2.0
"""Pushes: an image of the store to a registry, by skopeo, as it is, byte by byte.

What becomes of each layer is told by skopeo's log alone (`--debug`), and how far it is by the offsets of the files
that it has open. It mounts layers from other repositories of the registry that it has seen them in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ..errors import InvalidArgument, Unavailable
from ..jail import helpers
from ..model.reference import Reference, Source
from ..sys.removal import temporary_directory
from . import transport
from .layout import Layout, chosen
from .manifests import Descriptor, is_index, read_index
from .progress import Progress
from .skopeo import STALLED, Access, authfile, error_from, lend, spelled

_DEBUG = re.compile(r'level=debug msg="(.*)"$')
_MOUNT = re.compile(r"^Trying to mount .*[?&]from=([^&]+)&mount=(sha256%3A[0-9a-f]{64})")
_SKIPPED = re.compile(r"^Skipping blob (sha256:[0-9a-f]{64}) \(already present\)")
_DONE = re.compile(r"^Upload of layer (sha256:[0-9a-f]{64}) complete")
_TICK = 0.2  # seconds
_WORDS_MAX = 1 << 16  # bytes of what is no part of the log's debugging
_SEEN = re.compile(r"blob-info-cache-v1\.[a-z]{1,16}")  # boltdb, sqlite in later versions
_SEEN_MAX = 64 << 20  # bytes of such a file; a larger one is forgotten


@dataclass(frozen=True)
class Pushed:
    """What the registry has now."""

    digest: str
    size: int  # bytes of the manifest, or of the index


class _Layers:
    """Where each layer stands."""

    def __init__(self, sizes: dict[str, int], progress: Progress, *, places: bool) -> None:
        """`places`: from where the registry took a layer is told."""
        self._sizes = sizes
        self._places = places
        self._progress = progress
        self._mounted: dict[str, str] = {}
        self._over: set[str] = set()
        for digest, size in sizes.items():
            progress.update(digest, "Preparing", 0, size)

    def hear(self, words: str) -> None:
        """A line of skopeo's log."""
        if match := _MOUNT.match(words):
            self._mounted[unquote(match[2])] = unquote(match[1])
        elif match := _SKIPPED.match(words):
            place = self._mounted.get(match[1]) if self._places else None
            self._end(match[1], f"Mounted from {place}" if place else "Layer already exists")
        elif match := _DONE.match(words):
            self._end(match[1], "Pushed")

    def _end(self, digest: str, status: str) -> None:
        if digest in self._sizes and digest not in self._over:
            self._over.add(digest)
            self._progress.update(digest, status, self._sizes[digest], self._sizes[digest])

    def tick(self, pid: int) -> int:
        """Look at how far the files that it has open are read; how many bytes in all."""
        total = 0
        with contextlib.suppress(OSError):  # it has ended
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    digest = "sha256:" + os.readlink(f"/proc/{pid}/fd/{fd}").rpartition("/")[2]
                    if digest in self._sizes and digest not in self._over:
                        done = int(Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split()[1])
                        total += done
                        self._progress.update(digest, "Pushing", min(done, self._sizes[digest]), self._sizes[digest])
        return total + len(self._over)


async def push(
    layout: Layout, staging: Path, entry: Descriptor, target: Reference, access: Access, progress: Progress
) -> Pushed:
    """Send an image with all that it has, of an index all platforms if they are all here.

    :raise Unauthorized: the registry wants other credentials. :raise Unavailable: it cannot be reached, or nothing
    goes on. :raise InvalidArgument: the name is a digest.
    """
    if target.digest or not target.tag:
        raise InvalidArgument(f"cannot push to {target.familiar!r}: it has no tag", hint="give NAME:TAG")
    helpers.find("skopeo")
    entry, sizes = await asyncio.to_thread(_contents, layout, entry, progress)
    progress.update("", f"The push refers to repository [{target.repository}]")
    with layout.blobs.lease(layout.reach(entry.digest)):
        async with temporary_directory(staging) as directory:
            _describe(layout, directory / "image", entry)
            async with access.user(Source("docker", target.full)) as own_user:
                kept = None if layout.tenant() else staging.parent / "pushed"
                with _seen(directory / "seen", kept, own_user):
                    await _copy(directory, own_user, target, access, _Layers(sizes, progress, places=kept is not None))
    progress.update("", f"{target.tag}: digest: {entry.digest} size: {entry.size}")
    return Pushed(entry.digest, entry.size)


def _contents(layout: Layout, entry: Descriptor, progress: Progress) -> tuple[Descriptor, dict[str, int]]:
    """What is pushed, and the sizes of its layers. Of an index that is not here as a whole it is one manifest."""
    manifests = [chosen(entry)]
    if is_index(raw := layout.blobs.read(entry.digest)):
        children = read_index(raw).manifests
        every = [d for c in children for d in layout.reach(c.digest)]
        if all(layout.blobs.has(digest) for digest in every):
            manifests = [c.digest for c in children]
        else:
            progress.update("", "Not all platforms of the image are here: only the one that is in use is pushed")
            image = layout.load(chosen(entry))
            size = len(layout.blobs.read(image.digest))
            entry = Descriptor(media_type=image.manifest.media_type, digest=image.digest, size=size)
    sizes: dict[str, int] = {}
    for digest in manifests:
        sizes |= {layer.digest: layer.size for layer in layout.load(digest).manifest.layers}
    return entry, sizes


def _describe(layout: Layout, directory: Path, entry: Descriptor) -> None:
    """That one image as skopeo's `dir:` has it, whose blobs are links to the store's: skopeo finds no others.

    Its `oci:` takes no manifests of Docker's. Source of the format: containers-transports(5).
    """
    raw = layout.blobs.read(entry.digest)
    children = read_index(raw).manifests if is_index(raw) else []
    directory.mkdir(mode=0o700)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(raw)
    for each in children:
        name = each.digest.removeprefix("sha256:")
        os.link(layout.blobs.path(each.digest), directory / f"{name}.manifest.json")
    layout.blobs.lend(directory, layout.reach(entry.digest) - {entry.digest, *(each.digest for each in children)})


@contextlib.contextmanager
def _seen(place: Path, kept: Path | None, own_user: int) -> Iterator[None]:
    """What skopeo knows of where blobs are is its user's in `place` while the block runs, else in `kept`. None: nothing
    is kept, as of projects, which would be told of each other's repositories.

    Where there is no jail it has its own, at the usual place.
    """
    lend(helpers.user(own_user), place)
    if kept is None:
        yield
        return
    kept.mkdir(mode=0o700, exist_ok=True)
    for name in _known(kept):
        shutil.copyfile(kept / name, place / name)
        if os.geteuid() == 0:
            os.chown(place / name, helpers.user(own_user), -1)
    yield
    for name in _known(place):
        os.chmod(place / name, 0o600)
        if os.geteuid() == 0:
            os.chown(place / name, 0, 0)
        os.rename(place / name, kept / name)


def _known(place: Path) -> list[str]:
    """Files of that kind. Who wrote them has ended, and is not believed: only the next skopeo reads them."""
    found = {e.name: e.stat(follow_symlinks=False) for e in os.scandir(place) if _SEEN.fullmatch(e.name)}
    return [n for n, s in found.items() if stat.S_ISREG(s.st_mode) and s.st_nlink == 1 and s.st_size <= _SEEN_MAX]


async def _copy(directory: Path, own_user: int, target: Reference, access: Access, layers: _Layers) -> None:
    source, what = Source("docker", target.full), target.familiar
    image = Source("dir", str(directory / "image"))
    with access.credentials(source) as fd:
        args = [
            "--debug", "--insecure-policy",  # what is in the store has been let in
            "copy", "--all", "--preserve-digests",
            *authfile("dest-", fd), *access.tls_options(source, "dest-"), spelled(image), spelled(source),
        ]  # fmt: skip
        order = transport.order(args, image, own_user, credentials=fd, seen=directory / "seen")
        async with helpers.running(order, complaints=True) as process:
            reading = asyncio.ensure_future(_read(process.output, layers))
            try:
                await _watch(reading, process.pid, layers, what)
            finally:
                reading.cancel()
            words, status = await reading, await process.wait()
    if status:
        raise error_from(words, what, "push")


async def _read(stderr: asyncio.StreamReader, layers: _Layers) -> str:
    """Its log to the end; what is not debugging is given back."""
    words = ""
    async for line in stderr:
        text = line.decode(errors="replace").rstrip()
        if match := _DEBUG.search(text):
            layers.hear(match[1])
        elif len(words) < _WORDS_MAX:
            words += text + "\n"
    return words


async def _watch(reading: asyncio.Future[str], pid: int, layers: _Layers, what: str) -> None:
    """Wait for the end; :raise Unavailable: when nothing has gone for too long."""
    before, since = -1, time.monotonic()
    while not (await asyncio.wait({reading}, timeout=_TICK))[0]:
        if (now := layers.tick(pid)) != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > STALLED:
            raise Unavailable(
                f"cannot push {what}: nothing has gone for {STALLED:g} s",
                hint="check the network and the registry, and try again",
            )
