# SPDX-License-Identifier: Apache-2.0
"""NICs that come to a domain while it runs, and go, by xl. Before, and after, the domain has no such device."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence

from ...errors import HyperError, NotFound, Unavailable
from ...sys import deadlines, tasks
from ..driver import TapNetwork
from . import document, tools, vifs

# A guest may have a device that has gone until it has seen that; a next one of the same number it takes for that one,
# and libxl gives the lowest. So each has a number that none had, as far as chance goes, and libvirt, which cannot name
# one, is not asked.
_FIRST, _NUMBERS = 1 << 8, 1 << 14


class ComingNics(ABC):
    """Of a machine: `facets.NicHotplug`. What is known of one is its address."""

    macs: Sequence[str]  # of all its networks, in their order
    _plugging: asyncio.Lock

    @property
    @abstractmethod
    def _domain(self) -> str:
        """Its name."""

    async def _xl(self, verb: str, *words: str, timeout: float = deadlines.MONITOR) -> str:
        """:raise Unavailable: it fails, or there is no such domain any more."""
        try:
            return await tools.ask("xl", verb, self._domain, *words, timeout=timeout)
        except NotFound as error:
            raise Unavailable("the virtual machine has ended") from error

    async def _domid(self) -> int:
        """:raise Unavailable: it has ended."""
        return int(await self._xl("domid"))

    async def plugged(self, nic: int) -> bool:
        found = await vifs.find(await self._domid(), self.macs[nic])
        return found is not None and found.joined

    async def plug_in(self, nic: int, network: TapNetwork) -> None:
        async with self._plugging:
            domid, mac = await self._domid(), self.macs[nic]
            if await vifs.find(domid, mac):
                raise Unavailable(f"network interface {nic} leads somewhere")
            number = _FIRST + secrets.randbelow(_NUMBERS)
            described = [*document.vif(mac, str(tools.binary("true"))), f"devid={number}"]
            try:
                await self._xl("network-attach", *described, timeout=deadlines.WORK)
                await vifs.take_over(domid, {number: network})
                await tools.taken(domid, "vif", number)
            except BaseException:
                with contextlib.suppress(HyperError):
                    await tasks.to_the_end(self._drop_nic(mac))
                raise

    async def pull_out(self, nic: int) -> None:
        async with self._plugging:
            await self._drop_nic(self.macs[nic])

    async def _drop_nic(self, mac: str) -> None:
        domid = await self._domid()
        if found := await vifs.find(domid, mac):
            await self._xl("network-detach", mac, timeout=deadlines.WORK)
            await vifs.gone(domid, found.number)
