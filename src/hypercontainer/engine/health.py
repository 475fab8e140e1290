# SPDX-License-Identifier: Apache-2.0
"""Health checks: Docker's commands, and HTTP and TCP from inside the pod.

starting ──ok──► healthy ◄──ok── unhealthy
    └─ `retries` failures after the start period ─┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from ..errors import HyperError
from ..model.specs import ExecSpec, HealthCheck
from ..model.status import Container, ContainerStatus, Health, HealthRecord, PodStatus
from ..model.units import SECONDS_MAX
from ..protocol.constants import Builtin
from ..protocol.messages import GuestProcess
from ..sys import clock
from . import resolve
from .builtins import run_process
from .events import Events
from .registry import Registry
from .runtime import Runtime

_KEPT = 5  # results in the record
_OUTPUT_MAX = 4096  # bytes of a check's output, as Docker keeps
_NANOSECOND = 1e-9
_RETRIES_MAX = 1 << 31


def of_image(config: dict[str, Any]) -> HealthCheck | None:
    """The image's HEALTHCHECK (github.com/moby/docker-image-spec, `Healthcheck`)."""
    raw = config.get("Healthcheck") or {}
    test = raw.get("Test") if isinstance(raw, dict) else None
    if not isinstance(test, list) or len(test) < 2 or not all(isinstance(t, str) for t in test):  # NONE among them
        return None
    command = ["/bin/sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
    default = HealthCheck(command=command)

    retries = raw.get("Retries")

    def seconds(key: str, otherwise: float) -> float:
        value = raw.get(key)
        given = value * _NANOSECOND if isinstance(value, (int, float)) else 0
        return given if 0 < given <= SECONDS_MAX else otherwise

    return HealthCheck(
        command=command,
        interval=seconds("Interval", default.interval),
        timeout=seconds("Timeout", default.timeout),
        start_period=seconds("StartPeriod", default.start_period),
        start_interval=seconds("StartInterval", default.start_interval),
        retries=retries if isinstance(retries, int) and 0 < retries <= _RETRIES_MAX else default.retries,
    )


class HealthMonitor:
    """Runs the checks of running containers."""

    def __init__(self, registry: Registry, events: Events) -> None:
        self._registry = registry
        self._events = events

    def checks(
        self, container: Container, runtime: Runtime, replace: Callable[[], None]
    ) -> list[Coroutine[Any, Any, None]]:
        """One loop per check, until cancelled; `replace` restarts a container that its liveness check found dead."""
        loops = []
        if container.health:
            loops.append(self._follow_health(container, runtime, container.health))
        if container.spec.liveness:
            loops.append(self._follow_liveness(container, runtime, container.spec.liveness, replace))
        return loops

    async def _follow_health(self, container: Container, runtime: Runtime, check: HealthCheck) -> None:
        began = clock.seconds()
        while True:
            health = self._health(container)
            in_start = clock.seconds() - began < check.start_period and health.status == "starting"
            await asyncio.sleep(check.start_interval if in_start else check.interval)
            result = await self._probe(container, runtime, check)
            if result is None:
                continue
            in_start = clock.seconds() - began < check.start_period
            self._record(container, check, result, forgiven=in_start)

    async def _follow_liveness(
        self, container: Container, runtime: Runtime, check: HealthCheck, replace: Callable[[], None]
    ) -> None:
        await asyncio.sleep(check.start_period)
        failures = 0
        while True:
            await asyncio.sleep(check.interval)
            result = await self._probe(container, runtime, check)
            if result is None:
                continue
            failures = failures + 1 if result.exit_code else 0
            if failures >= check.retries:
                self._events.publish(
                    "container", "liveness: failed", container.id, name=container.name, output=result.output
                )
                replace()
                return

    async def _probe(self, container: Container, runtime: Runtime, check: HealthCheck) -> HealthRecord | None:
        """None: it, or its pod, is paused, which says nothing of its health."""
        if self._paused(container):
            return None
        result = await _probe(container, runtime, check)
        return None if self._paused(container) else result

    def _paused(self, container: Container) -> bool:
        present = self._registry.container(container.id)
        still = (PodStatus.PAUSED, PodStatus.SUSPENDED)
        return present.state.status is ContainerStatus.PAUSED or self._registry.pod(present.pod).status in still

    def _health(self, container: Container) -> Health:
        return self._registry.container(container.id).state.health or Health()

    def _record(self, container: Container, check: HealthCheck, result: HealthRecord, *, forgiven: bool) -> None:
        before = self._health(container)
        streak, status = before.failing_streak, before.status
        if result.exit_code == 0:
            streak, status = 0, "healthy"
        elif not (forgiven and status == "starting"):
            streak += 1
            status = "unhealthy" if streak >= check.retries else status
        health = Health(status=status, failing_streak=streak, log=[*before.log, result][-_KEPT:])
        present = self._registry.container(container.id)
        self._registry.put(
            msgspec.structs.replace(present, state=msgspec.structs.replace(present.state, health=health))
        )
        if status != before.status:
            self._events.publish(
                "container", f"health_status: {status}", container.id, of=container.spec.labels, name=container.name,
                image=container.image,
            )  # fmt: skip


async def _probe(container: Container, runtime: Runtime, check: HealthCheck) -> HealthRecord:
    began = clock.stamp()
    try:
        done = await run_process(runtime.agent, _process(container, check), timeout=check.timeout, keep=_OUTPUT_MAX)
        code, output = done.status, done.output.decode(errors="replace") + done.errors
    except TimeoutError:
        code, output = -1, f"the check did not end within {check.timeout:g} s"
    except HyperError as error:
        code, output = -1, error.message
    return HealthRecord(started_at=began, ended_at=clock.stamp(), exit_code=code, output=output[:_OUTPUT_MAX])


def _process(container: Container, check: HealthCheck) -> GuestProcess:
    if check.command is not None:
        return resolve.exec_process(container, ExecSpec(command=check.command), (0, 0))
    limit = str(int(check.timeout * 1000))
    if check.tcp is not None:
        return GuestProcess(args=(check.tcp.address, str(check.tcp.port), limit), builtin=Builtin.TCP)
    assert check.http is not None
    headers = tuple(f"{k}: {v}" for k, v in check.http.headers.items())
    return GuestProcess(
        args=(check.http.address, str(check.http.port), limit, check.http.path, *headers), builtin=Builtin.HTTP
    )
