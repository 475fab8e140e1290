# SPDX-License-Identifier: Apache-2.0
"""Metering as the engine has it: made, opened and closed with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import UNSET

from ...errors import PermissionDenied
from ...images.store import ImageStore
from ...model.billing import AccountInfo, AccountRequest, CreditRequest, Invoice
from ...model.metering import EVERYBODY, LedgerCheck, Usage, Whose
from ...model.principal import NOWHERE, Tenant
from ...model.statistics import EgressStats
from ...model.status import Pod
from ...model.tenancy import Organisation
from ...sys import tasks
from ..containers import Containers
from ..events import Events
from ..forks.saved import size_of
from ..forks.suspensions import Suspensions
from ..metered import Metered
from ..pods import Pods
from ..principal import current
from ..registry import Registry
from ..settings import Settings
from ..tenancy import rights
from ..tenants import Tenants
from .billing.bills import Bills, read_month, this_month
from .billing.enforcement import Enforcement
from .collecting import Collector
from .exposition import Balance, PodEgress, expose
from .intervals import this_month as month_began
from .measures import Measures
from .meter import Meter
from .rights import audited, audits, whose
from .sources import Sources
from .sums import By, Sums
from .telling import Telling
from .watch import Watch

_GRACE = 60  # seconds that a container is given at most that is stopped for want of credit


class Accounts:
    """What is used, and was."""

    def __init__(
        self, settings: Settings, registry: Registry, images: ImageStore, tenants: Tenants, events: Events
    ) -> None:
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
        self.sums = Sums(registry.journal.database, self.meter, tenants.name)
        quotas = registry.quotas
        measures = Measures(registry, images, quotas.snapshots, quotas.snapshot_bytes, sources)
        self._watch = Watch(self.meter, measures, registry, events, sources)
        self.ending = self._watch.ending
        self.bills = Bills(registry.journal, tenants, self.meter, self.sums)
        self.enforcement = Enforcement(self.bills, tenants, registry, events)
        tenants.write_removal = self.enforcement.bill_last
        self.telling = Telling(registry.journal, self.meter)
        ports = settings.cluster
        self.collector = Collector(ports.ledgers, self.meter, self._payer, self.telling.name) if ports else None

    def _is_wanted(self, tenant: Tenant) -> bool:
        return self._alone or bool(tenant)

    def _metered(self) -> list[Tenant]:
        return [*([UNSET] if self._alone else []), *(p.id for p in self._tenants.projects())]

    def _payer(self, tenant: Tenant) -> str:
        project = self._tenants.project(tenant)
        return project.organisation if project else ""

    def usage(self, since: int, until: int | None, by: Collection[By], organisation: str = "") -> Usage:
        """Of what who asks may see: all, an organisation's, or a project's.

        :raise InvalidArgument: it ends before it begins, or is to be divided by what it has not.
        :raise NotFound: no such organisation. :raise PermissionDenied: they may not see what it uses.
        """
        return self.sums.usage(since, until, by, whose(self._tenants, organisation))

    async def metrics(self, egress: Iterable[tuple[Pod, EgressStats]] = ()) -> str:
        """Of this month, of what who asks may see, for Prometheus; and of these pods."""
        seen = [o for o in rights.organisations(self._tenants) if audits(self._tenants, o)]
        tenant = current().tenant
        where = Whose(payer=seen[0].id) if tenant and tenant != NOWHERE and len(seen) == 1 else None
        if where is None and not rights.is_administrator():
            raise PermissionDenied("this takes the scope `audit` in one project")
        found = self.sums.usage(month_began(), None, ("organisation", "project", "size"), where or EVERYBODY)
        pods = [self._named(pod, stats) for pod, stats in egress]
        return expose(found.rows, await self._balances(seen) if self.bills.active else [], pods)

    def _named(self, pod: Pod, stats: EgressStats) -> PodEgress:
        name = self._tenants.name
        return PodEgress(name(self._payer(pod.tenant)), name(pod.tenant or ""), pod.name, stats)

    async def _balances(self, of: list[Organisation]) -> list[Balance]:
        """Of many: others are served meanwhile."""
        costs, bills, found = await self.bills.costs(), self.bills, []
        for one in of:
            account = bills.account(one)
            left = bills.paid(one.id) - costs.get(one.id, 0)
            found.append(Balance(one.name, bills.currency(account), left, account.suspended))
        return found

    def _last_write(self, pod_id: str) -> int:
        """By its containers, to their own disks."""
        return max((_written(self._paths.scratch(c.id)) for c in self._registry.members(pod_id)), default=0)

    def open(self) -> None:
        """Before what an earlier daemon left is recovered."""
        self.meter.open()

    async def run(self) -> None:
        """When it is: what records say is metered from now on, and paid."""
        records: list[Metered] = [*self._registry.pods(), *self._registry.volumes(), *self._registry.fips()]
        self.meter.reconcile(records, self._registry.set_aside)
        collecting = [self.collector.run()] if self.collector else []
        await asyncio.gather(self._watch.run(), self.enforcement.run(), *collecting)

    def enforce(self, suspensions: Suspensions, pods: Pods, containers: Containers) -> None:
        """By these verbs pods are put to rest."""

        async def stop(pod: Pod) -> None:
            own = max((c.spec.stop_timeout for c in self._registry.members(pod.id)), default=0)
            grace = None if own <= _GRACE else _GRACE  # theirs to choose, and nobody pays for it
            await (containers.stop(pod.id, grace) if pod.implicit else pods.stop(pod.id, grace))

        by = self.enforcement
        by.suspend, by.resume, by.stop = (
            (lambda p: suspensions.suspend(p.id)),
            (lambda p: suspensions.resume(p.id)),
            stop,
        )

    # -- what is paid -------------------------------------------------------------------

    def account(self, organisation: str) -> AccountInfo:
        """Raises what `audited` does."""
        return self.bills.info(self._billed(organisation))

    def _billed(self, organisation: str) -> Organisation:
        """Also one that was removed, by its id, for the administrator. Raises what `audited` does."""
        removed = self.bills.removed(organisation) if rights.is_administrator() else None
        return removed or audited(self._tenants, organisation)

    def change_account(self, organisation: str, request: AccountRequest) -> AccountInfo:
        """The budget is its owners', the rest the administrator's.

        :raise PermissionDenied: who asks is not. :raise NotFound: no such organisation, or price list.
        """
        of = rights.organisation(self._tenants, organisation)
        rights.check_manages(self._tenants, of)
        if request != AccountRequest(budget=request.budget) and not rights.is_administrator():
            raise PermissionDenied("how an organisation pays is the administrator's to say", hint="the budget is yours")
        self.bills.change(of, request)
        self.enforcement.look_soon()
        return self.bills.info(of)

    def credit(self, organisation: str, request: CreditRequest) -> AccountInfo:
        """:raise NotFound: no such organisation."""
        of = rights.organisation(self._tenants, organisation)
        given = self.bills.credit(of, request)
        self.enforcement.tell_credit(given)
        return self.bills.info(of)

    def invoice(self, organisation: str, month: str) -> Invoice:
        """Of a month, "" is this one. :raise InvalidArgument: it is none. Raises what `audited` does."""
        of = self._billed(organisation)
        return self.bills.invoice(of, read_month(month) if month else this_month())

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
