# SPDX-License-Identifier: Apache-2.0
"""How long pods live, and when those that have nothing to do are suspended: `ttl` and `idle_timeout`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from msgspec.structs import asdict, replace

from ..errors import HyperError, NoSpace, Unsupported
from ..model.lifetimes import Lifetime, LifetimeInfo
from ..model.states import POD_STILL, POD_UP, STILL, end_of
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
        self._still: set[str] = set()  # pods that stood still when they were looked at: their ttl does not go on
        self._changed = asyncio.Event()  # somebody has another lifetime, or what was under way has ended
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by pod

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                changed = self._registry.changed
                watched = [p for p in self._registry.pods() if p.spec.ttl or p.spec.idle_timeout]
                hearing = {p.id for p in watched if p.spec.idle_timeout}
                await self._calmly("not all doorbells are taken down", self._doorbells.only(hearing))
                if not watched:
                    self._seen.clear()
                    self._still.clear()
                    await changed.wait()
                    await asyncio.sleep(_SHORTEST)  # many changes are one
                    continue
                self._seen = {p.id: self._seen[p.id] for p in watched if p.id in self._seen}
                self._still &= {p.id for p in watched}
                looks = [self._calmly(f"pod {pod.name} cannot be looked at", self._look(pod)) for pod in watched]
                await asyncio.gather(*looks)
                await self._sleep(min(self._pause(pod) for pod in watched))
        finally:
            await self._doorbells.end()
            await tasks.end(list(self._under_way.values()))

    def change(self, key: str, wanted: Lifetime) -> LifetimeInfo:
        """What a pod, or a container's own, is to have from now on.

        :raise Unsupported: its driver suspends no pods.
        """
        pod = self._registry.pod(key)
        self.check(pod, wanted)
        given = {name: value for name, value in asdict(wanted).items() if value is not None}
        pod = replace(pod, spec=replace(pod.spec, **given))
        if wanted.ttl is not None:
            pod = replace(pod, ttl_from=clock.stamp())
            self._still.discard(pod.id)
        members = self._registry.members(pod.id) if pod.implicit else []
        self._registry.put_together(pod, *(replace(c, spec=replace(c.spec, **given)) for c in members))
        self._seen.pop(pod.id, None)
        self._changed.set()
        spec, end = pod.spec, clock.written(end_of(pod))
        return LifetimeInfo(ttl=spec.ttl, ttl_action=spec.ttl_action, idle_timeout=spec.idle_timeout, ends_at=end)

    def check(self, pod: Pod, wanted: Lifetime) -> None:
        """:raise Unsupported: its driver suspends no pods."""
        if wanted.idle_timeout:
            self._suspensions.check_driver(pod)

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

    async def _sleep(self, seconds: float) -> None:
        """Less, when somebody gets another lifetime meanwhile."""
        with contextlib.suppress(TimeoutError):
            await tasks.within(self._changed.wait(), seconds)
        self._changed.clear()

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
        if pod.status not in POD_UP or pod.id in self._under_way:
            self._seen.pop(pod.id, None)
            return
        end = end_of(pod := self._counted_anew(pod))
        if end and clock.now() >= end and pod.id not in self._still and not self._is_starting(pod):
            self._begin(pod, self._expire)
        elif pod.status is PodStatus.SUSPENDED and pod.spec.idle_timeout:
            asleep = partial(self._sandboxes.is_suspended, pod.id)
            await self._doorbells.hang(pod, asleep, lambda: self._begin(pod, self.rouse))
        elif pod.status is PodStatus.RUNNING and pod.spec.idle_timeout and await self._is_idle(pod):
            self._begin(pod, self._suspend)

    def _begin(self, pod: Pod, work: Callable[[Pod], Awaitable[None]]) -> None:
        if pod.id not in self._under_way:
            task = self._under_way[pod.id] = asyncio.create_task(self._guarded(pod, work))
            task.add_done_callback(lambda _: self._ended(pod.id))

    def _ended(self, pod_id: str) -> None:
        self._under_way.pop(pod_id, None)
        self._changed.set()  # one that is suspended by now is to hear of packets

    async def _guarded(self, pod: Pod, work: Callable[[Pod], Awaitable[None]]) -> None:
        try:
            return await work(self._registry.pod(pod.id))
        except HyperError as error:
            log.warning("pod %s: %s", pod.name, error)
        except Exception:
            log.exception("what pod %s is due to is not done", pod.name)
        await asyncio.sleep(_LONGEST)  # however often it rings meanwhile

    # -- ttl ------------------------------------------------------------------------------

    def _counted_anew(self, pod: Pod) -> Pod:
        """The time of one that is to stand still at its end does not go on meanwhile, and begins anew afterwards."""
        if pod.spec.ttl_action != "suspend":
            self._still.discard(pod.id)
        elif self._stands_still(pod):
            self._still.add(pod.id)
        elif pod.id in self._still:
            self._still.discard(pod.id)
            pod = self._sandboxes.update(pod.id, ttl_from=clock.stamp())
        return pod

    def _is_starting(self, pod: Pod) -> bool:
        """Its time may be shorter than its start, of which whoever asked for it hears first."""
        return any(c.state.starting for c in self._registry.members(pod.id))

    def _stands_still(self, pod: Pod) -> bool:
        frozen = pod.implicit and all(c.state.status in STILL for c in self._registry.members(pod.id))
        return pod.status in POD_STILL or frozen

    async def _expire(self, pod: Pod) -> None:
        """With `--rm` it is removed by its end."""
        if pod.spec.ttl_action == "suspend":
            log.info("pod %s has lived for %g s, and is suspended", pod.name, pod.spec.ttl)
            await self._put_to_rest(pod)
            return
        log.info("pod %s has lived for %g s, and is stopped", pod.name, pod.spec.ttl)
        if not pod.implicit:
            await self._pods.stop(pod.id)
        elif pod.status is PodStatus.SUSPENDED:
            await self._containers.kill(pod.id, "KILL")
        else:
            await self._containers.stop(pod.id)

    async def _put_to_rest(self, pod: Pod) -> None:
        """On the disk; in this host's memory where that cannot be."""
        try:
            await self._suspensions.suspend(pod.id)
        except (NoSpace, Unsupported) as error:
            log.info("pod %s is paused, since it cannot be suspended: %s", pod.name, error)
            await (self._containers.pause(pod.id) if pod.implicit else self._sandboxes.pause(pod.id))
        self._still.add(pod.id)

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


def _packets(stats: GuestStats) -> int:
    return sum(i.rx_packets + i.tx_packets for i in stats.interfaces if i.name != "lo")
