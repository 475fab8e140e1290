# SPDX-License-Identifier: Apache-2.0
"""Images between our store and the builder's dockerd: our names are the truth, before a build and after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ...errors import HyperError, InvalidArgument, NotFound
from ...images.progress import Progress
from ...images.store import ImageStore
from ...model.reference import parse_reference
from ..events import Events
from .dockerd import Dockerd

Known = dict[str, set[str]]  # id -> names


class Transfer:
    """Brings to the builder what a build begins with, and from it what was built.

    What dockerd has is asked once for each builder: later it has what went through here, and only after somebody spoke
    with BuildKit past this it is asked again.
    """

    def __init__(self, images: ImageStore, events: Events) -> None:
        self._images = images
        self._events = events
        self._known: Known = {}
        self._of: Dockerd | None = None  # whose images are known
        self._lock = asyncio.Lock()  # two builds at once look at the same images

    def check(self) -> None:
        """Before a build, which fetches what it begins with past every policy.

        :raise PermissionDenied: what is built would be refused as it comes without a signature.
        """
        self._images.loader.check_unsigned("what is built")

    async def begin(self, dockerd: Dockerd) -> None:
        """Before a build: no name of the builder's is one that we do not have, or have for something else.

        What an earlier build left without a name goes, too, once we do not have it: its layers stay in the cache.
        """
        async with self._lock:
            found = self._known if self._of is dockerd else await dockerd.images()
            for id_, names in list(found.items()):
                for name in [n for n in names if self._id(n) != id_]:
                    await dockerd.remove(name)
                    names.discard(name)
                if not names and not self._has(id_):
                    await dockerd.remove(id_)
                    del found[id_]
            self._known, self._of = found, dockerd

    async def offer(self, dockerd: Dockerd, names: Iterable[str]) -> None:
        """Have images of our store there, of those that these may name."""
        for given in names:
            try:
                name = parse_reference(given).familiar
                image = self._images.find(given)
            except (InvalidArgument, NotFound):
                continue
            async with self._lock:
                if name in self._known.get(image.id, ()):
                    continue
                await dockerd.put(self._images.save([name], "docker-archive"))
                self._named(image.id, {name})

    async def take_in(self, dockerd: Dockerd) -> None:
        """After builds that were not seen: what is new there is in our store.

        :raise HyperError: an image cannot be taken in.
        """
        async with self._lock:
            found = await dockerd.images()
            for id_, names in found.items():
                if id_ not in self._known or names - self._known[id_]:
                    await self._bring(dockerd, id_, names)
            self._known, self._of = found, dockerd

    async def take(self, dockerd: Dockerd, id_: str, names: Iterable[str]) -> None:
        """After a build: the image that it made is in our store, by the names that were asked for.

        :raise HyperError: it cannot be taken in.
        """
        wanted = {parse_reference(name).familiar for name in names}
        async with self._lock:
            if not self._has(id_) or any(self._id(name) != id_ for name in wanted):
                await self._bring(dockerd, id_, wanted)
            self._named(id_, wanted)

    def _named(self, id_: str, names: set[str]) -> None:
        for others in self._known.values():
            others -= names
        self._known.setdefault(id_, set()).update(names)

    async def _bring(self, dockerd: Dockerd, id_: str, names: set[str]) -> None:
        first = next(iter(sorted(names)), id_)
        if not self._has(id_):
            await self._images.loader.load(dockerd.get(first), Progress(), shares=True)
            if not self._has(id_):
                raise HyperError(f"the builder gave another image than {id_}", hint="build it again")
        for name in sorted(names):
            if self._id(name) != id_:
                self._images.tag(id_, name)
        self._events.publish("image", "build", id_, name=first if names else "")

    def _has(self, name: str) -> bool:
        return bool(self._id(name))

    def _id(self, name: str) -> str:
        """Of our image of that name; "" where there is none."""
        try:
            return self._images.find(name).id
        except HyperError:
            return ""
