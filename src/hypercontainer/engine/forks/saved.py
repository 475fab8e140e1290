# SPDX-License-Identifier: Apache-2.0
"""A pod at one instant: its records, its machine's memory and devices, and copies of what its containers write.

In use, memory lies in sealed memory files, which all machines that go on from it map privately; beside the disks it
is a file that outlives the daemon. What `snapshot.json` says is hyperd's own word: it made the files, and nobody else
may write to the directory.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from ...errors import HyperError, Unavailable
from ...hypervisor.driver import Snapshot
from ...model.base import Model
from ...model.layout import MachineLayout
from ...model.principal import Tenant
from ...model.status import Container, Pod
from ...sys.documents import UNREADABLE
from ...sys.files import write_atomically
from ..memory_files import AtRest, close, memory_files, seal_now, write_out
from .launched import Launched
from .layers import read_in, store_above

DOCUMENT, MEMORY, STATE = "snapshot.json", "memory", "state"
VERSION = 1


class Before(Model, frozen=True, kw_only=True):
    """A network interface that the guest has."""

    name: str
    addresses: list[str]  # CIDR


class SavedPod(Model, frozen=True, kw_only=True):
    """What is known of it."""

    version: int = VERSION
    id: str
    name: str
    created_at: str
    pod: Pod
    containers: list[Container]
    layout: MachineLayout
    fingerprint: str  # of what the machine was started with: another cannot go on from it
    token: str  # hex; opens the first connection to each guest that goes on
    names: dict[str, str]  # serial numbers of the engine's -> what the guest finds disks by
    processes: dict[str, int]  # container -> number of its main process
    built: list[str]  # containers that the guest has
    volumes: dict[str, str]  # name -> what the guest calls it
    interfaces: list[Before]
    frozen: list[str]  # containers whose programs ran, and stand still in what was saved
    disks: dict[str, str]  # what the guest finds a disk by -> name of the copy's file
    live: bool
    paused_ms: int
    digests: dict[str, str] = msgspec.field(default_factory=dict)  # of memory and state, where these are files
    parent: str = ""  # id of the snapshot above whose files some of its files are layers; it may be gone

    @property
    def tenant(self) -> Tenant:
        """Whose it is."""
        return self.pod.tenant

    @property
    def owner(self) -> str:
        """The principal whose pod it was."""
        return self.pod.owner

    @property
    def layered(self) -> dict[str, str]:
        """Names of files that may be layers: the memory's, by "", and the disks' by what the guest finds them by."""
        return {"": MEMORY, **self.disks}


class Kept(NamedTuple):
    """One that is whole."""

    document: SavedPod
    directory: Path


@dataclass
class Saved(AtRest):
    """One that machines can go on from; whoever has it closes it."""

    document: SavedPod
    directory: Path  # has the copies
    snapshot: Snapshot
    early: Launched | None = None  # for the first that goes on from it; whoever has this ends that, too

    def disk(self, serial: str) -> Path | None:
        """The copy of a disk, by what the guest finds it by; None of one that nobody writes."""
        name = self.document.disks.get(serial)
        return self.directory / name if name else None

    async def close_all(self) -> None:
        """With the machine that nobody has asked for."""
        early = self.early_one()
        self.close()
        if early:
            await early.end()

    def early_one(self) -> Launched | None:
        """The machine that was launched before, which is the caller's now; None where there is none any more."""
        early, self.early = self.early, None
        return early

    def found_by(self, serial: str) -> str:
        """What the guest finds a disk by whose serial number is this."""
        return self.document.names.get(serial, serial)


@dataclass(frozen=True)
class Suspended:
    """A pod that is on the disk, and goes on from there as the same one: its disks are where they were."""

    document: SavedPod
    directory: Path

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """Nothing of it is kept open."""
        return contextlib.nullcontext()


def keep(saved: Saved, base: Kept | None = None) -> SavedPod:
    """Write its memory, and last what is known of it, into its directory; it is whole then. It blocks.

    What is in `base`, an earlier snapshot of the same pod or one that it came from, is not stored again.

    :raise NoSpace: when the disk is full.
    """
    digests = {
        MEMORY: write_out(saved.snapshot.memory, saved.directory / MEMORY),
        STATE: write_out(saved.snapshot.state, saved.directory / STATE),
    }
    shared = _share(saved, base) if base else False
    parent = base.document.id if base and shared else ""
    saved.document = msgspec.structs.replace(saved.document, digests=digests, parent=parent)
    write_atomically(saved.directory / DOCUMENT, msgspec.json.encode(saved.document))
    return saved.document


def _share(saved: Saved, base: Kept) -> bool:
    """Whether anything is in both."""
    earlier = base.document.layered
    stored = [
        store_above(saved.directory / name, base.directory / earlier[what])
        for what, name in saved.document.layered.items()
        if what in earlier
    ]
    return any(stored)


def is_whole(directory: Path) -> bool:
    """Whether all of it was written."""
    return (directory / DOCUMENT).exists() and (directory / MEMORY).exists()


def read(directory: Path) -> SavedPod:
    """:raise Unavailable: it is not whole, or of another hyperd."""
    try:
        found = msgspec.json.decode((directory / DOCUMENT).read_bytes(), type=SavedPod)
    except (OSError, *UNREADABLE) as error:
        raise Unavailable(f"the snapshot in {directory} cannot be read: {error}", hint="remove it") from error
    if found.version != VERSION:
        raise Unavailable(f"the snapshot in {directory} was made by a newer hyperd", hint="use that one")
    return found


def open_saved(directory: Path, document: SavedPod) -> Saved:
    """With its memory in memory files. It blocks.

    :raise Unavailable: the files are not what was written.
    """
    snapshot = memory_files(document.pod.memory)
    try:
        found = {
            MEMORY: read_in(directory / MEMORY, snapshot.memory), STATE: read_in(directory / STATE, snapshot.state)
        }  # fmt: skip
        if found != document.digests:
            raise Unavailable(f"the snapshot {document.name} is damaged: its memory is not what was saved",
                              hint="remove it")  # fmt: skip
        seal_now(snapshot)
    except (OSError, HyperError) as error:
        close(snapshot)
        if isinstance(error, HyperError):
            raise
        raise Unavailable(f"the snapshot {document.name} cannot be read: {error}", hint="remove it") from error
    snapshot = Snapshot(snapshot.memory, snapshot.state, document.live)
    return Saved(document, directory, snapshot)


def size_of(directory: Path) -> int:
    """Bytes that it occupies on this host's disk; of what several snapshots have, its part."""
    with contextlib.suppress(OSError):
        found = [os.lstat(p) for p in directory.iterdir()]
        return sum(status.st_blocks * 512 // status.st_nlink for status in found)
    return 0
