# SPDX-License-Identifier: Apache-2.0
"""A guest's session, for parts of the engine that are tried alone."""

from __future__ import annotations

from typing import Any

from hypercontainer.guest.process import GuestProcessHandle
from hypercontainer.protocol.messages import GuestProcess


class Session:
    """Knows one process."""

    def send_frame(self, type_: int, id_: int, body: bytes) -> None: ...

    async def signal(self, handle: GuestProcessHandle, signal: int, *, everyone: bool = False) -> None: ...

    async def signal_group(self, handle: GuestProcessHandle, signal: int) -> None: ...

    async def resize(self, handle: GuestProcessHandle, rows: int, columns: int) -> None: ...

    async def release(self, handle: GuestProcessHandle) -> None: ...

    def kill_orphan(self, id_: int, offsets: tuple[int, int] = (0, 0)) -> None: ...

    async def start(self, process: GuestProcess, fan_out: Any) -> GuestProcessHandle:
        return GuestProcessHandle(self, 1, fan_out)
