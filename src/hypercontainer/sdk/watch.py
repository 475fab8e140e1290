# SPDX-License-Identifier: Apache-2.0
"""Changes of files in a sandbox, as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import msgspec

from ..client.base import raise_known
from ..model.files import FileChange
from .api import Api
from .exchange import Exchange
from .limits import LONG, Bounded, Deadline


class AsyncWatch(Bounded):
    """A directory that is watched, until this is closed or the directory has gone."""

    def __init__(self, api: Api, container: str, exchange: Exchange) -> None:
        super().__init__(api, container)
        self._exchange = exchange
        self._lines = aiter(exchange.lines())
        self._coming: asyncio.Task[bytes | None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        if self._coming:
            self._coming.cancel()
        self._exchange.close()

    def __aiter__(self) -> AsyncIterator[FileChange]:
        return self.changes()

    async def changes(self, *, timeout: float = LONG) -> AsyncIterator[FileChange]:
        """As they happen; of several that are alike some may be told as one. `timeout`: seconds in all.

        :raise DeadlineExceeded: the time is over. :raise Unavailable: the sandbox has ended.
        """
        deadline = Deadline(timeout)
        while (line := await self._within(deadline, "the watch", self._next())) is not None:
            found: dict[str, Any] = msgspec.json.decode(line)
            if "error" in found:
                raise_known(found["error"])
            yield msgspec.convert(found, FileChange)

    async def _next(self) -> bytes | None:
        """A call that is given up has taken nothing: the next one has what came meanwhile."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._line())
        line = await asyncio.shield(self._coming)
        self._coming = None
        return line

    async def _line(self) -> bytes | None:
        return await anext(self._lines, None)
