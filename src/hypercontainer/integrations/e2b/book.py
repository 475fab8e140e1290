# SPDX-License-Identifier: Apache-2.0
"""The sandboxes that clients have, and when their time is over: then they are paused, or ended where that was asked."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

import msgspec

from ...client.base import pod_route
from ...errors import HyperError, NoSpace, NotFound, Unsupported
from ...model.states import STILL, UP
from ...model.status import Container, ContainerStatus
from ...sdk import AsyncSandbox, AsyncWatch
from ...sdk.api import Api
from ...sdk.limits import Deadline, within
from ...sdk.sandbox import last_seen
from .commands import Running
from .connect import Gone
from .terms import LABEL, Terms, Wanted, image_of, read_terms

logger = logging.getLogger(__name__)
_AGAIN = 30.0  # seconds until what did not succeed is tried again
_SNAPSHOT_ID = 32  # characters at least, all of them hexadecimal
_MOVE = 120.0  # seconds for a memory's way to the disk or from it


@dataclass(eq=False)
class Entry:
    """A sandbox and what this server has of it."""

    sandbox: AsyncSandbox
    terms: Terms
    ends_at: float = 0.0  # seconds since the epoch
    timer: asyncio.Task[None] | None = None
    commands: dict[int, Running] = field(default_factory=dict)
    watches: dict[str, Watched] = field(default_factory=dict)
    shell: str = ""  # the one that it has in the place of bash, once that was looked for


@dataclass(eq=False)
class Watched:
    """A directory that is watched for a client that asks for news now and then."""

    watch: AsyncWatch
    task: asyncio.Task[None]
    news: list[dict[str, object]]

    async def close(self) -> None:
        """Watch no more."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.watch.close()


