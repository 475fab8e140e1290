# SPDX-License-Identifier: Apache-2.0
"""Metering as the engine has it: made, opened and closed with it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any

from msgspec import UNSET

from ...images.store import ImageStore
from ...model.metering import LedgerCheck, Usage
from ...model.principal import Tenant
from ...sys import tasks
from ..events import Events
from ..forks.saved import size_of
from ..forks.snapshots import PodSnapshots
from ..registry import Registry
from ..settings import Settings
from ..tenants import Tenants
from .measures import Measures
from .meter import Meter
from .rights import whose
from .sources import Sources
from .sums import By, Sums
from .watch import Watch


class Accounts:
    """What is used, and was."""

    def __init__(
        self, settings: Settings, registry: Registry, images: ImageStore, snapshots: PodSnapshots, tenants: Tenants,
        events: Events,
    ) -> None:  # fmt: skip
        self._paths = paths = settings.paths
        self._registry = registry
        self._tenants = tenants
        self._alone = settings.metering
        sources = Sources(
            active=lambda: self._alone or bool(tenants.projects()), wanted=self._is_wanted, payer=self._payer,
            tenants=self._metered, last_write=self._last_write, suspended=lambda id_: size_of(paths.suspended(id_)),
        )  # fmt: skip
        self.meter = Meter(registry.journal, sources)
        registry.meter = self.meter
        self.sums = Sums(registry.journal.database, self.meter, self._name)
        self._watch = Watch(
            self.meter, Measures(paths, registry, images, snapshots.documents, sources), registry, events, sources
        )
        self.ending = self._watch.ending

    def _is_wanted(self, tenant: Tenant) -> bool:
        return self._alone or bool(tenant)

    def _metered(self) -> list[Tenant]:
        return [*([UNSET] if self._alone else []), *(p.id for p in self._tenants.projects())]

    def _payer(self, tenant: Tenant) -> str:
        project = self._tenants.project(tenant)
        return project.organisation if project else ""

    def _name(self, id_: str) -> str:
        """Of a project or an organisation that is there still."""
        names = {o.id: o.name for o in self._tenants.organisations()} | {p.id: p.name for p in self._tenants.projects()}
        return names.get(id_, id_)

    def usage(self, since: int, until: int | None, by: Collection[By], organisation: str = "") -> Usage:
        """Of what who asks may see: all, an organisation's, or a project's.

        :raise InvalidArgument: it ends before it begins, or is to be divided by what it has not.
        :raise NotFound: no such organisation. :raise PermissionDenied: they may not see what it uses.
        """
        return self.sums.usage(since, until, by, whose(self._tenants, organisation))

    def _last_write(self, pod_id: str) -> int:
        """By its containers, to their own disks."""
        return max((_written(self._paths.scratch(c.id)) for c in self._registry.members(pod_id)), default=0)

    def open(self) -> None:
        """Before what an earlier daemon left is recovered."""
        self.meter.open()

    def run(self) -> Coroutine[Any, Any, None]:
        """When it is: what records say is metered from now on."""
        self.meter.reconcile([*self._registry.pods(), *self._registry.volumes()])
        return self._watch.run()

    def close(self) -> None:
        """What goes on without a daemon is known to have been there now."""
        self.meter.mark()

    async def check(self) -> LedgerCheck:
        """Whether the ledger is whole."""
        count, wrong = await tasks.in_thread(self._registry.journal.database.check_uses)
        return LedgerCheck(entries=count, wrong=wrong)


def _written(path: Path) -> int:
    """Milliseconds since the epoch; 0: it is not there."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns // 1_000_000
    return 0
