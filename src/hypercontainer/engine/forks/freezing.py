# SPDX-License-Identifier: Apache-2.0
"""Programs that stand still while their pod is saved, and go on whatever becomes of that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ...errors import HyperError, Unavailable
from ...guest.agent import Freeze, require
from ...hypervisor.facets import Severs
from ...model.status import Container, ContainerStatus
from ...sys import deadlines, tasks
from ..runtime import Runtime

log = logging.getLogger(__name__)


async def freeze(runtime: Runtime, members: Sequence[Container], undo: contextlib.AsyncExitStack) -> list[str]:
    """Ids of containers whose programs stand still from now on, until what is undone."""
    agent, found = require(runtime.agent, Freeze), []
    for container in members:
        if container.state.status is ContainerStatus.RUNNING and container.id in runtime.built:
            thaw = partial(_thaw, runtime, container.id)
            undo.push_async_callback(calmly, f"{container.name}, which stood still to be saved, does not go on", thaw)
            await agent.freeze_container(container.id[:12], True)
            found.append(container.id)
    undo.push_async_callback(calmly, "a pod that was saved is not connected again", partial(_connect_again, runtime))
    return found


async def _thaw(runtime: Runtime, container: str) -> None:
    """By the connection that there is by now."""
    await require(runtime.agent, Freeze).freeze_container(container[:12], False)


async def _connect_again(runtime: Runtime) -> None:
    """Where the machine's connections broke, as it was saved, there is another when this returns.

    :raise Unavailable: there is none.
    """
    if not isinstance(runtime.machine, Severs):
        return
    runtime.severed = True
    try:
        if await runtime.machine.severed():
            runtime.renewed.clear()
            runtime.agent.drop()
            await tasks.within(runtime.renewed.wait(), deadlines.WORK)
    except TimeoutError:
        raise Unavailable("the guest takes no other connection") from None
    finally:
        runtime.severed = False
    if runtime.dead:
        raise Unavailable("the guest takes no other connection")


async def calmly(failing: str, ask: Callable[[], Awaitable[None]]) -> None:
    """To the end, and whatever else is to be undone is; `failing` is what the log says."""
    try:
        await tasks.to_the_end(ask())
    except HyperError as error:
        log.warning("%s: %s", failing, error)
