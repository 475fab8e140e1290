# SPDX-License-Identifier: Apache-2.0
"""A connection to a port within a sandbox, whatever network it has: made by its guest, and carried by hyperd."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from .api import Api
from .frames import STDIN, Frames
from .limits import DEFAULT, Deadline, within


class AsyncConnection:
    """A stream of bytes both ways."""

    def __init__(self, api: Api, container: str, frames: Frames) -> None:
        self._api = api
        self._container = container
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
        found = await within(self._api, self._container, Deadline(timeout), "reading", self._frames.next())
        return found[1] if found else b""

    async def write(self, data: bytes, *, timeout: float = DEFAULT) -> None:
        """Returns when there is room for more."""
        await within(self._api, self._container, Deadline(timeout), "writing", self._frames.send_input(data))

    async def write_eof(self, *, timeout: float = DEFAULT) -> None:
        """This side says no more."""
        await within(self._api, self._container, Deadline(timeout), "writing", self._frames.send(STDIN, b""))
