# SPDX-License-Identifier: Apache-2.0
"""What containers wrote, read from their logs while these grow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

from ..model.status import ContainerStatus
from ..sys import tasks
from .attachments import check_readable
from .containers import Containers
from .log_read import LogReader, LogRecord
from .registry import Registry


class ContainerLogs:
    """Of all containers."""

    def __init__(self, registry: Registry, containers: Containers) -> None:
        self._registry = registry
        self._containers = containers

    async def read(
        self, key: str, *, tail: int | None, since: str, until: str, follow: bool
    ) -> AsyncGenerator[list[LogRecord], None]:
        """A container's log; with `follow` also what is added until the container ends. Times as RFC 3339, "" is any.

        :raise Unsupported: nothing of it is kept on this host.
        """
        container = self._registry.container(key)
        check_readable(container)
        owner = self._containers.supervisor(container)
        reader = LogReader(Path(container.log_path), since=since, until=until, at_end=tail == 0)
        owner.fan_out.followers += follow
        try:
            if tail:
                await tasks.in_thread(lambda: reader.seek(tail))
            while True:
                changed, over = owner.fan_out.changed, owner.stopped.is_set() and not self._starts_again(container.id)
                while (records := await tasks.in_thread(reader.read)) is not None:
                    yield records
                if not follow:
                    return
                if reader.turn():
                    continue
                if over:
                    return
                await changed.wait()
        finally:
            owner.fan_out.followers -= follow
            reader.close()

    def _starts_again(self, id_: str) -> bool:
        return self._registry.exists(id_) and self._registry.container(id_).state.status is ContainerStatus.RESTARTING
