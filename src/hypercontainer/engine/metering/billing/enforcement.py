# SPDX-License-Identifier: Apache-2.0
"""Budgets that are told of, and prepaid accounts that are empty.

At zero no pod of the organisation is started any more; after the account's grace those that run are suspended, or
stopped where the account says so or they cannot be suspended. A credit lets those that were suspended go on.
What is done with the pods of one organisation keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from msgspec import UNSET
from msgspec.structs import replace

from ....errors import HyperError, PermissionDenied
from ....model.billing import Account, Credit, Invoice, write_money
from ....model.moments import read_moment
from ....model.principal import Tenant
from ....model.status import Pod, PodStatus
from ....model.tenancy import Organisation
from ....state.changes import Change
from ....sys import clock, tasks
from ...events import Events
from ...registry import Registry
from ...tenants import Tenants
from .bills import Bills, this_month

log = logging.getLogger(__name__)
_EVERY = 60.0  # seconds between two looks
_SOON = 5.0  # seconds until the next one, where pods are being put to rest, or woken
_BUDGET = (100, 80, 50)  # percent of it that are told of
Verb = Callable[[Pod], Awaitable[object]]


class Enforcement:
    """One task, as long as the daemon runs."""

    def __init__(self, bills: Bills, tenants: Tenants, registry: Registry, events: Events) -> None:
        self._bills, self._tenants, self._registry, self._events = bills, tenants, registry, events
        self.suspend: Verb = _nothing
        self.stop: Verb = _nothing
        self.resume: Verb = _nothing
        self._changed = asyncio.Event()
        self._pause = _EVERY  # seconds until the next look: until the end of a grace, where one comes first
        self._at_work: dict[str, asyncio.Task[None]] = {}  # organisation -> what is done with its pods

    def look_soon(self) -> None:
        """A credit was given, or an account changed."""
        self._changed.set()

    def tell_credit(self, credit: Credit) -> None:
        """It was given: what it lets go on goes on soon."""
        self._publish("credit", credit.organisation, amount=write_money(credit.amount), reason=credit.reason)
        self._changed.set()

    def check_start(self, pod: Pod) -> None:
        """:raise PermissionDenied: its organisation's account is empty."""
        project = self._tenants.project(pod.tenant)
        if project is None or not self._bills.active:
            return
        of = self._tenants.organisation(project.organisation)
        if self._bills.account(of).empty_since:
            raise PermissionDenied(
                f"the organisation {of.name} has no credit left, so nothing of it is started",
                hint=f"have an administrator add some: `hyperctl billing credit {of.name} AMOUNT`",
            )

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                self._changed.clear()
                self._pause = _EVERY
                try:
                    await self.look()
                except HyperError as error:
                    log.warning("accounts cannot be looked at: %s", error)
                with contextlib.suppress(TimeoutError):
                    await tasks.within(self._changed.wait(), self._pause)
        finally:
            await tasks.end(self._at_work.values())

    async def look(self) -> None:
        """At all accounts: issue what is due, tell of budgets, and see to those at zero."""
        if not self._bills.active:
            return
        self._tell_invoices(self._bills.issue())
        costs = await self._bills.costs()
        for account in self._bills.accounts():
            account = self._tell_of_budget(account)
            left = self._bills.paid(account.id) - costs.get(account.id, 0)
            if account.empty_since or (account.prepaid and left <= 0):  # to the millisecond
                left = self._bills.balance(self._tenants.organisation(account.id))
            if account.id in self._at_work:
                self._pause = min(self._pause, _SOON)
            elif account.prepaid and left <= 0:
                self._empty(account)
            elif account.empty_since or account.put_to_rest:
                self._filled(account)

    def bill_last(self, of: Organisation, removal: Change) -> None:
        """Of an organisation that is removed; raises what `Bills.bill_last` does."""
        self._tell_invoices(self._bills.bill_last(of, removal))

    def _tell_invoices(self, issued: Iterable[Invoice]) -> None:
        for invoice in issued:
            self._publish("invoice", invoice.organisation, month=invoice.month, total=write_money(invoice.total))

    def _work(self, organisation: str, work: Coroutine[None, None, None]) -> None:
        task = self._at_work[organisation] = asyncio.create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            del self._at_work[organisation]
            if not task.cancelled() and (error := task.exception()):
                log.error("not all pods of the organisation %s are seen to", organisation, exc_info=error)

        task.add_done_callback(ended)

    def _publish(self, action: str, organisation: str, **attributes: str) -> None:
        """To the administrator, and in each of its projects."""
        name = self._tenants.organisation(organisation).name
        mine = [p.id for p in self._tenants.projects_of(organisation)]
        whose: list[Tenant] = [UNSET, *mine]
        for tenant in whose:
            self._events.publish("billing", action, organisation, of=None, tenant=tenant, name=name, **attributes)

    def _tell_of_budget(self, account: Account) -> Account:
        if not account.budget:
            return account
        month = this_month()
        used = self._bills.invoice(self._tenants.organisation(account.id), month).total
        reached = next((p for p in _BUDGET if used * 100 >= account.budget * p), 0)
        if reached <= account.told.get(month, 0):
            return account
        for percent in [p for p in reversed(_BUDGET) if account.told.get(month, 0) < p <= reached]:
            self._publish("budget", account.id, percent=str(percent), month=month, used=write_money(used),
                          budget=write_money(account.budget))  # fmt: skip
        return self._bills.put_account(replace(account, told={month: reached}))

    # -- at zero ------------------------------------------------------------------------

    def _empty(self, account: Account) -> None:
        now = clock.now_ns()
        if not account.empty_since:
            account = self._bills.put_account(replace(account, empty_since=clock.stamp()))
            self._publish("empty", account.id, grace=f"{account.grace:g}")
        elif read_moment(account.empty_since) > now:  # the clock was set back, and no grace lasts as long as that
            account = self._bills.put_account(replace(account, empty_since=clock.stamp()))
        if not account.suspended:
            if (left := (read_moment(account.empty_since) - now) / 1e9 + account.grace) > 0:
                self._pause = min(self._pause, left)
                return
            account = self._bills.put_account(replace(account, suspended=True))
            self._publish("suspend", account.id)
        if resting := [p for p in self._pods(account) if p.vm]:
            self._work(account.id, _all(self._put_to_rest(account.id, p) for p in resting))

    def _pods(self, account: Account) -> Iterable[Pod]:
        projects = {p.id for p in self._tenants.projects_of(account.id)}
        return [p for p in self._registry.pods() if p.tenant in projects]

    async def _put_to_rest(self, organisation: str, pod: Pod) -> None:
        account = self._bills.opened(organisation)
        try:
            if account.policy == "suspend":
                # Written first: a daemon that dies meanwhile lets the next one know whom to resume.
                known = [*dict.fromkeys([*account.put_to_rest, pod.id])]
                self._bills.put_account(replace(account, put_to_rest=known))
                await self.suspend(pod)
                return
        except HyperError as error:
            log.warning("pod %s cannot be suspended for want of credit, and is stopped: %s", pod.name, error)
        try:
            await self.stop(pod)
        except HyperError as error:
            log.warning("pod %s is not stopped for want of credit: %s", pod.name, error)

    def _filled(self, account: Account) -> None:
        if account.empty_since:
            account = self._bills.put_account(replace(account, empty_since="", suspended=False))
            self._publish("resume", account.id)
        if account.put_to_rest:
            self._work(account.id, _all(self._wake(account.id, id_) for id_ in account.put_to_rest))

    async def _wake(self, organisation: str, pod_id: str) -> None:
        """Known as one to wake until that was tried: a daemon that dies meanwhile leaves it to the next one."""
        pod = next((p for p in self._registry.pods() if p.id == pod_id), None)
        if pod and pod.status is PodStatus.SUSPENDED:
            try:
                await self.resume(pod)
            except HyperError as error:
                log.warning("pod %s does not go on, though there is credit again: %s", pod.name, error)
        account = self._bills.opened(organisation)
        self._bills.put_account(replace(account, put_to_rest=[id_ for id_ in account.put_to_rest if id_ != pod_id]))


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    await asyncio.gather(*works)


async def _nothing(pod: Pod) -> None: ...
