# SPDX-License-Identifier: Apache-2.0
"""A jail for tests: it keeps the orders, and starts them unconfined, or refuses."""

from __future__ import annotations

from ..errors import Unavailable
from .jail import Born, Entry, Order, Started, ignore
from .plain import PlainJail


class FakeJail:
    """`trouble` is what `hindrance` says, and the reason for which nothing starts."""

    confines = True

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble
        self.orders: list[Order] = []
        self.added: list[tuple[Started, Entry]] = []

    def hindrance(self) -> str:
        return self.trouble

    async def spawn(self, order: Order, born: Born = ignore) -> Started:
        if self.trouble:
            raise Unavailable(self.trouble)
        self.orders.append(order)
        return await PlainJail().spawn(order, born)

    async def add(self, started: Started, entry: Entry) -> None:
        if self.trouble:
            raise Unavailable(self.trouble)
        self.added.append((started, entry))

    async def remove(self, started: Started, place: str) -> None:
        self.added = [(whose, entry) for whose, entry in self.added if (whose, entry.place) != (started, place)]

    async def cover(self, started: Started, entry: Entry) -> None:
        await self.add(started, entry)

    async def uncover(self, started: Started, place: str) -> None:
        await self.remove(started, place)