class Book:
    """All of them, by id. What hyperd has is the truth: each look is a look at hyperd."""

    def __init__(self, host: str | None, image: str) -> None:
        """`image`: of who names no template."""
        self._host = host
        self._api = Api(host)
        self._image = image
        self._entries: dict[str, Entry] = {}

    async def load(self) -> None:
        """Those of an earlier server; the time of each begins anew."""
        for sandbox in await AsyncSandbox.list(host=self._host):
            self._known(sandbox)

    async def close(self) -> None:
        """Stop; the sandboxes stay."""
        for id_ in tuple(self._entries):
            await self._drop(id_)

    def _enter(self, sandbox: AsyncSandbox, terms: Terms) -> Entry:
        """Its time begins. It may have been listed already while it was made."""
        entry = self._entries.setdefault(sandbox.id, Entry(sandbox, terms))
        entry.terms = terms
        self.set_time(entry, terms.timeout)
        return entry

    def _known(self, sandbox: AsyncSandbox) -> Entry | None:
        """None where it is not one of ours."""
        if entry := self._entries.get(sandbox.id):
            return entry
        terms = read_terms(sandbox.labels)
        return self._enter(sandbox, terms) if terms else None

    async def _drop(self, id_: str) -> None:
        """Forget one."""
        if entry := self._entries.pop(id_, None):
            for command in entry.commands.values():
                await command.close()
            for watched in entry.watches.values():
                await watched.close()
            if entry.timer and entry.timer is not asyncio.current_task():
                entry.timer.cancel()

    async def create(self, wanted: Wanted) -> Entry:
        """:raise NotFound: there is no such image, or snapshot."""
        template = wanted.terms.template
        if len(template) >= _SNAPSHOT_ID and not set(template) - set("0123456789abcdef"):
            sandbox = await AsyncSandbox.restore(template, host=self._host)
        else:
            sandbox = await AsyncSandbox.create(
                image_of(template, self._image), env=wanted.env, network=wanted.network,
                labels={LABEL: wanted.terms.label()}, host=self._host,
            )  # fmt: skip
        return self._enter(sandbox, wanted.terms)

    async def find(self, id_: str) -> tuple[Entry, Container]:
        """:raise NotFound: there is none."""
        entry = self._entries.get(id_)
        try:
            if entry:
                return entry, await entry.sandbox.info()
            sandbox = await AsyncSandbox.connect(id_, host=self._host)
            if entry := self._known(sandbox):
                return entry, last_seen(sandbox)
        except NotFound:
            await self._drop(id_)
        raise NotFound(f"sandbox {id_} was not found")

    async def ready(self, id_: str) -> Entry:
        """One that is asked for something. A paused one goes on, where it may.

        :raise Gone: it is not there, or stands still.
        """
        try:
            entry, container = await self.find(id_)
        except NotFound as error:
            raise Gone(str(error)) from None
        status = container.state.status
        if status in STILL and entry.terms.resume:
            await self._go_on(entry, container)
            self.set_time(entry, entry.terms.timeout)
        elif status is not ContainerStatus.RUNNING:
            raise Gone(f"sandbox {id_} is {status}, and a running one was not found")
        return entry

    async def all(self) -> list[tuple[Entry, Container]]:
        """Those that run or are paused, newest first."""
        found = [(self._known(sandbox), last_seen(sandbox)) for sandbox in await AsyncSandbox.list(host=self._host)]
        return [(e, c) for e, c in found if e and c.state.status in UP]

    async def _stand_still(self, entry: Entry, container: Container) -> None:
        """On the disk; in this host's memory where that cannot be."""
        try:
            await self._move(container, "suspend")
        except (NoSpace, Unsupported):
            await entry.sandbox.pause()

    async def _go_on(self, entry: Entry, container: Container) -> None:
        if container.state.status is ContainerStatus.PAUSED:
            await entry.sandbox.resume()
        else:
            await self._move(container, "resume")

    async def _move(self, container: Container, verb: str) -> None:
        call = self._api.do("POST", pod_route(container.pod, f"/{verb}"))
        await within(self._api, container.id, Deadline(_MOVE), f"the sandbox's {verb}", call)

    def set_time(self, entry: Entry, seconds: float) -> None:
        """So long from now."""
        if entry.timer:
            entry.timer.cancel()
        entry.ends_at = time.time() + seconds
        entry.timer = asyncio.create_task(self._end_at(entry, seconds))

    async def _end_at(self, entry: Entry, seconds: float) -> None:
        """The end of its time, tried until it succeeds."""
        await asyncio.sleep(seconds)
        while True:
            try:
                container = await entry.sandbox.info()
                if entry.terms.kill:
                    await self.kill(entry.sandbox.id)
                elif container.state.status is ContainerStatus.RUNNING:
                    await self._stand_still(entry, container)
                return
            except NotFound:
                return
            except HyperError as error:
                logger.warning("the time of sandbox %s is over, but: %s", entry.sandbox.id, error)
            await asyncio.sleep(_AGAIN)

    async def pause(self, id_: str) -> bool:
        """False: it stands still already. :raise NotFound: there is none."""
        entry, container = await self.find(id_)
        if container.state.status in STILL:
            return False
        await self._stand_still(entry, container)
        if entry.timer:
            entry.timer.cancel()
        return True

    async def resume(self, id_: str, seconds: int | None) -> tuple[Entry, bool]:
        """Let it go on where it stands still, and with that much time at least; whether it stood still.

        :raise NotFound: there is none.
        """
        entry, container = await self.find(id_)
        paused = container.state.status in STILL
        if paused:
            await self._go_on(entry, container)
        wanted = entry.terms.timeout if seconds is None else seconds
        if paused or time.time() + wanted > entry.ends_at:
            self.set_time(entry, wanted)
        return entry, paused

    async def kill(self, id_: str) -> None:
        """:raise NotFound: there is none."""
        entry, _ = await self.find(id_)
        await entry.sandbox.kill()
        await self._drop(id_)

    async def fork(self, id_: str, count: int, timeout: int) -> list[Entry]:
        """:raise NotFound: there is none."""
        entry, _ = await self.find(id_)
        terms = msgspec.structs.replace(entry.terms, timeout=timeout)
        return [self._enter(sandbox, terms) for sandbox in await entry.sandbox.fork(count)]
