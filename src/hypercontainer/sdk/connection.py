# SPDX-License-Identifier: Apache-2.0
"""A connection to a port within a sandbox, whatever network it has: made by its guest, and carried by hyperd."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..model.frames import STDIN
from .api import Api
from .frames import Frames
from .limits import DEFAULT, Bounded


class AsyncConnection(Bounded):
    """A stream of bytes both ways."""

    def __init__(self, api: Api, container: str, frames: Frames) -> None:
        super().__init__(api, container)
        self._frames = frames

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Both ways, at once."""
        self._frames.close()

    async def read(self, *, timeout: float = DEFAULT) -> bytes:
        """What comes next; b"" when the other side says no more.

        :raise GuestError: nobody listens on that port.
        """
        found = await self._within(timeout, "reading", self._frames.next())
        return found[1] if found else b""

    async def write(self, data: bytes, *, timeout: float = DEFAULT) -> None:
        """Returns when there is room for more."""
        await self._within(timeout, "writing", self._frames.send_input(data))

    async def write_eof(self, *, timeout: float = DEFAULT) -> None:
        """This side says no more."""
        await self._within(timeout, "writing", self._frames.send(STDIN, b""))
