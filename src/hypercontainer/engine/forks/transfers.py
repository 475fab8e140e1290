# SPDX-License-Identifier: Apache-2.0
"""Saved pods as files: from one hyperd to another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ...errors import HyperError, InvalidArgument, InvalidState, NotFound
from ...hypervisor.drivers import Drivers
from ...images.store import ImageStore
from ...model import ids
from ...model.snapshots import SnapshotInfo
from ...sys import process, tasks
from ...sys.files import no_space_as_error, write_all, write_atomically
from .. import host_access
from ..logs import account_of
from ..memory_files import digest
from ..principal import owned
from ..secrets import Secrets, check_name
from .fingerprints import Fingerprints
from .layers import below
from .packing import Host, ImageNeeded, Manifest, Unpacking, describe, pack
from .saved import DOCUMENT, MEMORY, STATE, VERSION, SavedPod
from .snapshots import PodSnapshots
from .taking import log_file

_ID = re.compile(r"^[0-9a-f]{64}\Z")
_STATE_MAX = 256 << 20  # bytes
_SILENCE = 120.0  # seconds that a client may say nothing: a thread waits for it


class Transfers:
    """Writes saved pods into archives, and takes them out of such."""

    def __init__(
        self, directory: Path, snapshots: PodSnapshots, drivers: Drivers, fingerprints: Fingerprints,
        images: ImageStore, secrets: Secrets,
    ) -> None:  # fmt: skip
        """`directory` has the saved pods."""
        self._directory = directory
        self._snapshots = snapshots
        self._drivers = drivers
        self._fingerprints = fingerprints
        self._images = images
        self._secrets = secrets

    # -- out ------------------------------------------------------------------------------

    async def export(self, key: str) -> AsyncGenerator[bytes, None]:
        """An archive, piece by piece; it has all that was in the pod's memory, and its secrets, in the clear.

        :raise NotFound: there is no such snapshot; before the first piece.
        """
        document = self._snapshots.find(key)
        with self._snapshots.using(document.id):
            directory = self._directory / document.id
            pieces = pack(directory, await self._manifest(document, directory))
            try:
                while piece := await tasks.in_thread(partial(next, pieces, b"")):
                    yield piece
            finally:
                pieces.close()

    async def _manifest(self, document: SavedPod, directory: Path) -> Manifest:
        layers = {layer for name in document.layered.values() for layer in below(directory / name)}
        files = sorted(p for p in directory.iterdir() if p.is_file() and p.name != DOCUMENT and p not in layers)
        members = await tasks.in_thread(lambda: [describe(path) for path in files])
        vm = document.pod.vm
        host = Host(
            driver=vm.driver if vm else "", hypervisor=self._version(document), processor=process.cpu_model(),
            accelerator=vm.accelerator if vm else "", machine_type=vm.machine_type if vm else "",
        )  # fmt: skip
        images = [ImageNeeded(id=i, name=n, digest=await self._disk(i)) for i, n in _images(document).items()]
        secrets = await tasks.in_thread(lambda: self._secrets.values_in(directory))
        return Manifest(host=host, snapshot=document, images=images, secrets=secrets, members=members)

    def _version(self, document: SavedPod) -> str:
        driver = document.pod.vm.driver if document.pod.vm else document.pod.spec.driver
        return self._drivers.get(driver).version

    async def _disk(self, image_id: str) -> str:
        """The digest of an image's disk, whatever length the factory has given it.

        :raise NotFound: there is no such image.
        """
        disk = await self._images.disk(self._images.find(image_id))
        return await tasks.in_thread(partial(digest, disk.path))

    # -- in -------------------------------------------------------------------------------

    async def import_(self, body: AsyncIterator[bytes], name: str) -> SnapshotInfo:
        """Keep a saved pod out of an archive, under its own name or another; what fails leaves nothing.

        :raise InvalidArgument: it is no such archive, or damaged. :raise Conflict: the name is taken.
        :raise InvalidState: it does not fit this host. :raise NotFound: an image that it needs is not here.
        :raise PermissionDenied: who asks may not have what this host has: its records say what files it opens.
        """
        host_access.require_host("a snapshot of another hyperd's")
        source, target = os.pipe2(os.O_CLOEXEC)
        feeding = asyncio.create_task(_feed(body, target))
        feeding.add_done_callback(lambda _: os.close(target))  # who reads comes to the end, also where it never began

        def end_input() -> None:
            feeding.cancel()

        try:
            with open(source, "rb", buffering=0) as file:
                unpacking = Unpacking(file)
                manifest = await tasks.in_thread(unpacking.manifest, end_input)
                await self._check(manifest)
                with self._snapshots.hold(name or manifest.snapshot.name) as held:
                    take = partial(self._take_in, unpacking, manifest, held)
                    return await self._snapshots.kept(
                        lambda directory: tasks.in_thread(partial(take, directory), end_input), "import"
                    )
        finally:
            await tasks.end([feeding])

    def _take_in(self, unpacking: Unpacking, manifest: Manifest, name: str, directory: Path) -> SavedPod:
        """The files, and last what is known of it; it is whole then. It blocks."""
        saved = manifest.snapshot
        document = replace(
            saved, id=ids.new_id(), name=name, parent="", pod=replace(saved.pod, **owned()),
            containers=[replace(c, **owned()) for c in saved.containers],
        )  # fmt: skip
        with no_space_as_error(directory):
            directory.mkdir(mode=0o700)
            unpacking.files(manifest.members, directory)
            self._secrets.put_values(directory, manifest.secrets)
            write_atomically(directory / DOCUMENT, msgspec.json.encode(document))
        return document

    async def _check(self, manifest: Manifest) -> None:
        _check_records(manifest)
        document = manifest.snapshot
        await self._check_fits(manifest.host, document)
        needed = {i.id: i for i in manifest.images}
        if set(needed) != set(_images(document)):
            raise InvalidArgument("the archive is of no snapshot: it does not name the images of its containers")
        for image in needed.values():
            try:
                found = await self._disk(image.id)
            except NotFound as error:
                raise NotFound(f"the snapshot needs the image {image.name} ({image.id[:19]}), which is not here",
                               hint=f"use `hyperctl save` and `load`, or pull it: {image.name}") from error  # fmt: skip
            if found != image.digest:
                raise InvalidState(f"the disk of the image {image.name} is another here than where the pod was saved",
                                   hint="use the hyperd that saved it") from None  # fmt: skip

    async def _check_fits(self, there: Host, document: SavedPod) -> None:
        """:raise InvalidState: naming what is another here."""
        try:
            here = await self._fingerprints.of(document.pod)
        except HyperError as error:
            raise InvalidState(f"the snapshot does not fit this host: {error.message}") from error
        if here == document.fingerprint:
            return
        told = []
        if (version := self._version(document)) != there.hypervisor:
            told.append(f"its {there.driver} was {there.hypervisor}, this one is {version or 'not there'}")
        if there.accelerator == "kvm" and process.cpu_model() != there.processor:
            told.append(f"its processor was {there.processor}, this one is {process.cpu_model()}")
        why = "; ".join(told) or f"it ran with {there.accelerator} on {there.machine_type.partition(':')[0]}"
        raise InvalidState(f"the snapshot does not fit this host: {why}", hint="save the pod on a host like this one")


def _images(document: SavedPod) -> dict[str, str]:
    return {c.image_id: c.image for c in document.containers}


async def _feed(body: AsyncIterator[bytes], target: int) -> None:
    """To the end of the one or of the other; what does not come any more is taken for the end."""
    with contextlib.suppress(BrokenPipeError, TimeoutError):
        while piece := await tasks.within(anext(body, b""), _SILENCE):
            await tasks.in_thread(partial(write_all, target, piece))


# -- what the records of a stranger may say ----------------------------------------------


def _wrong(document: SavedPod) -> Iterator[str]:
    pod, members = document.pod, document.containers
    if document.version != VERSION:
        yield "it was made by another version of hyperd"
    if not all(_ID.match(id_) for id_ in (document.id, pod.id, *(c.id for c in members))):
        yield "an id is none"
    if any(c.pod != pod.id for c in members) or (pod.implicit and [c.id for c in members] != [pod.id]):
        yield "its containers are not its own"
    if len({c.id[:12] for c in members}) != len(members):
        yield "a container is in it twice"


def _check_records(manifest: Manifest) -> None:
    """:raise InvalidArgument: they do not go together, or name other files."""
    document = manifest.snapshot
    sizes = {m.name: m.size for m in manifest.members}
    logs = [log_file(Path(), c) for c in document.containers]
    known = {MEMORY, STATE, *document.disks.values(), *(p.name for log in logs for p in (log, account_of(log)))}
    wrong = list(_wrong(document))
    if any(not name.startswith("disk-") for name in document.disks.values()) or not set(sizes) <= known:
        wrong.append("it has files that no saved pod has")
    if missing := {MEMORY, STATE, *document.disks.values()} - set(sizes):
        wrong.append(f"{min(missing)} is missing")
    elif sizes[MEMORY] != document.pod.memory or sizes[STATE] > _STATE_MAX:
        wrong.append("its memory has not the size that it says")
    for name in manifest.secrets:
        check_name(name)
    if wrong:
        raise InvalidArgument(f"the archive is of no snapshot: {wrong[0]}")
