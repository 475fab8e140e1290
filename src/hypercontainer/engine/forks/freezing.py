# SPDX-License-Identifier: Apache-2.0
"""Programs that stand still while their pod is saved, and go on whatever becomes of that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ...errors import HyperError
from ...guest.agent import Freeze, require
from ...model.status import Container, ContainerStatus
from ...sys import tasks
from ..runtime import Runtime

log = logging.getLogger(__name__)


async def freeze(runtime: Runtime, members: Sequence[Container], undo: contextlib.AsyncExitStack) -> list[str]:
    """Ids of containers whose programs stand still from now on, until what is undone."""
    agent, found = require(runtime.agent, Freeze), []
    for container in members:
        if container.state.status is ContainerStatus.RUNNING and container.id in runtime.built:
            thaw = partial(agent.freeze_container, container.id[:12], False)
            undo.push_async_callback(calmly, f"{container.name}, which stood still to be saved, does not go on", thaw)
            await agent.freeze_container(container.id[:12], True)
            found.append(container.id)
    return found


async def calmly(failing: str, ask: Callable[[], Awaitable[None]]) -> None:
    """To the end, and whatever else is to be undone is; `failing` is what the log says."""
    try:
        await tasks.to_the_end(ask())
    except HyperError as error:
        log.warning("%s: %s", failing, error)
