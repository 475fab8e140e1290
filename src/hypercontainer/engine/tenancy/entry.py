# SPDX-License-Identifier: Apache-2.0
"""Which project a request is for, and what its principal may do there."""

from __future__ import annotations

from msgspec import UNSET

from ...errors import NotFound
from ...model.principal import NOWHERE, Principal, Scope
from ...model.tenancy import OF_ROLE, Project
from ..tenants import Tenants
from . import rights


class Entry:
    """Asked once for each request, by the front ends."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def of_certificate(self, common_name: str) -> Principal | None:
        """The user who shows it, in no project yet; None: nobody's."""
        if user := self._tenants.by_certificate(common_name):
            return Principal(f"user:{user.name}", NOWHERE, frozenset(), user.id)
        return None

    def knows_anybody(self) -> bool:
        """Whether there are organisations or users: then who is none of these is nobody."""
        return self._tenants.knows_anybody()

    def user(self, who: Principal) -> str:
        """The name of the user who it is; "" for nobody's."""
        found = self._tenants.user(who.user)
        return found.name if found else ""

    def enter(self, who: Principal, wanted: str) -> Principal:
        """The principal in the project that is wanted; "" is the one that they have, if they have one.

        :raise NotFound: no such project, for them. :raise Conflict: more than one has the name.
        """
        if who.user:
            return self._enter_user(who, wanted)
        if who.tenant is UNSET and not wanted:
            return who
        if who.tenant is not UNSET:
            own = self._tenants.project(who.tenant)
            among = [own] if own else []
            if wanted:
                rights.one_project(self._tenants, among, wanted)
            return who._replace(policy=own.policy if own else None)
        if "admin" not in who.scopes:
            raise NotFound(f"no such project: {wanted}", hint="see `hyperctl project ls`")
        found = rights.one_project(self._tenants, self._tenants.projects(), wanted)
        return who._replace(tenant=found.id, policy=found.policy)

    def _enter_user(self, who: Principal, wanted: str) -> Principal:
        """A token is of one project, and does at most what it was made for; a certificate, or a log-in, is the user."""
        by_token = who.tenant != NOWHERE
        among = [p for p in self._tenants.projects() if self._tenants.role(who.user, p.organisation)]
        if by_token:
            among = [p for p in among if p.id == who.tenant]
        if not wanted and len(among) != 1:
            return who._replace(tenant=NOWHERE, scopes=frozenset())
        project = rights.one_project(self._tenants, among, wanted) if wanted else among[0]
        may = self._scopes(who.user, project)
        scopes = may & who.scopes if by_token else may
        return who._replace(tenant=project.id, scopes=scopes, policy=project.policy)

    def _scopes(self, user: str, project: Project) -> frozenset[Scope]:
        role = self._tenants.role(user, project.organisation)
        return OF_ROLE[role] if role else frozenset()
