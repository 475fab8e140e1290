# SPDX-License-Identifier: Apache-2.0
"""A pod's VM that is put on the disk, and goes on from there: its record, and who waits for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from ..model.status import Container, ContainerStatus, Pod, PodStatus
from .runtime import Runtime
from .sandbox_machine import SandboxMachine
from .sandbox_verbs import Down, Release, Resume, State, Suspend
from .supervisor import Job, Message, failure

log = logging.getLogger(__name__)
_RAN = (ContainerStatus.RUNNING, ContainerStatus.PAUSED)


def suspended(pod: Pod, members: Sequence[Container]) -> tuple[Pod, list[Container]]:
    """The records of a pod that is put on the disk, and of its containers that ran."""
    there = [c for c in members if c.state.status in _RAN]
    still = [replace(c, state=replace(c.state, status=ContainerStatus.SUSPENDED, pid=0)) for c in there]
    return replace(pod, status=PodStatus.SUSPENDED, vm=None), still


class SandboxSuspension(SandboxMachine):
    """One pod's VM."""

    _saving: Job | None = None  # what puts it on the disk, or takes it up from there, and may be given up

    # -- suspend --------------------------------------------------------------------------

    def _suspend(self, message: Suspend) -> None:
        assert self.runtime is not None
        if self._work:
            self.defer(message)
            return
        self.move(State.SUSPENDING)
        self._saving = self.do(message.work(self.runtime), lambda job: self._saved(job, message), message.context)

    def _saved(self, job: Job, message: Suspend) -> None:
        self._saving = None
        runtime = self.runtime
        assert runtime is not None
        if error := failure(job):
            self.move(State.UP)
            if runtime.agent.closed.is_set():  # it was not listened for
                self._own_channel(runtime)
            message.refuse(error)
            self._next_work()
            return
        for following in (self._watch, self._pulse):
            if following:
                following.cancel()
        runtime.suspended = True
        self._bring_up.tell_end(self.id)
        pod = self._record_suspended()
        self.do(self._bring_up.put_away(self.id, runtime), lambda job: self._put_away(job, message, pod))

    def _record_suspended(self) -> Pod | None:
        if not self._registry.has_pod(self.id):
            return None
        pod, members = suspended(self._registry.pod(self.id), self._registry.members(self.id))
        self._registry.put_together(pod, *members)
        return pod

    def _put_away(self, job: Job, message: Suspend, pod: Pod | None) -> None:
        if error := failure(job):
            log.error("%s: what it had is not all given back", self.name, exc_info=error)
        self.move(State.SUSPENDED)
        if pod:
            self._tell("suspend", pod)
        message.answer(pod)

    def _tell(self, action: str, pod: Pod) -> None:
        """An event of the pod; of one with one container it is the container's."""
        if not pod.implicit:
            self._publish(action, pod)
            return
        for c in self._registry.members(pod.id):
            self._events.publish("container", action, c.id, of=c.spec.labels, name=c.name, image=c.image)

    # -- resume ---------------------------------------------------------------------------

    def _resume(self, message: Resume) -> None:
        self.move(State.RESUMING)
        self._saving = self.do(message.work(self.runtime), lambda job: self._resumed(job, message), message.context)

    def _resumed(self, job: Job, message: Resume) -> None:
        self._saving = None
        if error := failure(job):
            self.move(State.SUSPENDED)
            message.refuse(error)
            return
        runtime: Runtime = job.result()
        self._own(runtime)
        self.save()
        self._bring_up.recorded(self.id)
        self._tell("resume", self._registry.pod(self.id))
        message.answer(runtime)

    # -- what else is asked of it -----------------------------------------------------------

    def _release_asleep(self, message: Release) -> None:
        """What used it is ended."""
        if self.runtime is None:
            message.answer(False)
        else:
            self._release(message)

    def _down_saving(self, message: Down) -> None:
        """It is given up, and ended then as ever."""
        self.defer(message)
        if self._saving:
            self.end([self._saving])

    def _down_asleep(self, message: Message) -> None:
        """What is on the disk is given up."""
        self._downs.append(message)
        if self.runtime:
            self._end(clean=False)
        else:
            self.move(State.ENDING)
            self.do(self._bring_up.forget(self.id), lambda job: self._ended(job, ""))
