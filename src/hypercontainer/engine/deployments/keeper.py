# SPDX-License-Identifier: Apache-2.0
"""Makes and ends replicas until there are as many, of the wanted kind, as there are to be.

All that it knows is in the records: of a deployment, and of containers with its label. One task for each deployment
looks at them, does one thing, and looks again; a daemon that dies in the midst of it leaves what the next one goes on
from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import dataclass, field

from msgspec.structs import replace

from ...errors import DeadlineExceeded, HyperError, InvalidState, NotFound
from ...model.deployments import LABEL, VERSION_LABEL, Deployment
from ...model.specs import ContainerSpec
from ...model.status import Container, ContainerStatus
from ...network import answers
from ...network.balanced import Balanced
from ...sys import clock, tasks
from ..containers import Containers
from ..pod_network import PodNetwork
from ..principal import acting_for, forget
from ..registry import Registry
from .deployments import Deployments, returned, version_of

log = logging.getLogger(__name__)
_AGAIN, _AGAIN_MAX = 1.0, 60.0  # seconds after a failure; twice as long each time
_SHORTEST = 0.01  # seconds: less than a clock may tell apart
_ASK = 0.2  # seconds between two questions whether a new one answers
_REMOVAL = 120.0  # seconds for a removal, beside the time that programs have to end
_STEADY = 10.0  # seconds after which one that ends is no failure of its begin


@dataclass
class _Seen:
    """Of a deployment, by this daemon."""

    ready: dict[str, float] = field(default_factory=dict)  # containers: since when, by the loop's clock
    begun: dict[str, float] = field(default_factory=dict)  # containers that were made: when
    failures: int = 0  # in a row
    again: float = 0.0  # nothing is made before, by the loop's clock
    counted: set[str] = field(default_factory=set)  # containers whose end was counted
    noted: str = ""  # what the record says of it that is over when all is well
    after_batch: float = 0.0  # the next old ones are replaced then


class Keeper:
    """One task for each deployment, and one that begins and ends these."""

    def __init__(
        self, deployments: Deployments, registry: Registry, containers: Containers, network: PodNetwork
    ) -> None:
        self._deployments = deployments
        self._registry = registry
        self._containers = containers
        self._network = network
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._applied: tuple[Balanced, ...] = ()
        self._applying = asyncio.Lock()

    async def run(self) -> None:
        """Until it is cancelled; replicas run on."""
        self._applied = self._deployments.balanced()
        try:
            while True:
                changed = self._deployments.changed
                for record in self._deployments.records():
                    if record.id not in self._keeping:
                        self._begin(record)
                await changed.wait()
        finally:
            await tasks.end(list(self._keeping.values()))

    def _begin(self, record: Deployment) -> None:
        task = self._keeping[record.id] = asyncio.create_task(self._keep(record.id))
        task.add_done_callback(lambda _: self._keeping.pop(record.id, None))

    async def _keep(self, id_: str) -> None:
        seen = _Seen()
        forget()
        if begun := self._deployments.get(id_):  # ends of an earlier daemon's time are none of this one's
            ended = [c for c in self._deployments.members(begun) if self._deployments.state_of(c) == "ended"]
            seen.counted = {c.id for c in ended}
        while record := self._deployments.get(id_):
            changed, other = self._registry.changed, self._deployments.changed
            try:
                with acting_for(record, self._registry.policy_of(record.tenant)):
                    pause = await self._step(record, seen)
                await self._apply()
            except HyperError as error:
                pause = self._failed(id_, seen, str(error))
            except Exception:
                log.exception("deployment %s cannot be looked after", record.name)
                pause = self._failed(id_, seen, "internal error: hyperd's log has it")
            if pause != 0:
                await _either(changed, other, pause if pause is None else max(pause, _SHORTEST))

    def _failed(self, id_: str, seen: _Seen, why: str) -> float:
        pause = float(min(_AGAIN * 2**seen.failures, _AGAIN_MAX))
        seen.failures = min(seen.failures + 1, 10)
        seen.again = clock.seconds() + pause
        seen.noted = why
        self._deployments.note(id_, why)
        return pause

    async def _apply(self) -> None:
        """The host's rules follow what is ready."""
        async with self._applying:
            wanted = self._deployments.balanced()
            if wanted != self._applied:
                await self._network.refresh()
                self._applied = wanted

    # -- one look -------------------------------------------------------------------

    async def _step(self, record: Deployment, seen: _Seen) -> float | None:
        """Do what is first to be done. 0: look again at once; else seconds until then, unless something changes."""
        if record.removing:
            await self._finish(record)
            return 0
        silent = await self._ask(record)
        if self._deployments.get(record.id) is not record:
            return 0  # it is another one by now
        now, members = clock.seconds(), self._deployments.members(record)
        states = {c.id: self._deployments.state_of(c) for c in members}
        ended = [c for c in members if states[c.id] == "ended"]
        alive = [c for c in members if states[c.id] not in ("ended", "draining")]
        seen.ready = {c.id: seen.ready.get(c.id, now) for c in alive if states[c.id] == "ready"}
        seen.begun = {c.id: seen.begun.get(c.id, now) for c in alive}
        for container in [c for c in ended if c.id not in seen.counted]:
            self._count_end(record, container, seen)
        for container in ended[:-1] if record.replicas else ended:  # the last one tells what went wrong
            await self._remove(container)
        unborn = next((c for c in alive if c.state.status is ContainerStatus.CREATED and not c.state.starting), None)
        if unborn and (wait := seen.again - now) > 0:
            return wait
        if unborn:
            await self._containers.start(unborn.id)
            return 0
        if (found := self._deployments.get(record.id)) is not record:
            return 0 if found else None
        new = [c for c in alive if version_of(c) == record.version]
        old = [c for c in alive if c not in new]
        rolling = old and not record.paused
        pause = await (self._roll(record, seen, new, old) if rolling else self._level(record, seen, alive))
        return min(pause or _ASK, _ASK) if silent and pause != 0 else pause

    async def _ask(self, record: Deployment) -> bool:
        """Whether something that runs does not answer yet."""
        unasked = self._deployments.unasked(record)
        ports = [p.target for p in record.ports if p.protocol == "tcp"]
        silent = False
        for container, ip in unasked:
            found = await asyncio.gather(*(answers.answers(ip, port) for port in ports)) if ip else []
            if all(found):
                self._deployments.answers(container)
            else:
                silent = True
                deaf = ", ".join(f"{port}/tcp" for port, answer in zip(ports, found, strict=False) if not answer)
                what = f"nothing answers at {deaf}" if deaf else "it has no address"
                self._deployments.is_silent(container, what)
        return silent

    def _count_end(self, record: Deployment, container: Container, seen: _Seen) -> None:
        seen.counted.add(container.id)
        lasted = clock.seconds() - seen.ready.get(container.id, clock.seconds())
        seen.failures = 0 if lasted > _STEADY else seen.failures
        state = container.state
        why = f"{container.name} ended with {state.exit_code}" + (f": {state.error}" if state.error else "")
        self._failed(record.id, seen, why)
        if version_of(container) == record.version and any(
            version_of(c) != record.version for c in self._deployments.members(record)
        ):
            self._give_up(record, why)

    def _give_up(self, record: Deployment, why: str) -> None:
        """Its update has failed: it stays as it is, or becomes again what it was."""
        if record.update.on_failure == "rollback" and record.previous is not None:
            self._deployments.put(replace(returned(record), message=f"rolled back: {why}"))
        else:
            self._deployments.note(record.id, why, paused=True)

    async def _level(self, record: Deployment, seen: _Seen, alive: list[Container]) -> float | None:
        """As many as there are to be; those that are not ready go first."""
        if len(alive) > record.replicas:
            ready_first = sorted(alive, key=lambda c: (c.id not in seen.ready, c.created_at))
            await self._end(record, ready_first[record.replicas :])
            return 0
        if len(alive) < record.replicas:
            wait = seen.again - clock.seconds()
            if wait > 0:
                return wait
            await self._make(record)
            return 0
        if alive and all(clock.seconds() - seen.ready.get(c.id, clock.seconds()) > _STEADY for c in alive):
            seen.failures = 0
            if record.message and record.message == seen.noted and not record.paused:
                self._deployments.note(record.id, "")
            return None
        return _STEADY

    async def _roll(self, record: Deployment, seen: _Seen, new: list[Container], old: list[Container]) -> float | None:
        """The next batch; `new` are waited for before."""
        now, policy = clock.seconds(), record.update
        late = [c for c in new if c.id not in seen.ready and now - seen.begun[c.id] > policy.limit]
        if late:
            self._give_up(record, f"{late[0].name} was not ready within {policy.limit:g} s")
            return 0
        waiting = [policy.monitor - (now - seen.ready[c.id]) if c.id in seen.ready else policy.limit for c in new]
        if waiting and max(waiting) > 0:
            return min(w for w in waiting if w > 0)
        if (wait := max(seen.after_batch, seen.again) - now) > 0:
            return wait
        surplus = policy.parallelism if policy.order == "start-first" else 0
        room = min(record.replicas - len(new), record.replicas + surplus - len(new) - len(old))
        if room > 0:
            for _ in range(min(room, policy.parallelism)):
                await self._make(record)
            return 0
        await self._end(record, old[: policy.parallelism])
        seen.after_batch = clock.seconds() + policy.delay
        return 0

    # -- what is done ---------------------------------------------------------------

    async def _make(self, record: Deployment) -> None:
        container = await self._containers.create(_spec(record), starting=True)
        await self._containers.start(container.id)

    async def _end(self, record: Deployment, leaving: list[Container]) -> None:
        """They get no new connections, and end after those that there are had time."""
        ids = {c.id for c in leaving}
        self._deployments.draining |= ids
        try:
            await self._apply()
            if record.ports and any(c.state.status is ContainerStatus.RUNNING for c in leaving):
                await asyncio.sleep(record.update.drain)
            await asyncio.gather(*map(self._remove, leaving))
        finally:
            self._deployments.draining -= ids

    async def _remove(self, container: Container) -> None:
        with contextlib.suppress(NotFound):
            with contextlib.suppress(InvalidState):
                await self._containers.stop(container.id)
            await self._containers.remove(container.id, force=True, volumes=True)

    async def remove(self, key: str) -> Deployment:
        """With its replicas. Raises what `Deployments.find` does. :raise DeadlineExceeded: they do not end in time; it
        goes on.
        """
        record = replace(self._deployments.find(key), replicas=0, removing=True)
        self._deployments.put(record)  # from here on it goes, whatever becomes of hyperd
        try:
            async with asyncio.timeout(_REMOVAL + record.container.stop_timeout):
                while (changed := self._deployments.changed) and self._deployments.get(record.id):
                    await changed.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the replicas of {record.name} have not ended yet", hint="it goes on: see `hyperctl deployment ps`"
            ) from None
        return record

    async def _finish(self, record: Deployment) -> None:
        members = self._deployments.members(record)
        self._deployments.draining |= {c.id for c in members}
        try:
            await self._apply()
            await asyncio.gather(*map(self._remove, members))
        finally:
            self._deployments.draining -= {c.id for c in members}
        self._deployments.forget(record)


async def _either(first: asyncio.Event, second: asyncio.Event, limit: float | None) -> None:
    """Until one is set, or so many seconds have passed."""
    waiting = [asyncio.create_task(first.wait()), asyncio.create_task(second.wait())]
    try:
        await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await tasks.end(waiting)


def _spec(record: Deployment) -> ContainerSpec:
    labels = {**record.container.labels, LABEL: record.id, VERSION_LABEL: str(record.version)}
    name = f"{record.name}-{secrets.token_hex(3)}"
    return replace(record.container, name=name, labels=labels, network=record.network)
