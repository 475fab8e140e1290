# SPDX-License-Identifier: Apache-2.0
"""What a container's supervisor knows: its state, its record, and what belongs to the present run."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..model.states import ALIVE
from ..model.status import Container, ContainerStatus
from .container_verbs import Borrow, Kill, Start, State, Stop
from .events import Events
from .files import ContainerFiles
from .health import HealthMonitor
from .registry import Registry
from .run import Outcome, Run, lost
from .runtime import Runtime
from .sandboxes import Sandboxes
from .supervisor import Job, Supervisor

log = logging.getLogger(__name__)


@dataclass
class Present:
    """What belongs to the present start, run and end."""

    run: Run | None = None
    outcome: Outcome = field(default_factory=lambda: lost("its end is not known"))
    delay: float = 0.0  # seconds that were waited before the present run
    launch: Job | None = None  # a first start, or another by the policy, or the wait before it
    freeze: Job | None = None
    checks: list[Job] = field(default_factory=list)
    hasten: asyncio.Event = field(default_factory=asyncio.Event)  # the grace is over
    starts: list[Start] = field(default_factory=list)  # to be answered when it runs, or has failed to
    kills: list[Kill] = field(default_factory=list)  # to be answered when it has ended
    stops: list[Stop] = field(default_factory=list)  # to be answered when its machine has been given back
    error: BaseException | None = None  # why it could not be started


class ContainerState(Supervisor[State]):
    """One container. What others wait for: `stopped`, `removed`, and `fanout`, its output."""

    def __init__(
        self, container: Container, registry: Registry, sandboxes: Sandboxes, events: Events, health: HealthMonitor,
        files: ContainerFiles,
    ) -> None:  # fmt: skip
        super().__init__(f"container {container.name}", _initial(container))
        self.id = container.id
        self._last = container
        self._registry = registry
        self._sandboxes = sandboxes
        self._events = events
        self._health = health
        self._files = files
        self._pod = container.pod
        self._now = Present()
        self._borrower: Borrow | None = None
        self._lent_from = State.EXITED
        self.fan_out = files.fan_out(container)
        self.fan_out.told = self._log_told
        self.runtime: Runtime | None = None  # while it runs
        self.stopped = asyncio.Event()  # not running; its exit code is in the record
        if self.state is not State.REATTACHING:
            self.stopped.set()
        self.next_end = asyncio.Event()  # of the run that is, or the next one; another event takes its place then
        self.removed = asyncio.Event()
        self.error = container.state.error  # why it ended, when that was not the program
        self.exit_code = container.state.exit_code  # kept here too: with auto_remove the record goes first
        self.ran = True  # whether the last start came to a run: who asked for it is told why not, and nobody else
        self.at_rest = asyncio.Event()  # what its last run had has been given back
        self.stop_requested = asyncio.Event()  # no restart, whatever the policy
        self._replaced = False  # a restart, whatever the policy

    @property
    def container(self) -> Container:
        """Its record, or the last that it had."""
        if self._registry.exists(self.id):
            self._last = self._registry.container(self.id)
        return self._last

    @property
    def starting(self) -> bool:
        """Whether a start is under way, its policy's too."""
        return self.state is State.STARTING or (self.state is State.RESTARTING and self._now.run is None)

    def publish(self, action: str, container: Container, **attributes: str) -> None:
        self._events.publish(
            "container", action, container.id, of=container.spec.labels, name=container.name, image=container.image,
            **attributes,
        )  # fmt: skip

    def _set_state(self, state: State, **record: Any) -> Container:
        """Memory first, then the record; who is told reads the record."""
        self.move(state)
        return self._update(**record) if record else self.container

    def _update(self, **changes: Any) -> Container:
        """What is wrong with a record never ends what owns the thing."""
        container = self.container
        try:
            changed = msgspec.structs.replace(container, state=msgspec.structs.replace(container.state, **changes))
            self._registry.put(changed)
        except Exception:
            log.exception("%s: %s is not recorded", self.name, ", ".join(changes))
            return container
        return changed

    def _log_told(self, error: str) -> None:
        """Its log cannot be written, or can again."""
        if error == self.container.state.log_error:
            return
        if error:
            log.warning("%s: its log cannot be written, and is tried again: %s", self.name, error)
        if self._registry.exists(self.id):
            container = self._update(log_error=error)
            self.publish("log_failed", container, error=error) if error else self.publish("log_written", container)

    def _tell_end(self) -> None:
        """To all who wait; what is known of it is written down by now."""
        self.stopped.set()
        ended, self.next_end = self.next_end, asyncio.Event()
        ended.set()

    def _on_removed(self) -> None:
        if self.removed.is_set():
            return
        self._files.forget(self.id)
        self.fan_out.discard()
        self.removed.set()
        self._tell_end()
        self.publish("destroy", self._last)


def _initial(container: Container) -> State:
    if container.state.status in ALIVE:
        return State.REATTACHING
    return State.EXITED if container.state.status is ContainerStatus.EXITED else State.CREATED
