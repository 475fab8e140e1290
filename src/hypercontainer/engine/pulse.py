# SPDX-License-Identifier: Apache-2.0
"""Whether a guest lives: it is asked again and again, and one that is silent for long is told as such."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from ..errors import DeadlineExceeded, HyperError
from ..sys import clock, deadlines
from .events import Events
from .registry import Registry
from .runtime import Runtime

log = logging.getLogger(__name__)


async def follow_pulse(
    pod_id: str, runtime: Runtime, awake: Callable[[], bool], registry: Registry, events: Events, *, kill: bool,
    look: Callable[[], Awaitable[None]],
) -> None:  # fmt: skip
    """For as long as the machine is up; `awake` says whether its guest can answer; `kill` ends a silent one.

    `look` is called while it answers: at what of it else may be ill.
    """
    answered = clock.seconds()
    while True:
        await asyncio.sleep(deadlines.PULSE)
        if not awake() or runtime.stalled or runtime.saving.locked():
            answered = clock.seconds()
            continue
        try:
            await runtime.agent.stats()
            answered = clock.seconds()
            _record(pod_id, registry, events, alive=True)
            await look()
        except DeadlineExceeded:
            if clock.seconds() - answered < deadlines.SILENT:
                continue
            _record(pod_id, registry, events, alive=False)
            if kill:
                name = registry.pod(pod_id).name
                log.warning("the machine of pod %s has not answered for %g s, and is killed", name, deadlines.SILENT)
                await runtime.machine.kill()
                return
        except HyperError:  # its connection has ended, which others see to
            continue


def _record(pod_id: str, registry: Registry, events: Events, *, alive: bool) -> None:
    for c in registry.members(pod_id):
        if c.state.unresponsive is alive:
            registry.put(msgspec.structs.replace(c, state=msgspec.structs.replace(c.state, unresponsive=not alive)))
            action = "responsive" if alive else "unresponsive"
            events.publish("container", action, c.id, name=c.name, image=c.image)
