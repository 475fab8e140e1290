# SPDX-License-Identifier: Apache-2.0
"""Builds: what front ends ask. Requests go to the builder's dockerd as they came, and so do its answers.

A front end speaks Docker's API with its client; what a build needs beside that is done here: the builder runs, images
of our store that it begins with are there, and what it made is in our store before the client hears that it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from ...errors import HyperError, Unavailable
from ...images.store import ImageStore
from ...model.status import Container
from .. import policies
from ..containers import Containers
from ..events import Events
from ..registry import Registry
from ..volumes import Volumes
from .cache import BuildCache
from .dockerd import SOCKET, Body, Dockerd, Query
from .machine import BuilderMachine, BuilderSettings
from .names import NameFinder
from .passing import Made, Plain, error_line, named, with_network
from .relay import Relays
from .through import Passage, Through, upgraded
from .transfer import Transfer

_BEGIN = 90  # seconds until dockerd listens: an emulated one takes 15
_MESSAGE_MAX = 64 << 10  # bytes
SESSION = "/session"  # where the builder asks; what is built is asked for elsewhere


@dataclass(frozen=True)
class Answer:
    """Of dockerd to a build: its status, and its body as it comes."""

    status: int
    content_type: str
    body: AsyncGenerator[bytes, None]

    async def message(self) -> str:
        """Of an error: what dockerd says."""
        text = b""
        async for piece in self.body:
            text = (text + piece)[:_MESSAGE_MAX]
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(text)["message"])
        return text.decode(errors="replace").strip() or f"the builder answered with status {self.status}"


class Builds:
    """The builder, as the rest of hyperd sees it."""

    def __init__(
        self, containers: Containers, registry: Registry, images: ImageStore, volumes: Volumes, events: Events,
        settings: BuilderSettings,
    ) -> None:  # fmt: skip
        self.machine = BuilderMachine(containers, registry, images, volumes, settings)
        self._containers = containers
        self.cache = BuildCache(self.ask, self.machine, events)
        self._transfer = Transfer(images, events)
        self._relays = Relays()
        self._known: tuple[str, Dockerd] | None = None  # of which container, and how it is asked
        self._passing: set[Passage] = set()  # connections by which builds are asked for
        self._unseen = False  # something may have been built by one, and was not seen

    def open(self) -> None:
        """At the daemon's start, when containers have been found again."""
        self.machine.open()

    async def close(self) -> None:
        """No more builds; the builder itself ends as other containers do, or stays."""
        await self.machine.close()
        await self._forget()
        await self._relays.close()

    # -- asking ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def dockerd(self) -> AsyncIterator[Dockerd]:
        """The builder's, which answers. One that does not is removed, so that the next build has another.

        :raise HyperError: why there is none.
        """
        async with self.machine.use() as container:
            yield await self._answering(container)

    async def _answering(self, container: Container) -> Dockerd:
        """Its dockerd. Connections stay open between builds: a new one is a process in the guest."""
        if self._known and self._known[0] == container.id:
            return self._known[1]
        dockerd = Dockerd(lambda: self._dial(container))
        try:
            async with await dockerd.send("GET", "/_ping") as response:
                await response.read()
        except BaseException as error:
            await dockerd.close()
            if isinstance(error, HyperError):
                await self.machine.remove(container)
                raise Unavailable(f"the builder does not work, and was removed: {error}", hint="try again") from error
            raise
        if self._known and self._known[0] == container.id:  # of another build, which came at the same time
            await dockerd.close()
            return self._known[1]
        await self._forget()
        self._known = (container.id, dockerd)
        return dockerd

    async def _forget(self) -> None:
        known, self._known = self._known, None
        if known:
            await known[1].close()

    def _dial(self, container: Container) -> socket.socket:
        return self._relays.dial(self._containers.runtime(container), container, SOCKET, _BEGIN)

    # -- POST /build -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def build(self, query: Query, headers: Mapping[str, str], context: Body | None) -> AsyncIterator[Answer]:
        """A build of a context that is sent along; whoever leaves ends it.

        :raise HyperError: there is no builder, or it says why not.
        """
        policies.check_brought()
        self._transfer.check()
        async with self.dockerd() as dockerd:
            await self._transfer.begin(dockerd)
            await self._transfer.offer(dockerd, named(query))
            body = self._watched(dockerd, context) if context else None
            asked, names = with_network(query), [v for k, v in query if k == "t" and v]
            async with await dockerd.send("POST", "/build", asked, body=body, headers=headers) as response:
                yield Answer(response.status, response.content_type, self._taken_in_after(dockerd, response, names))

    async def _watched(self, dockerd: Dockerd, context: Body) -> AsyncGenerator[bytes, None]:
        """The context; before each piece, the images that it names are there."""
        finder, plain = NameFinder(), Plain()
        async for piece in context:
            for part in plain.of(piece):
                await self._transfer.offer(dockerd, finder.feed(part))
                await asyncio.sleep(0)  # a piece may unpack to a thousand times as much
            yield piece

    async def _taken_in_after(
        self, dockerd: Dockerd, response: aiohttp.ClientResponse, names: list[str]
    ) -> AsyncGenerator[bytes, None]:
        """The answer; its end comes when what was built is in our store, or with the reason why it is not."""
        made = Made()
        try:
            async for piece in response.content.iter_any():
                made.feed(piece)
                yield piece
        except aiohttp.ClientError:
            yield error_line(Unavailable("the builder's virtual machine ended during the build: build it again"))
            return
        if response.status < 400 and not made.failed:
            try:
                if made.id:
                    await self._transfer.take(dockerd, made.id, names)
                else:
                    await self._transfer.take_in(dockerd)
            except HyperError as error:
                yield error_line(error)

    # -- POST /grpc, /session ----------------------------------------------------------

    async def pass_through(self, path: str, headers: Query, peer: Through) -> None:
        """A connection of a client that speaks with BuildKit itself, which is asked for by HTTP/1.1 and goes on as h2c.

        `headers` may have a name several times.

        :raise HyperError: there is no builder, or it does not agree.
        """
        policies.check_brought()
        self._transfer.check()
        async with self.dockerd() as dockerd, self.machine.use() as container:
            passage = Passage(self._transfer, dockerd, peer, lambda: upgraded(self._dial(container), path, headers))
            if path == SESSION:
                await passage.open()
                await passage.go()
            else:
                await self._build_through(passage, dockerd)

    async def _build_through(self, passage: Passage, dockerd: Dockerd) -> None:
        """Clients look first whether they can connect, and send nothing: those get no connection to dockerd."""
        if not await passage.begun():
            return
        if not self._passing:
            await self._transfer.begin(dockerd)
        self._passing.add(passage)
        try:
            await passage.go()
        finally:
            self._passing.discard(passage)
            self._unseen = self._unseen or passage.owes
            with contextlib.suppress(HyperError):
                await self.catch_up()

    async def catch_up(self) -> None:
        """What clients that speak with BuildKit themselves have built by now is in our store.

        That is so already where the answers to them could be read.
        """
        owing = any(passage.owes for passage in self._passing)
        if not (self._unseen or owing) or not self.machine.running:
            return
        async with self.dockerd() as dockerd:
            self._unseen = owing
            await self._transfer.take_in(dockerd)

    async def ask(self, method: str, path: str, query: Query) -> Any:
        """A question of a client that is dockerd's to answer, and its document.

        :raise HyperError: there is no builder, or it says why not.
        """
        async with self.dockerd() as dockerd:
            return await dockerd.json(method, path, query)
