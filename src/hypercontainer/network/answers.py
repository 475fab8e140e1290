# SPDX-License-Identifier: Apache-2.0
"""Whether a pod answers at a port, which this host asks by a connection."""

from __future__ import annotations

import asyncio
import contextlib

_LIMIT = 2.0  # seconds


async def answers(address: str, port: int) -> bool:
    """By TCP; the connection is closed at once."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LIMIT):
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True
    return False
