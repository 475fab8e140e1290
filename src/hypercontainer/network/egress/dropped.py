# SPDX-License-Identifier: Apache-2.0
"""Packets of pods with an egress policy that the host's rules drop: what they were, as the kernel has counted them.

The rules have a set of how many there were of each pod, and one of what they were, to which a pod adds a few a second
at most (`network_rules`). Both are read as long as there is such a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import Unavailable
from .. import nftables
from ..network_rules import REFUSED, REFUSING

log = logging.getLogger(__name__)
PERIOD = 2.0  # seconds
_COUNT = re.compile(r"([0-9.]+) counter packets (\d+) ")
_KIND = re.compile(r"([0-9.]+) \. ([0-9.]+) \. ([\w-]+) \. (\d+) counter packets (\d+) ")


@dataclass(frozen=True)
class Drop:
    """Packets of one kind."""

    source: str
    destination: str
    protocol: str  # as nft names it, or its number
    port: int  # 0: the protocol has none


def counts(text: str) -> dict[str, int]:
    """Packets by the addresses that they are from, of what nft lists."""
    return {source: int(n) for source, n in _COUNT.findall(text)}


def kinds(text: str) -> dict[Drop, int]:
    """Packets by their kinds, of what nft lists."""
    return {Drop(source, to, protocol, int(port)): int(n) for source, to, protocol, port, n in _KIND.findall(text)}


class Dropped:
    """Reads them."""

    def __init__(self, counted: Callable[[str, int], None], dropped: Callable[[Drop], None]) -> None:
        """`counted` gets further packets of an address, `dropped` each kind of which there were further ones."""
        self._counted = counted
        self._dropped = dropped
        self._counts: dict[str, int] = {}
        self._kinds: dict[Drop, int] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, wanted: bool) -> None:
        """From now on, or no more."""
        if wanted and self._task is None:
            self._task = asyncio.ensure_future(self._watch())
        elif not wanted and self._task:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            with contextlib.suppress(Unavailable):  # somebody has flushed them: the next change of rules tells
                await self.read()

    async def read(self) -> None:
        """:raise Unavailable: nftables does not tell."""
        now = counts(await nftables.apply(f"list set {REFUSING}"))
        for source, number in now.items():
            before = self._counts.get(source, 0)
            if number != before:  # with new tables they begin anew
                self._counted(source, number - before if number > before else number)
        self._counts = now
        found = kinds(await nftables.apply(f"list set {REFUSED}"))
        for drop, number in found.items():
            if number != self._kinds.get(drop):
                self._dropped(drop)
        self._kinds = found
