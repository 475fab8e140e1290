# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests that are read as a whole: each bounded in size and time, and all together in memory."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ..errors import Unavailable

BODY_MAX = 16 << 20  # bytes of a JSON body; archives are streamed and have no limit
_HELD_MAX = 64 << 20  # bytes of all that are being read
_SMALL = 64 << 10  # bytes of each that are free: whoever sends little is not kept out by those who send much
_TIME = 30.0  # seconds


class Bodies:
    """Counts what is in memory of bodies that have not come as a whole."""

    def __init__(self, *, held_max: int = _HELD_MAX, time: float = _TIME) -> None:
        self._held = 0
        self._held_max = held_max
        self._time = time

    async def read(self, request: web.Request, most: int = BODY_MAX) -> bytes:
        """The whole body.

        :raise web.HTTPRequestEntityTooLarge: it has more than `most` bytes. :raise web.HTTPRequestTimeout: it does
        not come. :raise Unavailable: too much is being read at once.
        """
        found, counted = bytearray(), 0
        try:
            async with asyncio.timeout(self._time):
                async for piece in request.content.iter_any():
                    found += piece
                    if len(found) > most:
                        raise web.HTTPRequestEntityTooLarge(most, len(found))
                    if len(found) > _SMALL:
                        self._held += len(found) - counted
                        counted = len(found)
                        if self._held > self._held_max:
                            raise Unavailable("too many large requests come at once", hint="try again in a moment")
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        finally:
            self._held -= counted
        return bytes(found)


BODIES = web.AppKey("bodies", Bodies)
