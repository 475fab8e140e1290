# SPDX-License-Identifier: Apache-2.0
"""How long pods live, and when those that have nothing to do are suspended: `ttl` and `idle_timeout`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from ..errors import HyperError
from ..model.status import Pod, PodStatus
from ..protocol.usage import GuestStats
from ..sys import clock, tasks
from .containers import Containers
from .execs import Execs
from .forks.doorbell import Doorbells
from .forks.suspensions import Suspensions
from .pods import Pods
from .sandboxes import Sandboxes

log = logging.getLogger(__name__)
_SHORTEST, _LONGEST = 0.5, 5.0  # seconds between two looks
_ANSWER = 5.0  # seconds for a guest: that of one pod may not keep the others waiting
_CPU = 0.02  # of a processor: less than that is nothing
_PACKETS = 0.5  # a second: neighbours ask for addresses, and routers tell of themselves
_RUNS = (PodStatus.RUNNING, PodStatus.PAUSED, PodStatus.SUSPENDED)


@dataclass
class _Seen:
    """Of a pod with an idle timeout, when it was looked at last."""

    at: float  # seconds of the loop's clock
    active: float  # when it had something to do
    cpu: int = 0  # microseconds
    packets: int = 0


class Lifetimes:
    """Looks at pods that have such limits, as long as there are some."""

    def __init__(
        self, pods: Pods, containers: Containers, sandboxes: Sandboxes, execs: Execs, suspensions: Suspensions,
        doorbells: Doorbells,
    ) -> None:  # fmt: skip
        self._registry = pods.registry
        self._containers = containers
        self._pods = pods
        self._sandboxes = sandboxes
        self._execs = execs
        self._suspensions = suspensions
        self._doorbells = doorbells
        self._seen: dict[str, _Seen] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by pod

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                changed = self._registry.changed
                watched = [p for p in self._registry.pods() if p.spec.ttl or p.spec.idle_timeout]
                if not watched:
                    self._seen.clear()
                    await changed.wait()
                    await asyncio.sleep(_SHORTEST)  # many changes are one
                    continue
                self._seen = {p.id: self._seen[p.id] for p in watched if p.id in self._seen}
                await self._calmly("not all doorbells are taken down", self._doorbells.only({p.id for p in watched}))
                looks = [self._calmly(f"pod {pod.name} cannot be looked at", self._look(pod)) for pod in watched]
                await asyncio.gather(*looks)
                await asyncio.sleep(min(self._pause(pod) for pod in watched))
        finally:
            await self._doorbells.only(set())
            await tasks.end(list(self._under_way.values()))

    async def rouse(self, pod: Pod) -> None:
        """It is about to be used: one with an idle timeout that is suspended goes on.

        :raise HyperError: why it does not.
        """
        self._seen.pop(pod.id, None)
        if pod.spec.idle_timeout:
            await self._suspensions.wake(pod)

    def _pause(self, pod: Pod) -> float:
        shortest = min(x for x in (pod.spec.ttl, pod.spec.idle_timeout) if x)
        return min(max(shortest / 5, _SHORTEST), _LONGEST)

    async def _calmly(self, failing: str, work: Awaitable[None]) -> None:
        """Whatever is wrong with one pod, the others are looked at; `failing` is what the log says."""
        try:
            await work
        except asyncio.CancelledError:
            if tasks.cancelled():
                raise
        except Exception:
            log.exception("%s", failing)

    async def _look(self, pod: Pod) -> None:
        if pod.status not in _RUNS or pod.id in self._under_way:
            self._seen.pop(pod.id, None)
        elif pod.spec.ttl and clock.now() >= _began(pod) + timedelta(seconds=pod.spec.ttl):
            self._begin(pod, self._expire)
        elif pod.status is PodStatus.SUSPENDED and pod.spec.idle_timeout:
            asleep = partial(self._sandboxes.is_suspended, pod.id)
            await self._doorbells.hang(pod, asleep, lambda: self._begin(pod, self.rouse))
        elif pod.status is PodStatus.RUNNING and pod.spec.idle_timeout and await self._is_idle(pod):
            self._begin(pod, self._suspend)

    def _begin(self, pod: Pod, work: Callable[[Pod], Awaitable[None]]) -> None:
        if pod.id not in self._under_way:
            task = self._under_way[pod.id] = asyncio.create_task(self._guarded(pod, work))
            task.add_done_callback(lambda _: self._under_way.pop(pod.id, None))

    async def _guarded(self, pod: Pod, work: Callable[[Pod], Awaitable[None]]) -> None:
        try:
            return await work(self._registry.pod(pod.id))
        except HyperError as error:
            log.warning("pod %s: %s", pod.name, error)
        except Exception:
            log.exception("what pod %s is due to is not done", pod.name)
        await asyncio.sleep(_LONGEST)  # however often it rings meanwhile

    # -- ttl ------------------------------------------------------------------------------

    async def _expire(self, pod: Pod) -> None:
        """With `--rm` it is removed by its end."""
        log.info("pod %s has lived for %g s, and is stopped", pod.name, pod.spec.ttl)
        if not pod.implicit:
            await self._pods.stop(pod.id)
        elif pod.status is PodStatus.SUSPENDED:
            await self._containers.kill(pod.id, "KILL")
        else:
            await self._containers.stop(pod.id)

    # -- idle timeout ------------------------------------------------------------------------

    async def _suspend(self, pod: Pod) -> None:
        if self._seen.pop(pod.id, None):  # nobody has wanted it since it was looked at
            await self._suspensions.suspend(pod.id)

    async def _is_idle(self, pod: Pod) -> bool:
        """Whether it has had nothing to do for as long as its timeout says."""
        runtime, now = self._sandboxes.runtime(pod.id), asyncio.get_running_loop().time()
        if runtime is None:
            return False
        before = self._seen.setdefault(pod.id, _Seen(at=now, active=now))
        try:
            stats = await tasks.within(runtime.agent.stats(), _ANSWER)
        except (HyperError, TimeoutError):  # others see to it
            return False
        if self._seen.get(pod.id) is not before:  # somebody wanted it meanwhile
            return False
        cpu = sum(c.cpu_usec for c in stats.containers.values())
        packets, lasted = _packets(stats), now - before.at
        busy = (
            self._is_used(pod)
            or not lasted
            or cpu - before.cpu > _CPU * lasted * 1e6
            or packets - before.packets > max(_PACKETS * lasted, 1)
        )
        self._seen[pod.id] = _Seen(now, now if busy else before.active, cpu, packets)
        return now - self._seen[pod.id].active >= pod.spec.idle_timeout

    def _is_used(self, pod: Pod) -> bool:
        """Whether somebody is attached or connected, follows its log, copies files, or runs something in it."""
        members, runtime = self._registry.members(pod.id), self._sandboxes.runtime(pod.id)
        if self._doorbells.holds(pod.id) or (runtime and runtime.uses):
            return True
        execs = [e for c in members for e in self._execs.of(c.id)]
        return any(e.started for e in execs) or any(self._containers.supervisor(c).fan_out.used for c in members)


def _began(pod: Pod) -> datetime:
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(pod.started_at)
    return clock.now()


def _packets(stats: GuestStats) -> int:
    return sum(i.rx_packets + i.tx_packets for i in stats.interfaces if i.name != "lo")
