# SPDX-License-Identifier: Apache-2.0
"""The REST API as methods of asyncio; answers are the model's types. A daemon is started where none was named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import msgspec

from ..client import autostart
from ..client.base import default_socket, parameters, raise_error, target
from ..errors import Unavailable
from .exchange import SWITCHING, Body, Exchange, connect

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]
_starting = threading.Lock()  # one daemon is started, whatever number of loops ask for it


class Api:
    """A hyperd. It holds nothing: each call has a connection of its own."""

    def __init__(self, host: str | None = None) -> None:
        """`host` is a socket's path or tcp://ADDRESS:PORT; None: HYPER_HOST, else this user's own, which is started."""
        self._starts = not host and not os.environ.get("HYPER_HOST")
        self.path = (host or default_socket()).removeprefix("unix://")

    async def _connect(self) -> Exchange:
        try:
            return Exchange(*await connect(self.path))
        except Unavailable:
            if not self._starts:
                raise
        await asyncio.to_thread(self._start)
        return Exchange(*await connect(self.path))

    def _start(self) -> None:
        """Unless another did meanwhile, of this process or of another one."""
        with _starting:
            if _answers(self.path):
                return
            try:
                autostart.start()
            except Unavailable:
                if not _answers(self.path):
                    raise

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, route: str, query: Query | None = None, *, body: Body = b"",
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Exchange]:  # fmt: skip
        """An answer whose body is the caller's to read; errors are raised."""
        async with await self.opened(method, route, query, body=body, headers=headers) as exchange:
            yield exchange

    async def opened(
        self, method: str, route: str, query: Query | None = None, *, body: Body = b"",
        headers: dict[str, str] | None = None,
    ) -> Exchange:  # fmt: skip
        """`open`, for who closes it by himself."""
        exchange = await self._connect()
        try:
            await exchange.request(method, target(route, parameters(query)), headers or {}, body)
            if exchange.status >= 400:
                raise_error(await exchange.read(), exchange.status)
        except BaseException:
            exchange.close()
            raise
        return exchange

    async def call(self, type_: type[T], method: str, route: str, query: Query | None = None, body: Any = None) -> T:
        """A JSON answer as `type_`."""
        raw = b"" if body is None else msgspec.json.encode(body)
        async with self.open(method, route, query, body=raw) as exchange:
            return msgspec.json.decode(await exchange.read(), type=type_)

    async def do(self, method: str, route: str, query: Query | None = None, body: Any = None) -> None:
        """A call whose answer does not matter."""
        async with self.open(method, route, query, body=b"" if body is None else msgspec.json.encode(body)) as exchange:
            await exchange.read()

    async def upgrade(self, route: str, query: Query | None = None, body: Any = None) -> Exchange:
        """A connection that is no HTTP any more; who gets it closes it."""
        raw = b"" if body is None else msgspec.json.encode(body)
        fields = {"Connection": "Upgrade", "Upgrade": "tcp"}
        exchange = await self.opened("POST", route, query, body=raw, headers=fields)
        if exchange.status != SWITCHING:
            exchange.close()
            raise Unavailable(f"hyperd did not upgrade the connection (status {exchange.status})")
        return exchange


def _answers(path: str) -> bool:
    """Whether somebody listens there."""
    from ..client.transport import Connection

    with contextlib.suppress(Unavailable):
        Connection(path).sock.close()
        return True
    return False
