# SPDX-License-Identifier: Apache-2.0
"""Content by its digest: verified when it comes and when it is read, kept while somebody needs it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from ..errors import InvalidArgument, NotFound
from ..model.units import format_binary
from ..sys.files import no_space_as_error, write_atomically
from .limits import DOCUMENT_MAX
from .manifests import Descriptor

PRIVATE_DIRECTORY = 0o700
_CHUNK = 1 << 20  # bytes
_NAME = re.compile(r"[0-9a-f]{64}")  # of a file: its SHA-256


class Lease:
    """Blobs that stay though no name needs them: of what is about to be named, or is being read."""

    def __init__(self, there: frozenset[str] | None) -> None:
        """`there` is what was there when it began, where whatever comes later is its own; None: only what it names."""
        self._there = there
        self._digests: set[str] = set()

    def add(self, digests: Iterable[str]) -> None:
        """Keep these too."""
        self._digests.update(digests)

    @property
    def takes_what_comes(self) -> bool:
        """Whether what comes while it runs is its own."""
        return self._there is not None

    def keeps(self, digest: str) -> bool:
        """Whether this blob stays."""
        return digest in self._digests or (self._there is not None and digest not in self._there)


class Blobs:
    """The directory blobs/sha256 of an OCI layout. Leases are in memory: a daemon that dies has none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = directory / "sha256"
        self._leases: set[Lease] = set()

    def create(self) -> None:
        """Make what is missing; nothing of it is for others to read."""
        for directory in (self.directory, self._files):
            directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
            directory.chmod(PRIVATE_DIRECTORY)
        self.make_private()

    def make_private(self) -> None:
        """Take rights from others that an earlier version or skopeo gave them."""
        for entry in os.scandir(self._files):
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mode & 0o077:
                os.chmod(entry.path, 0o600)

    def lend(self, place: Path, wanted: Iterable[str]) -> None:
        """Link those of these blobs that are here into a directory: they need not be fetched again."""
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for digest in wanted:
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(self.path(digest), place / digest.partition(":")[2])

    def take_in(self, place: Path) -> None:
        """Take what came to such a directory; whoever brought it has ended, and is not believed: names may lie."""
        for entry in os.scandir(place):
            if not _NAME.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            if entry.stat(follow_symlinks=False).st_nlink == 1 and not self.has(f"sha256:{entry.name}"):
                if os.geteuid() == 0:
                    os.chown(entry.path, 0, 0, follow_symlinks=False)
                os.chmod(entry.path, 0o600)
                os.rename(entry.path, self.path(f"sha256:{entry.name}"))

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest are, or would be.

        :raise InvalidArgument: when it is no digest of a kind that is kept.
        """
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
            raise InvalidArgument(f"unknown digest {digest!r}")
        return self._files / value

    def has(self, digest: str) -> bool:
        """Whether it is there, however it is by now."""
        return self.path(digest).exists()

    def read(self, digest: str) -> bytes:
        """A small blob, verified.

        :raise NotFound: when it is missing or its content has changed.
        :raise InvalidArgument: when it is not small.
        """
        try:
            with open(self.path(digest), "rb") as f:
                data = f.read(DOCUMENT_MAX + 1)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is missing", hint="pull the image again") from None
        if len(data) > DOCUMENT_MAX:
            raise InvalidArgument(
                f"blob {digest} is larger than {format_binary(DOCUMENT_MAX)}, too large for a description of an image"
            )
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            self.path(digest).unlink(missing_ok=True)
            raise NotFound(f"blob {digest} is corrupt and was removed", hint="pull the image again")
        return data

    def add(self, data: bytes, media_type: str = "") -> Descriptor:
        """Store a small blob; idempotent. A damaged one of this digest is replaced."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not path.exists() or path.stat().st_size != len(data):
            write_atomically(path, data)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def take(self, source: int, at: int, size: int, digest: str = "") -> str:
        """Store a part of an open file, and give its digest; idempotent. `digest` is what it has to be, "" for any.

        :raise InvalidArgument: it is something else, or ends too early. :raise NoSpace: the disk is full.
        """
        found, end = hashlib.sha256(), at + size
        with no_space_as_error(self._files):
            fd, temporary = tempfile.mkstemp(dir=self._files, prefix=".take.")
            try:
                with os.fdopen(fd, "wb") as out:
                    while at < end:
                        data = os.pread(source, min(_CHUNK, end - at), at)
                        if not data:
                            raise InvalidArgument("is damaged: it ends too early")
                        found.update(data)
                        out.write(data)
                        at += len(data)
                    out.flush()
                    os.fsync(out.fileno())
                name = "sha256:" + found.hexdigest()
                if digest and name != digest:
                    raise InvalidArgument(f"is damaged: what it has as {digest} is {name}")
                os.replace(temporary, self.path(name))
            except BaseException:
                os.unlink(temporary)
                raise
        return name

    # -- what stays ----------------------------------------------------------------------

    @contextlib.contextmanager
    def lease(self, digests: Iterable[str] = (), *, arriving: bool = False) -> Iterator[Lease]:
        """Keep blobs as long as the block runs: these, what is added, and with `arriving` all that comes meanwhile."""
        there = frozenset(f"sha256:{name}" for name in os.listdir(self._files)) if arriving else None
        lease = Lease(there)
        lease.add(digests)
        self._leases.add(lease)
        try:
            yield lease
        finally:
            self._leases.discard(lease)

    @property
    def arriving(self) -> bool:
        """Whether blobs may be there that an image is about to need."""
        return any(lease.takes_what_comes for lease in self._leases)

    def collect(self, keep: Collection[str], away: Callable[[Path], None]) -> int:
        """Put `away` what is neither among these nor leased; bytes freed."""
        freed = 0
        for path in self._files.iterdir():
            digest = f"sha256:{path.name}"
            if digest not in keep and not any(lease.keeps(digest) for lease in self._leases):
                freed += path.stat().st_size
                away(path)
        return freed
