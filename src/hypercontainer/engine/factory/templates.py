# SPDX-License-Identifier: Apache-2.0
"""One saved machine per shape.

In use it lies in sealed memory files, which no clone can write to; a copy in
the cache survives the daemon. A copy that is stale, or is not what was
written, is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ...errors import HyperError
from ...hypervisor.driver import Snapshot
from ...sys import clock
from ...sys.documents import UNREADABLE
from ...sys.files import write_atomically
from ...sys.removal import unlinked
from ..memory_files import AtRest, close, digest, memory_files, read_in, seal_now, write_out
from .shapes import Kind

log = logging.getLogger(__name__)


@dataclass
class Template(AtRest):
    """A machine at rest."""

    kind: Kind
    key: str  # hash of all that went into it
    snapshot: Snapshot
    token: bytes  # opens the first connection to each clone
    scratch: Path | None = None  # what a container that is ready has for a scratch disk: each clone gets a copy
    made_at: str = field(default_factory=clock.stamp)
    clones: int = 0  # started from it

    @property
    def memory(self) -> int:
        """Bytes that its files occupy."""
        return sum(os.fstat(fd).st_blocks * 512 for fd in (self.snapshot.memory, self.snapshot.state))


class Copy(msgspec.Struct):
    """What the cache says of a template's files."""

    key: str
    token: str
    made_at: str
    size: int  # bytes of guest memory
    digests: dict[str, str]  # sha256 of memory and state


class Templates:
    """Makes, keeps and finds them."""

    def __init__(
        self,
        directory: Path,
        limit: int,
        key: Callable[[Kind], Awaitable[str]],
        make: Callable[[Kind, str, Path], Awaitable[Template]],
    ) -> None:
        """`limit` is in bytes, of all that are in memory."""
        self.limit = limit
        self._directory = directory
        self._key = key
        self._make = make
        self._known: dict[Kind, Template] = {}
        self._lock = asyncio.Lock()

    def all(self) -> list[Template]:
        """Those that can be cloned now."""
        return list(self._known.values())

    def get(self, kind: Kind) -> Template | None:
        """The one in memory; it counts as used."""
        template = self._known.pop(kind, None)
        if template and template.scratch and not template.scratch.exists():  # somebody tidied the cache up
            template.close()
            return None
        if template:
            self._known[kind] = template
        return template

    async def ensure(self, kind: Kind) -> Template:
        """From memory, the cache, or made now.

        :raise HyperError: when it cannot be made.
        """
        async with self._lock:
            key = await self._key(kind)
            template = self.get(kind)
            if template and template.key == key:
                return template
            template = await asyncio.to_thread(self._load, kind, key)
            if template is None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                template = await self._make(kind, key, self._files(kind)["scratch"])
                await asyncio.to_thread(self._store, template)
            self.drop(kind)
            self._known[kind] = template
            self._trim(keep=kind)
            return template

    def drop(self, kind: Kind) -> None:
        """Forget one; its clones go on."""
        template = self._known.pop(kind, None)
        if template:
            template.close()

    def discard(self, kind: Kind) -> None:
        """Forget one that is of no use, and its copy."""
        self.drop(kind)
        for path in self._files(kind).values():
            path.unlink(missing_ok=True)

    async def clear(self) -> None:
        """Forget all, with all copies; one that is being made first comes to its end."""
        async with self._lock:
            self.close()
            await unlinked(*self._directory.glob("*"))

    def close(self) -> None:
        for kind in list(self._known):
            self.drop(kind)

    def _trim(self, keep: Kind) -> None:
        """The least recently used go, until the rest is within the limit."""
        for kind in list(self._known):
            if kind != keep and sum(t.memory for t in self._known.values()) > self.limit:
                self.drop(kind)

    # -- the cache ----------------------------------------------------------------------

    def _files(self, kind: Kind) -> dict[str, Path]:
        return {part: self._directory / f"{kind.name}.{part}" for part in ("memory", "state", "scratch", "json")}

    def _load(self, kind: Kind, key: str) -> Template | None:
        files = self._files(kind)
        try:
            copy = msgspec.json.decode(files["json"].read_bytes(), type=Copy)
        except (OSError, *UNREADABLE):
            return None
        if copy.key != key:
            return None
        snapshot = memory_files(copy.size)
        try:
            found = {
                "memory": read_in(files["memory"], snapshot.memory),
                "state": read_in(files["state"], snapshot.state),
            }
            if kind.image:
                found["scratch"] = digest(files["scratch"])
            if found != copy.digests:
                raise OSError("it is not what was written")
            seal_now(snapshot)
        except OSError as error:
            log.warning("the template %s is made again: %s", kind.name, error)
            close(snapshot)
            return None
        return Template(
            kind, key, snapshot, bytes.fromhex(copy.token), files["scratch"] if kind.image else None, copy.made_at
        )

    def _store(self, template: Template) -> None:
        """Best effort: without a copy the next daemon makes it again."""
        files = self._files(template.kind)
        snapshot = template.snapshot
        try:
            files["json"].unlink(missing_ok=True)
            digests = {
                "memory": write_out(snapshot.memory, files["memory"]),
                "state": write_out(snapshot.state, files["state"]),
            }
            if template.scratch:
                digests["scratch"] = digest(template.scratch)
            size = os.fstat(snapshot.memory).st_size
            copy = Copy(template.key, template.token.hex(), template.made_at, size, digests)
            write_atomically(files["json"], msgspec.json.encode(copy))
        except (OSError, HyperError) as error:
            log.warning("the template %s is not kept: %s", template.kind.name, error)
            for part in ("memory", "state", "json"):
                with contextlib.suppress(OSError):
                    files[part].unlink(missing_ok=True)
        self._trim_copies()

    def _trim_copies(self) -> None:
        """The oldest copies go, until the rest is within the limit too."""
        found = sorted(self._directory.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        used = {f"{kind.name}.json" for kind in self._known}
        total = 0
        for path in found:
            parts = [path.with_suffix(f".{part}") for part in ("memory", "state", "scratch", "json")]
            total += sum(p.stat().st_blocks * 512 for p in parts if p.exists())
            if total > self.limit and path.name not in used and path != found[0]:
                for part in parts:
                    part.unlink(missing_ok=True)
