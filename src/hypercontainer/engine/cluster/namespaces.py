# SPDX-License-Identifier: Apache-2.0
"""Each project has a namespace in the cluster, with its quota and its members' roles.

What is in the cluster follows what projects and accounts are: after each change of one, and once a minute, what is
otherwise than it is to be is applied. A namespace goes with its project and never else, so a daemon with an older state
removes nobody's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from ...cluster.manifests import digest
from ...cluster.port import Cluster, Wanted
from ...errors import Conflict, HyperError, NotFound
from ...model.tenancy import Project, Role
from ...sys import tasks
from ..events import Events
from ..metering.accounts import Accounts
from ..metering.billing.bills import Bills
from ..tenants import Tenants

log = logging.getLogger(__name__)
_EVERY = 60.0  # seconds between two looks
_NAMED = 5  # Pods that an error names
_TELLING = ("project", "organisation", "user", "billing")
_EDIT: tuple[Role, ...] = ("owner", "operator")


class Namespaces:
    """One task, as long as the daemon runs."""

    def __init__(self, cluster: Cluster, tenants: Tenants, events: Events, bills: Bills) -> None:
        self._cluster, self._tenants, self._events, self._bills = cluster, tenants, events, bills
        self._changed = asyncio.Event()
        self._trouble = ""
        self._at_one = asyncio.Lock()  # a namespace is not made while its project ends
        self.collect: Callable[[], Awaitable[None]] = _nothing  # what was used in the cluster, all of it

    async def run(self) -> None:
        """Until it is cancelled."""
        listener = asyncio.create_task(self._events.notify(self._changed, lambda event: event.type in _TELLING))
        try:
            while True:
                self._changed.clear()
                await self._look_told()
                with contextlib.suppress(TimeoutError):
                    await tasks.within(self._changed.wait(), _EVERY)
        finally:
            await tasks.end([listener])

    async def _look_told(self) -> None:
        try:
            await self.look()
        except HyperError as error:
            if str(error) != self._trouble:
                log.warning("the cluster's namespaces are not what projects are: %s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    async def look(self) -> None:
        """:raise HyperError: the cluster does not answer, or refuses something; the rest is done all the same."""
        there = await self._cluster.namespaces()
        failed: HyperError | None = None
        for id_ in [p.id for p in self._tenants.projects()]:
            async with self._at_one:
                try:
                    if project := self._tenants.project(id_):
                        await self._follow(project, there.get(id_))
                except HyperError as error:
                    failed = error
        if failed:
            raise failed

    async def _follow(self, project: Project, made_from: str | None) -> None:
        wanted = self.wanted(project)
        if digest(wanted) != made_from:
            await self._cluster.put(wanted)
        if self._is_suspended(project):
            # Who owns them makes them anew once the quota lets them; so nothing has to be known to wake them.
            for pod in await self._cluster.pods(project.id):
                if pod.status != "Terminating":
                    await self._cluster.delete_pod(project.id, pod.name)

    def wanted(self, project: Project) -> Wanted:
        """As it is to be now."""
        of = self._tenants.organisation(project.organisation)
        return Wanted(
            project=project.id, name=project.name, organisation=of.name, quota=project.quota,
            editors=self._users(of.members, _EDIT), viewers=self._users(of.members, ("viewer",)),
            runtime_class="hyper-fresh" if project.policy.isolation == "fresh" else "",
            privileged=project.policy.privileged, closed=self._is_empty(project),
        )  # fmt: skip

    def _users(self, members: dict[str, Role], roles: tuple[Role, ...]) -> tuple[str, ...]:
        """As the cluster knows them: by the certificate's common name, else by their name here."""
        found = [u for id_, role in members.items() if role in roles and (u := self._tenants.user(id_))]
        return tuple(sorted(u.certificate or u.name for u in found))

    def _is_empty(self, project: Project) -> bool:
        """Nothing is started at zero, during the grace too."""
        if not self._bills.active:
            return False
        return bool(self._bills.account(self._tenants.organisation(project.organisation)).empty_since)

    def _is_suspended(self, project: Project) -> bool:
        return self._bills.active and self._bills.account(self._tenants.organisation(project.organisation)).suspended

    async def end(self, project: Project) -> None:
        """Before a project goes: its namespace, and the account of what was used there.

        :raise Conflict: there are Pods in it. :raise HyperError: the cluster, or a node, does not answer. Then the
        project stays, and has a namespace again soon.
        """
        async with self._at_one:
            if has := await self._pods(project):
                raise Conflict(
                    f"the project {project.name} has Pods in the cluster: {', '.join(has[:_NAMED])}",
                    hint="remove them first, and what makes them anew",
                )
            await self._cluster.remove(project.id)
            await self.collect()

    async def _pods(self, project: Project) -> list[str]:
        with contextlib.suppress(NotFound):
            return [p.name for p in await self._cluster.pods(project.id)]
        return []


async def _nothing() -> None: ...


def namespaces(cluster: Cluster | None, tenants: Tenants, events: Events, accounts: Accounts) -> Namespaces | None:
    """Those of a cluster, if there is one; projects end by them then."""
    if cluster is None or accounts.collector is None:
        return None
    made = Namespaces(cluster, tenants, events, accounts.bills)
    made.collect = accounts.collector.surely
    tenants.leave = made.end
    return made
