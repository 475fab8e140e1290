# SPDX-License-Identifier: Apache-2.0
"""The start of a pod: init containers in turn, then the rest as their dependencies allow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

from ..errors import HyperError, InvalidState
from ..model.specs import Dependency
from ..model.states import ALIVE
from ..model.status import Container, ContainerStatus
from .containers import Containers
from .logs import read
from .plan import find
from .registry import Registry

_CRASHES = 5  # ends of a container that others wait for to be healthy, until nobody waits any more
_LINES = 5  # of a failed container's log in the error message


class Startup:
    """Brings the containers of one pod up."""

    def __init__(self, registry: Registry, containers: Containers) -> None:
        self._registry = registry
        self._containers = containers

    async def run(self, pod_id: str) -> None:
        """:raise StartFailed: which container failed, and why."""
        members = self._registry.members(pod_id)
        if not any(c.state.status in ALIVE for c in members if not c.spec.init):
            for container in members:
                if container.spec.init:
                    await self._run_to_end(container)
        try:
            async with asyncio.TaskGroup() as group:
                for container in members:
                    if not container.spec.init and container.state.status not in ALIVE:
                        group.create_task(self._start_in_turn(container))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _run_to_end(self, container: Container) -> None:
        await self._start(container)
        await self._wait_ended(container)
        state = self._registry.container(container.id).state
        if state.exit_code:
            raise InvalidState(
                f"init container {container.name} ended with status {state.exit_code}"
                + self._last_words(container, state.error),
                hint=f"see `hyperctl logs {container.name}`",
            )

    async def _wait_ended(self, container: Container) -> None:
        """Until it has ended and is not started again."""
        while True:
            changed = self._registry.changed
            if self._registry.container(container.id).state.status not in ALIVE:
                return
            await changed.wait()

    async def _start_in_turn(self, container: Container) -> None:
        for dependency in container.spec.depends_on:
            await self._await(container, dependency)
        await self._start(container)

    async def _start(self, container: Container) -> None:
        try:
            await self._containers.start(container.id)
        except HyperError as error:
            error.message = f"container {container.name}: {error.message}"
            raise

    async def _await(self, container: Container, dependency: Dependency) -> None:
        other = find(self._registry.members(container.pod), dependency.container)
        if other is None:
            raise InvalidState(
                f"container {container.name} waits for {dependency.container}, which the pod does not have any more",
                hint="remove it too, or create the pod anew",
            )
        ends: set[str] = set()
        while True:
            changed = self._registry.changed
            present = self._registry.container(other.id)
            if self._fulfilled(container, present, dependency):
                return
            if present.state.status is ContainerStatus.RESTARTING:
                ends.add(present.state.finished_at)
            if dependency.condition == "healthy" and len(ends) >= _CRASHES:
                self._give_up(
                    container,
                    present,
                    dependency,
                    f"it ended {len(ends)} times, at last with status {present.state.exit_code}",
                )
            await changed.wait()

    def _fulfilled(self, container: Container, other: Container, dependency: Dependency) -> bool:
        """:raise InvalidState: when it never will be."""
        state, condition = other.state, dependency.condition
        began = self._registry.pod(other.pod).started_at  # what happened before is of an earlier life of the pod
        ended = state.status is ContainerStatus.EXITED and state.finished_at >= began
        why = ""
        if condition == "started":
            return state.status in ALIVE or (ended and state.started_at >= began)
        if condition == "completed":
            if ended and state.exit_code == 0:
                return True
            why = f"it ended with status {state.exit_code}" if ended else ""
        else:
            health = state.health.status if state.health else ""
            if state.status is ContainerStatus.RUNNING and health == "healthy":
                return True
            if other.health is None:
                why = "it has no health check"
            elif ended:
                why = f"it ended with status {state.exit_code}"
            elif health == "unhealthy":
                last = state.health.log[-1].output.strip() if state.health and state.health.log else ""
                why = f"it is unhealthy: {last}"
        if why:
            self._give_up(container, other, dependency, why)
        return False

    def _give_up(self, container: Container, other: Container, dependency: Dependency, why: str) -> NoReturn:
        raise InvalidState(
            f"container {container.name} waits for {other.name} to be {dependency.condition}, but {why}"
            + self._last_words(other, ""),
            hint=f"see `hyperctl logs {other.name}`",
        )

    def _last_words(self, container: Container, error: str) -> str:
        lines = [r.log.strip() for r in read(Path(container.log_path), tail=_LINES)]
        words = error or "; ".join(line for line in lines if line)
        return f": {words}" if words else ""
