# SPDX-License-Identifier: Apache-2.0
"""The sandboxes that clients have. hyperd keeps their time: when it is over they are paused, or ended where that was
asked, whether this server runs or not.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ...client.base import pod_route
from ...errors import NoSpace, NotFound, Unsupported
from ...model.specs import ContainerSpec, Mount
from ...model.states import STILL, UP, end_of
from ...model.status import Container, ContainerStatus, PodDetails, PodInfo
from ...sdk import AsyncSandbox, AsyncWatch
from ...sdk.api import Api
from ...sdk.limits import DEFAULT, Deadline, within
from ...sdk.sandbox import last_seen
from ...sdk.spec import LABEL as MADE_FOR
from .commands import Running
from .connect import Gone
from .starting import READY, command_of, wait_ready
from .templates import Template, Templates
from .terms import LABEL, Terms, Wanted, image_of, is_snapshot, read_terms

_SHORTEST = 0.001  # seconds: 0 is without end to hyperd


@dataclass(eq=False)
class Entry:
    """A sandbox and what this server has of it."""

    sandbox: AsyncSandbox
    terms: Terms
    commands: dict[int, Running] = field(default_factory=dict)
    watches: dict[str, Watched] = field(default_factory=dict)
    cpu: tuple[float, int] = (0.0, 0)  # when it was measured last, seconds since the epoch; microseconds of CPU by then
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
        self.host = host
        self.image = image
        self._api = Api(host)
        self.templates = Templates(self._api)
        self._entries: dict[str, Entry] = {}

    async def close(self) -> None:
        """Stop; the sandboxes stay."""
        for id_ in tuple(self._entries):
            await self._drop(id_)

    def _enter(self, sandbox: AsyncSandbox, terms: Terms) -> Entry:
        """It may have been listed already while it was made."""
        entry = self._entries.setdefault(sandbox.id, Entry(sandbox, terms))
        entry.terms = terms
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

    async def create(self, wanted: Wanted, mounts: Sequence[Mount] = ()) -> Entry:
        """:raise NotFound: there is no such image, or snapshot. :raise Unsupported: a snapshot has its own volumes."""
        terms, template = wanted.terms, wanted.terms.template
        if is_snapshot(template):
            if mounts:
                raise Unsupported("what goes on from a snapshot has the volumes that it had")
            return await self._with_time(await AsyncSandbox.restore(template, host=self.host), terms)
        built = await self.templates.find(template)
        begin = built.template if built else Template("")
        spec = ContainerSpec(
            image="",
            pull="never" if built else "missing",
            run_init=bool(begin.start),
            mounts=list(mounts),
            ttl_action=terms.action,
            allow=list(wanted.reach.allow),
            egress=wanted.reach.egress,
        )
        sandbox = await AsyncSandbox.create(
            built.image if built else image_of(template, self.image), command=command_of(begin),
            cpus=begin.cpus or None, memory=begin.memory << 20 or None, env=wanted.env, network=wanted.reach.network,
            spec=spec, labels={LABEL: terms.label(), MADE_FOR: "e2b"}, host=self.host,
            ttl=max(terms.timeout, READY if begin.ready else _SHORTEST),
        )  # fmt: skip
        if not begin.ready:
            return self._enter(sandbox, terms)
        try:
            await wait_ready(sandbox, begin)
            return await self._with_time(sandbox, terms)
        except BaseException:
            await sandbox.kill()
            raise

    async def _with_time(self, sandbox: AsyncSandbox, terms: Terms) -> Entry:
        """One that goes on from another has the other's time until it gets its own."""
        entry = self._enter(sandbox, terms)
        try:
            await self.set_time(entry, terms.timeout)
        except BaseException:
            await sandbox.kill()
            raise
        return entry

    async def find(self, id_: str) -> tuple[Entry, Container]:
        """:raise NotFound: there is none."""
        entry = self._entries.get(id_)
        try:
            if entry:
                return entry, await entry.sandbox.info()
            sandbox = await AsyncSandbox.connect(id_, host=self.host)
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
            await entry.sandbox.resume()
            await self.set_time(entry, entry.terms.timeout)
        elif status is not ContainerStatus.RUNNING:
            raise Gone(f"sandbox {id_} is {status}, and a running one was not found")
        return entry

    async def ends(self) -> dict[str, datetime.datetime]:
        """When the time of each is over, by id; one that stands still may have none."""
        pods = await within(
            self._api, "", Deadline(DEFAULT), "the list of pods", self._api.call(list[PodInfo], "GET", "/pods")
        )
        return {pod.id: datetime.datetime.fromisoformat(pod.ends_at) for pod in pods if pod.ends_at}

    async def end(self, container: Container) -> datetime.datetime | None:
        """When its time is over, as `ends` has it. :raise NotFound: it has ended."""
        call = self._api.call(PodDetails, "GET", pod_route(container.pod))
        found = await within(self._api, container.id, Deadline(DEFAULT), "the question when it ends", call)
        return end_of(found.pod)

    async def all(self) -> list[tuple[Entry, Container]]:
        """Those that run or are paused, newest first."""
        found = [(self._known(sandbox), last_seen(sandbox)) for sandbox in await AsyncSandbox.list(host=self.host)]
        return [(e, c) for e, c in found if e and c.state.status in UP]

    async def _stand_still(self, entry: Entry) -> None:
        """On the disk; in this host's memory where that cannot be."""
        try:
            await entry.sandbox.suspend()
        except (NoSpace, Unsupported):
            await entry.sandbox.pause()

    async def set_time(self, entry: Entry, seconds: float) -> None:
        """So long from now."""
        await entry.sandbox.set_lifetime(ttl=max(seconds, _SHORTEST), ttl_action=entry.terms.action)

    async def pause(self, id_: str) -> bool:
        """False: it stands still already. :raise NotFound: there is none."""
        entry, container = await self.find(id_)
        if container.state.status in STILL:
            return False
        await self._stand_still(entry)
        if entry.terms.kill:
            await entry.sandbox.set_lifetime(ttl_action="suspend")  # what a client has paused stays
        return True

    async def resume(self, id_: str, seconds: int | None) -> tuple[Entry, bool]:
        """Let it go on where it stands still, and with that much time at least; whether it stood still.

        :raise NotFound: there is none.
        """
        entry, container = await self.find(id_)
        paused = container.state.status in STILL
        if paused:
            await entry.sandbox.resume()
        wanted = entry.terms.timeout if seconds is None else seconds
        end = await self.end(container)
        now = datetime.datetime.now(datetime.UTC)
        if paused or end is None or now + datetime.timedelta(seconds=wanted) > end:
            await self.set_time(entry, wanted)
        return entry, paused

    async def kill(self, id_: str) -> None:
        """:raise NotFound: there is none."""
        entry, _ = await self.find(id_)
        await entry.sandbox.kill()
        await self._drop(id_)

    async def fork(self, id_: str, count: int, timeout: int) -> list[Entry]:
        """All, or none. :raise NotFound: there is none."""
        entry, _ = await self.find(id_)
        terms = msgspec.structs.replace(entry.terms, timeout=timeout)
        forks = await entry.sandbox.fork(count)
        try:
            return list(await asyncio.gather(*(self._with_time(sandbox, terms) for sandbox in forks)))
        except BaseException:
            await asyncio.gather(*(sandbox.kill() for sandbox in forks), return_exceptions=True)
            raise
