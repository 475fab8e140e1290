# SPDX-License-Identifier: Apache-2.0
"""The build cache, which is dockerd's: what it has, and what of it goes. Without one no builder starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import Unavailable
from ...model.usage import BuildCacheUsage
from ..events import Events
from .dockerd import ANOTHER, Query
from .machine import BuilderMachine

Ask = Callable[[str, str, Query], Awaitable[Any]]
_ODD = "what the builder says of its cache is not understood"


class BuildCache:
    """Asks the builder's dockerd."""

    def __init__(self, ask: Ask, machine: BuilderMachine, events: Events) -> None:
        self._ask = ask
        self._machine = machine
        self._events = events

    async def records(self) -> list[dict[str, Any]]:
        """What it has, as dockerd says it; nothing while no builder runs. :raise HyperError: why it cannot be told."""
        if not self._machine.running:
            return []
        found = _document(await self._ask("GET", "/system/df", [("type", "build-cache")])).get("BuildCache") or []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise Unavailable(_ODD, hint=ANOTHER)
        return found

    async def measure(self) -> BuildCacheUsage:
        """How much it takes, as Docker's client counts it. :raise HyperError: why it cannot be told."""
        records = await self.records()
        own = [each for each in records if not each.get("Shared")]
        return BuildCacheUsage(
            records=len(records),
            active=sum(bool(each.get("InUse")) for each in records),
            size=sum(_whole(each.get("Size")) for each in own),
            reclaimable=sum(_whole(each.get("Size")) for each in own if not each.get("InUse")),
        )

    async def prune(self, query: Query) -> dict[str, Any]:
        """Remove what no build uses, and of that what the query says; Docker's answer.

        :raise HyperError: there is no builder, or it says why not.
        """
        if not self._machine.running and not self._machine.has_cache:
            return {"CachesDeleted": None, "SpaceReclaimed": 0}
        found = _document(await self._ask("POST", "/build/prune", query))
        self._events.pruned("builder", _whole(found.get("SpaceReclaimed")))
        return found

    async def free(self, *, everything: bool) -> int:
        """Remove what no build uses, or only what was not used lately; bytes that are free now.

        :raise HyperError: as `prune`.
        """
        return _whole((await self.prune([("all", "1")] if everything else [])).get("SpaceReclaimed"))


def _document(found: Any) -> dict[str, Any]:
    """:raise Unavailable: it is none."""
    if not isinstance(found, dict):
        raise Unavailable(_ODD, hint=ANOTHER)
    return found


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
