# SPDX-License-Identifier: Apache-2.0
"""A builder for each project that builds, and one for what is of none: their caches, and what they build, are apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import UNSET

from ...model.principal import Tenant
from ..naming import is_system
from ..principal import current
from ..registry import Registry
from .builds import Builds


class Builders:
    """Those of one daemon."""

    def __init__(self, registry: Registry, make: Callable[[Tenant], Builds]) -> None:
        self._registry, self._make = registry, make
        self._made: dict[Tenant, Builds] = {}

    def own(self) -> Builds:
        """That of the tenant that asks."""
        return self._of(current().tenant)

    def _of(self, tenant: Tenant) -> Builds:
        if tenant not in self._made:
            self._made[tenant] = self._make(tenant)
        return self._made[tenant]

    def open(self) -> None:
        """At the daemon's start, when containers have been found again."""
        for tenant in {UNSET, *(c.tenant for c in self._registry.containers() if is_system(c))}:
            self._of(tenant).open()

    async def forget(self, tenant: Tenant) -> None:
        """A project goes: its builder ends."""
        if tenant and (found := self._made.get(tenant)):
            await found.machine.stop()
            await found.close()
            del self._made[tenant]

    async def close(self) -> None:
        """No more builds; what runs ends as other containers do, or stays."""
        await asyncio.gather(*(builds.close() for builds in self._made.values()))
