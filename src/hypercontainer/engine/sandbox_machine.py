# SPDX-License-Identifier: Apache-2.0
"""A pod's VM from its boot to its end: who uses it, what is done in its guest, and whether it lives."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import msgspec

from ..errors import Unavailable
from ..model.status import Pod, PodStatus
from ..sys import clock
from .bring_up import BringUp
from .disk_errors import DiskHealth
from .events import Events
from .pulse import follow_pulse
from .reattach import Reattacher
from .registry import Registry
from .runtime import Runtime, record
from .sandbox_verbs import Acquire, Down, Release, State, Work, check_awake
from .supervisor import Job, Message, Supervisor, failure

log = logging.getLogger(__name__)
_RENEWALS, _RENEWALS_WITHIN = 5, 60.0  # times that a lost connection is opened again, in so many seconds
_GONE_TIMEOUT = 30.0  # seconds for the end of a machine that others still give back


class SandboxMachine(Supervisor[State]):
    """One pod's VM."""

    def __init__(
        self, pod: Pod, registry: Registry, bring_up: BringUp, reattacher: Reattacher, events: Events, *,
        kill_silent: bool = False,
    ) -> None:  # fmt: skip
        """`kill_silent` ends a machine that does not answer."""
        super().__init__(f"the machine of pod {pod.name}", State.DOWN)
        self.id = pod.id
        self._registry = registry
        self._bring_up = bring_up
        self._reattacher = reattacher
        self._events = events
        self.runtime: Runtime | None = None  # from its boot until it has ended
        self._kill_silent = kill_silent
        self._boot: Job | None = None
        self._pulse: Job | None = None
        self._watch: Job | None = None
        self._work: Job | None = None
        self._working: Work | None = None
        self._works: deque[Work] = deque()
        self._acquires: list[Acquire] = []
        self._renewals: deque[float] = deque()  # when the connection was opened again, of late
        self._downs: list[Message] = []  # to be answered when it is down

    def save(self) -> None:
        """Write down what is needed to find the VM again."""
        if self.runtime and self._registry.has_pod(self.id):
            self._registry.put_pod(record(self._registry.pod(self.id), self.runtime))

    def _update(self, **changes: Any) -> Pod | None:
        if not self._registry.has_pod(self.id):
            return None
        pod = msgspec.structs.replace(self._registry.pod(self.id), **changes)
        self._registry.put_pod(pod)
        return pod

    def _publish(self, action: str, pod: Pod | None) -> None:
        if pod is not None and not pod.implicit:
            self._events.publish("pod", action, pod.id, name=pod.name)

    # -- boot -------------------------------------------------------------------------

    def _begin(self, message: Acquire) -> None:
        self._acquires = [message]
        self.move(State.BOOTING)
        self._boot = self.do(self._bring_up.up(self.id), self._booted, message.context)

    def _join(self, message: Acquire) -> None:
        self._acquires.append(message)

    def _booted(self, job: Job) -> None:
        self._boot = None
        acquires, self._acquires = self._acquires, []
        if error := failure(job):
            self.move(State.DOWN)
            for message in acquires:
                message.refuse(error)
            self._answer_downs()
            return
        self._own(job.result())
        try:
            self._record_boot()
        except Exception as wrong:
            log.exception("%s is not recorded, and is ended", self.name)
            for message in acquires:
                message.refuse(wrong)
            acquires = []
        for message in acquires:
            self._grant(message)
        if self._downs or self._is_idle():
            self._end(clean=False)

    def _own(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.move(State.UP)
        self._own_channel(runtime)
        pulse = follow_pulse(
            self.id, runtime, self._is_awake, self._registry, self._events, kill=self._kill_silent,
            look=DiskHealth(self.id, runtime, self._registry, self._events).look,
        )  # fmt: skip
        self._pulse = self.do(pulse, self._pulse_ended)

    def _own_channel(self, runtime: Runtime) -> None:
        runtime.agent.renewable = True
        self._watch = self.do(_closed(runtime), self._channel_closed)

    def _record_boot(self) -> None:
        """Pod and containers may have been changed meanwhile, or removed."""
        self.save()
        self._bring_up.recorded(self.id)
        pod = self._registry.pod(self.id)
        for c in self._registry.members(self.id):
            self._registry.put(msgspec.structs.replace(c, used=True, ports=pod.ports if pod.implicit else c.ports))
        status = PodStatus.STARTING if pod.status is PodStatus.STARTING else PodStatus.RUNNING
        self._publish("start", self._update(status=status, error="", started_at=clock.stamp(), finished_at=""))

    def _grant(self, message: Acquire) -> None:
        assert self.runtime is not None
        if not message.abandoned:
            self.runtime.users.add(message.user)
        message.answer(self.runtime)

    def _acquire(self, message: Acquire) -> None:
        assert self.runtime is not None
        if not self.runtime.dead:
            self._grant(message)
            return
        if not self.runtime.users:
            self._end(clean=False)
        self._await_end(message)

    def _await_end(self, message: Acquire) -> None:
        """A machine that ends is waited for, not for ever; then another is booted."""
        self.defer(message)
        error = Unavailable(f"{self.name} before has not ended", hint="try again, or restart hyperd")
        asyncio.get_running_loop().call_later(_GONE_TIMEOUT, message.refuse, error)

    def drop_request(self, message: Message) -> None:
        """A boot that nobody waits for any more is given up."""
        if isinstance(message, Acquire):
            if message in self._acquires:
                if self._boot and all(m.abandoned for m in self._acquires):
                    self.end([self._boot])
                return
            if self.runtime:  # it was granted, and nobody knows
                self.runtime.users.discard(message.user)
                if self.state is State.UP and self._is_idle():
                    self._end(clean=True)
        elif isinstance(message, Work) and not message.reply.done():
            if message is self._working and self._work:
                self.end([self._work])
                return
            if message in self._works:
                self._works.remove(message)
        message.reply.cancel()

    # -- work in the guest ---------------------------------------------------------------

    def _queue(self, message: Work) -> None:
        self._works.append(message)
        self._next_work()

    def _next_work(self) -> None:
        if self._work is None and self._works and self.state is State.UP:
            assert self.runtime is not None
            self._working = message = self._works.popleft()
            self._work = self.do(message.work(self.runtime), lambda job: self._worked(job, message), message.context)

    def _worked(self, job: Job, message: Work) -> None:
        self._work = self._working = None
        if self.runtime and not self.runtime.dead:
            self.save()
        if error := failure(job):
            message.refuse(error)
        else:
            message.answer(job.result())
        self.retake()  # what waits until nothing is done in the guest
        self._next_work()

    def _no_work(self, message: Message) -> None:
        raise Unavailable(f"{self.name} is {self.state}", hint="try again")

    def _asleep(self, message: Message) -> None:
        check_awake(self._registry.pod(self.id))

    # -- down -----------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        """Whether nobody needs it, and its pod does not say that it goes on without."""
        if self.runtime is None or self.runtime.users:
            return False
        pod = self._registry.pod(self.id) if self._registry.has_pod(self.id) else None
        return pod is None or self.runtime.dead or pod.implicit or pod.spec.exit_policy == "stop"

    def _release(self, message: Release) -> None:
        assert self.runtime is not None
        self.runtime.users.discard(message.user)
        if not self._is_idle():
            message.answer()
            return
        self._downs.append(message)
        self._end(clean=message.clean)

    def _released_late(self, message: Release) -> None:
        if self.runtime:
            self.runtime.users.discard(message.user)
        self._downs.append(message)

    def _down(self, message: Down) -> None:
        self._downs.append(message)
        self._end(clean=message.clean)

    def _down_booting(self, message: Down) -> None:
        self._downs.append(message)
        if self._boot:
            self.end([self._boot])

    def _down_sooner(self, message: Down) -> None:
        self._downs.append(message)
        if not message.clean and self.runtime:
            self.do(self.runtime.machine.kill(), lambda _: None)

    def _channel_closed(self, job: Job) -> None:
        """A connection that was lost is opened again, if the machine lives; else who uses it hears of its end."""
        if job.cancelled() or self.runtime is None:
            return
        severed = self.runtime.severed
        if self.state not in (State.UP, State.PAUSED) and not (severed and self.state is State.SUSPENDING):
            return
        if self.runtime.agent.lost and (severed or len(self._renewals) < _RENEWALS):
            if not severed:
                self._renewals.append(clock.seconds())
                asyncio.get_running_loop().call_later(_RENEWALS_WITHIN, self._renewals.popleft)
            self.runtime.renewing = True
            work = self._reattacher.renew(self.runtime, paused=self.state is State.PAUSED)
            self._watch = self.do(work, self._renewed)
        else:
            self._lost(self.runtime)

    def _renewed(self, job: Job) -> None:
        if self.runtime is None or job.cancelled():
            return
        self.runtime.renewing = False
        self.runtime.renewed.set()
        if failure(job) or not job.result():
            self._lost(self.runtime)
            return
        if not self.runtime.severed:
            log.warning("%s: the connection to its guest was lost, and was opened again", self.name)
        self._own_channel(self.runtime)
        self.save()

    def _lost(self, runtime: Runtime) -> None:
        runtime.give_up(self.name)
        runtime.renewed.set()
        if not runtime.users:
            self._end(clean=False, error="the virtual machine ended unexpectedly")

    def _end(self, *, clean: bool, error: str = "") -> None:
        assert self.runtime is not None
        self.runtime.ending = True
        self.move(State.ENDING)
        for job in (self._watch, self._work, self._pulse):
            if job:
                job.cancel()
        while self._works:
            self._works.popleft().refuse(Unavailable(f"{self.name} ends"))
        self.do(self._bring_up.down(self.id, self.runtime, clean=clean), lambda job: self._ended(job, error))

    def _ended(self, job: Job, error: str) -> None:
        if wrong := failure(job):
            log.error("%s: what it had is not all given back", self.name, exc_info=wrong)
        self.runtime = None
        self.move(State.DOWN)
        if self._registry.has_pod(self.id):
            pod = self._registry.pod(self.id)
            status = pod.status if pod.status in (PodStatus.FAILED, PodStatus.STARTING) else PodStatus.EXITED
            changed = self._update(vm=None, status=status, finished_at=clock.stamp(), error=error or pod.error)
            self._publish("stop", changed)
        self._answer_downs()

    def _answer_downs(self) -> None:
        downs, self._downs = self._downs, []
        for message in downs:
            message.answer(True)

    def _no_machine(self, message: Message) -> None:
        message.answer(False)

    # -- whether it lives -------------------------------------------------------------------

    def _is_awake(self) -> bool:
        return self.state is State.UP and self.runtime is not None and not self.runtime.renewing

    def _pulse_ended(self, job: Job) -> None:
        error = failure(job)
        if error and not isinstance(error, asyncio.CancelledError):
            log.error("%s: its pulse is not felt any longer", self.name, exc_info=error)


async def _closed(runtime: Runtime) -> None:
    await runtime.agent.closed.wait()
