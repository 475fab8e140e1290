# SPDX-License-Identifier: Apache-2.0
"""The image store: pull, find, tag, remove, prune.

images/oci-layout, index.json, blobs/   an OCI layout; names are in its index
images/disks/                           read-only disks by chain id
images/staging/                         what is under way; emptied at start, and then what no name reaches is removed
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import Conflict, HyperError, InvalidArgument, NoSpace, NotFound
from ..model.filters import Filters, flag
from ..model.ids import short
from ..model.images import HistoryEntry, Image, RemovedImage
from ..model.reference import parse_reference
from ..sys import tasks
from ..sys.trees import disk_usage, remove_tree
from .blobs import PRIVATE_DIRECTORY
from .commit import Committer
from .describe import Named, damaged, describe, history, select
from .disk import FSTYPE, SUFFIX, DiskBuilder
from .faults import storage_faults
from .layout import Layout, chosen
from .limits import Limits
from .load import Loader
from .manifests import Descriptor, StoredImage
from .progress import Progress
from .pull import Puller, is_for, parse_platform
from .push import Pushed, push
from .registries import Registries
from .save import save
from .skopeo import Access, Wall
from .trust import Trust
from .waste import Waste

_Key = tuple[str, str]  # digests of what a name stands for, and of its manifest in use
InUse = Callable[[], dict[str, list[str]]]  # image id -> names of the containers that use it


@dataclass(frozen=True)
class ImageDisk:
    """What a machine needs of an image."""

    path: Path
    fstype: str


class Needed(NamedTuple):
    """What stays for a name."""

    blobs: set[str]  # digests
    disks: set[Path]


class ImageStore:
    """All images of one daemon; the only writer of its directory."""

    def __init__(
        self, root: Path, *, insecure: frozenset[str] = frozenset(), in_use: InUse = dict, limits: Limits | None = None,
        trust: Callable[[], Trust] = Trust, wall: Callable[[], Wall | None] = lambda: None,
        tenant: Callable[[], str | None] = lambda: "", admits: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`tenant` says whose names are meant, as `Layout` takes it; `admits` raises for who may bring none but by
        pulls; `trust` says of each caller whose images are taken;
        `wall` is asked for each caller: what keeps its registries from this host's own addresses; None: nothing.
        """
        limits = limits or Limits()
        self._layout = Layout(root, tenant)
        self._staging = root / "staging"
        self._disk_directory = root / "disks"
        self._waste = Waste(self._staging)
        self._disks = DiskBuilder(self._layout, self._disk_directory, limits)
        self._puller = Puller(self._layout, self._staging, self._disks, limits, insecure, self._tidied, trust, wall)
        self.loader = Loader(self._layout, self._staging, self._disks, limits, self._tidied, trust, admits)
        self.committer = Committer(self._layout, self.loader)
        self.registries = Registries(insecure, self._staging, wall)
        self.in_use = in_use
        self._insecure = insecure
        self._wall = wall

    def open(self) -> None:
        """Create what is missing, clear what a crash left."""
        with storage_faults(self._layout.root):
            self._layout.create()
            died = self._staging.is_dir() and any(self._staging.iterdir())  # an earlier daemon, in the middle of it
            remove_tree(self._staging)
            for directory in (self._staging, self._disk_directory):
                directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
                directory.chmod(PRIVATE_DIRECTORY)
            for disk in self._disk_directory.iterdir():
                if disk.suffix != SUFFIX:
                    disk.unlink()  # half made, or of an earlier version's format: it is made anew when it is wanted
                else:
                    disk.chmod(0o600)  # an earlier version let others read it
            if died:
                self._collect(self._needs(self._layout.entries()))
                self._waste.remove()

    # -- finding ----------------------------------------------------------------

    def find(self, name: str, *, platform: str = "") -> StoredImage:
        """An image by name, id or unique id prefix.

        :raise NotFound: when there is none, or not for the platform.
        """
        entry = self._resolve(name)[1]
        image = self._layout.load(chosen(entry))
        if not platform or is_for(image, wanted := parse_platform(platform)):
            return image
        for other in self._layout.variants(entry):
            if is_for(found := self._layout.load(chosen(other)), wanted):
                return found
        have = image.config
        raise NotFound(
            f"image {name} is for {have.os}/{have.architecture}, not for {wanted.os}/{wanted.architecture}",
            hint=f"pull it with `hyperctl pull --platform {platform} {name}`, or leave --platform out",
        )

    def _resolve(self, name: str) -> tuple[str, Descriptor]:
        names = self._layout.names()
        plain = name.removeprefix("builtin:").removeprefix("docker://")
        try:
            reference = parse_reference(plain)
        except InvalidArgument:
            if not plain.startswith("sha256:"):
                raise
        else:
            for key in (reference.full, reference._replace(digest="").full):
                if key in names and reference.digest in ("", names[key].digest, chosen(names[key])):
                    return key, names[key]
            for key, entry in names.items() if reference.digest and not reference.tag else ():
                same = key != entry.digest and parse_reference(key).repository == reference.repository
                if same and reference.digest in (entry.digest, chosen(entry)):
                    return key, entry
        prefix = plain.removeprefix("sha256:")
        if len(prefix) >= 3 and all(c in "0123456789abcdef" for c in prefix):
            found = self._called(names, prefix) or self._called(names, prefix, deeply=True)
            if len(found) == 1:
                return next(iter(found.values()))
            if found:
                raise InvalidArgument(f"image id {plain!r} is ambiguous", hint="give more digits")
        raise NotFound(f"no such image: {name}", hint=f"pull it with `hyperctl pull {name}`")

    def _called(
        self, names: dict[str, Descriptor], prefix: str, *, deeply: bool = False
    ) -> dict[str, tuple[str, Descriptor]]:
        """Images whose id, or another digest, begins so; `deeply`: also those of other platforms."""
        found = {}
        for key, entry in names.items():
            for variant in self._layout.variants(entry) if deeply else [entry]:
                id_ = self._layout.id_of(variant)
                if any(d.removeprefix("sha256:").startswith(prefix) for d in (entry.digest, chosen(variant), id_)):
                    found[id_] = (key, variant)
        return found

    def _ids(self, entry: Descriptor) -> set[str]:
        """Of all platforms that a name has here."""
        return {self._layout.id_of(variant) for variant in self._layout.variants(entry)}

    def count(self) -> int:
        """How many images there are, damaged ones too."""
        return len({self._layout.id_of(d) for d in self._layout.names().values()})

    def describe(self, name: str) -> Image:
        """:raise NotFound: when there is none, or a blob of it is missing."""
        image = self.find(name)
        return describe(self._layout, self._disks, image, self._named(image.id))

    def describe_all(self, filters: Filters | None = None) -> list[Image]:
        """All images that the filters let through; one that is damaged says so, and has nothing but its names."""
        by_id: dict[str, list[Named]] = {}
        for name, descriptor in self._layout.names().items():
            by_id.setdefault(self._layout.id_of(descriptor), []).append((name, descriptor))
        images = []
        for id_, entries in by_id.items():
            try:
                images.append(describe(self._layout, self._disks, self._layout.load(chosen(entries[0][1])), entries))
            except HyperError as error:
                images.append(damaged(id_, entries, error))
        newest = sorted(images, key=lambda i: i.created, reverse=True)
        return select(newest, filters, self.describe) if filters else newest

    def _named(self, id_: str) -> list[Named]:
        return [(k, d) for k, d in self._layout.names().items() if id_ in self._ids(d)]

    def history(self, name: str) -> list[HistoryEntry]:
        """How an image was made, the last step first.

        :raise NotFound: there is none.
        """
        image = self.find(name)
        return history(image, [_familiar(k) for k, d in self._named(image.id) if k != d.digest])

    def footprint(self) -> dict[str, dict[str, int]]:
        """Of each image: its blobs and disk, with their sizes in bytes."""
        found: dict[str, dict[str, int]] = {}
        for entry in self._layout.names().values():
            sizes = found.setdefault(self._layout.id_of(entry), {})
            for digest in self._layout.held(entry):
                with contextlib.suppress(HyperError, OSError):
                    sizes[digest] = self._layout.blobs.path(digest).stat().st_size
            for disk in self._disks_of([entry]):
                sizes[disk.name] = disk_usage(disk)
        return found

    # -- pulling ----------------------------------------------------------------

    def pull(self, text: str, *, platform: str = "", auth: str = "") -> tuple[Progress, Awaitable[StoredImage]]:
        """Begin a pull, or join one of the same image; the awaitable gives the image.

        :raise InvalidArgument: when the reference or the platform is malformed.
        """
        return self._puller.pull(text, platform=platform, auth=auth)

    async def disk(self, image: StoredImage) -> ImageDisk:
        """The disk of a stored image; remade when it was removed."""
        with storage_faults(self._layout.root), self._layout.blobs.lease([image.digest, *image.manifest.blobs()]):
            return ImageDisk(await self._disks.ensure(image, self._shown(image), lambda *_: None), FSTYPE)

    def _shown(self, image: StoredImage) -> str:
        names = (k for k, d in self._layout.names().items() if chosen(d) == image.digest and k != d.digest)
        return _familiar(next(names, image.digest))

    def save(self, names: Sequence[str], kind: str, *, platform: str = "") -> AsyncGenerator[bytes, None]:
        """Images as an archive, `docker-archive` or `oci-archive`; with a platform, only what is for that. A name
        without a tag stands for all that are here of its repository, as with Docker.

        :raise NotFound: there is no such image; and what `save` raises, before its first piece.
        """
        images: list[Named] = []
        for name in [each for given in names for each in self._all_tags(given)]:
            key, entry = self._resolve(name)
            known = key != entry.digest and not self._is_id(name, key)
            entry = self._alone(self.find(name, platform=platform)) if platform or self._layout.tenant() else entry
            if (each := (key if known else "", entry)) not in images:
                images.append(each)
        return save(self._layout, images, kind)

    def _all_tags(self, name: str) -> list[str]:
        """Of a repository; the name itself where it says more, or is an id."""
        if ":" in name.rpartition("/")[2] or "@" in name:
            return [name]
        with contextlib.suppress(InvalidArgument):
            own = parse_reference(name).repository
            known = [k for k, d in self._layout.names().items() if k != d.digest]
            found = sorted(k for k in known if (r := parse_reference(k)).repository == own and r.tag)
            return found or [name]
        return [name]

    def _alone(self, image: StoredImage) -> Descriptor:
        """A manifest without the index that it is of."""
        size = self._layout.blobs.path(image.digest).stat().st_size
        return Descriptor(media_type=image.manifest.media_type, digest=image.digest, size=size)

    async def push(self, name: str, progress: Progress, *, auth: str = "") -> Pushed:
        """Send an image to the registry that its name says.

        :raise NotFound: there is none of that name; and what `push` raises.
        """
        key, entry = self._resolve(name)
        if self._is_id(name, key) or key == entry.digest:
            raise InvalidArgument(f"cannot push {name!r}: it is no name", hint="give it one with `hyperctl tag`")
        with storage_faults(self._layout.root):
            entry = self._alone(self._layout.load(chosen(entry))) if self._layout.tenant() else entry
            access = Access(self._insecure, auth, wall=self._wall())
            return await push(self._layout, self._staging, entry, parse_reference(key), access, progress)

    # -- changing ---------------------------------------------------------------

    def tag(self, name: str, new: str) -> str:
        """Give an image a further name; the full new name."""
        reference = parse_reference(new)
        if reference.digest:
            raise InvalidArgument(f"cannot tag as {new!r}: a tag has no digest")
        descriptor = self._resolve(name)[1]
        with storage_faults(self._layout.root):
            self._layout.set_name(reference.full, descriptor)
        return reference.full

    async def remove(self, name: str, *, force: bool = False) -> RemovedImage:
        """Remove a name, and with the last name the image; a damaged one, too.

        One that containers use loses its names with `force`, and stays without until these are gone.

        :raise Conflict: when containers use it, and it is not forced, or has no name to lose.
        """
        key, descriptor = self._resolve(name)
        id_ = self._layout.id_of(descriptor)
        siblings = [k for k, d in self._layout.names().items() if self._layout.id_of(d) == id_]
        by_id = self._is_id(name, key)
        if by_id and len(siblings) > 1 and not force:
            raise Conflict(f"image {short(id_)} has {len(siblings)} names", hint="remove them by name, or use --force")
        goes = siblings if by_id else [key]
        used = self.in_use()
        users = [name for mine in self._ids(descriptor) for name in used.get(mine, [])]
        untagged = [_familiar(k) for k in goes if not k.startswith("sha256:")]
        stays = bool(users) and len(goes) == len(siblings)
        if stays and not (force and untagged):
            raise _in_use(name, users)
        with storage_faults(self._layout.root):
            if stays:
                self._layout.remove_names(goes, keeps=descriptor)
            else:
                self._remove_names(goes)
            if stays or len(goes) < len(siblings):
                return RemovedImage(untagged=untagged, id=id_)
            return RemovedImage(untagged=untagged, deleted=[id_], freed=await self._tidied(), id=id_)

    def _remove_names(self, names: Collection[str]) -> None:
        """Also on a full disk: the disks of the images make room, as they can be made again."""
        try:
            self._layout.remove_names(names)
        except NoSpace:
            goes = [d for k, d in self._layout.names().items() if k in names]
            stay = self._disks_of(d for d in self._layout.entries() if d not in goes)
            for disk in self._disks_of(goes) - stay:
                disk.unlink(missing_ok=True)
            self._layout.remove_names(names)

    @staticmethod
    def _is_id(name: str, key: str) -> bool:
        try:
            return parse_reference(name).full != key and parse_reference(name)._replace(digest="").full != key
        except InvalidArgument:
            return True

    async def prune(self, *, everything: bool, filters: Filters | None = None) -> RemovedImage:
        """Remove images without a name, or with `everything` all that no container uses; of those, with filters, what
        they let through: `until`, `label`, and `dangling=false`, which is `everything`.
        """
        everything = everything or flag(filters or {}, "dangling") is False
        filters = {name: values for name, values in (filters or {}).items() if name != "dangling"}
        allowed = {image.id for image in self.describe_all(filters)}
        used = self.in_use()
        goes, deleted = [], dict[str, None]()
        with storage_faults(self._layout.root):
            for name, descriptor in self._layout.names().items():
                if not (everything or name == descriptor.digest) or used.keys() & self._ids(descriptor):
                    continue
                if (id_ := self._layout.id_of(descriptor)) in allowed:
                    goes.append(name)
                    deleted[id_] = None
            self._remove_names(goes)
            untagged = [_familiar(k) for k in goes if not k.startswith("sha256:")]
            return RemovedImage(untagged=untagged, deleted=list(deleted), freed=await self._tidied())

    async def _tidied(self) -> int:
        """Remove blobs and disks of no image, not what a lease keeps; bytes freed."""
        needed: dict[_Key, Needed] = {}
        while new := [d for d in self._layout.entries() if _key(d) not in needed]:  # some may be named meanwhile
            needed |= await tasks.in_thread(functools.partial(self._needs, new))
        freed = self._collect(needed)
        await self._waste.removed()
        return freed

    def _needs(self, images: Collection[Descriptor]) -> dict[_Key, Needed]:
        """It reads and verifies the documents of all that it does not know yet."""
        return {_key(d): Needed(self._layout.reach(d.digest), self._disks_of([d])) for d in images}

    def _collect(self, needed: Mapping[_Key, Needed]) -> int:
        """What no name has; all that names have is in `needed`, which may have more."""
        named = [needed[_key(d)] for d in self._layout.entries()]
        freed = self._layout.collect_garbage(set[str]().union(*(n.blobs for n in named)), self._waste.add)
        for disk in set(self._disk_directory.glob(f"*{SUFFIX}")) - set[Path]().union(*(n.disks for n in named)):
            freed += disk_usage(disk)
            self._waste.add(disk)
        return freed

    def _disks_of(self, images: Iterable[Descriptor]) -> set[Path]:
        """The disks of those that are not damaged."""
        disks = set()
        for descriptor in images:
            with contextlib.suppress(HyperError):
                disks.add(self._disks.path(self._layout.load(chosen(descriptor)).chain_id))
        return disks


def _key(entry: Descriptor) -> _Key:
    return entry.digest, chosen(entry)


def _in_use(image: str, users: list[str]) -> Conflict:
    """By containers, of which the names are given, and by others, with their kind before the name."""
    containers, others = [u for u in users if " " not in u], [u for u in users if " " in u]
    told = " and ".join([*([f"container {', '.join(containers)}"] if containers else []), *others])
    kind, verb = ("container", "rm") if containers else ("snapshot", "snapshot rm")
    return Conflict(f"image {image} is in use by {told}", hint=f"remove the {kind} first with `hyperctl {verb}`")


def _familiar(name: str) -> str:
    return parse_reference(name).familiar
