# SPDX-License-Identifier: Apache-2.0
"""Projects."""

from __future__ import annotations

import secrets
from collections.abc import Collection

import msgspec

from ...errors import Conflict, InvalidArgument
from ...model.policy import Policy
from ...model.quotas import Quota
from ...model.tenancy import Organisation, Project, ProjectInfo, ProjectRequest
from ...sys import clock
from ..events import Events
from ..principal import current
from ..tenants import Tenants
from ..tokens import Tokens
from . import rights


class Projects:
    """Made, renamed and removed by an owner of their organisation, or the administrator."""

    def __init__(self, tenants: Tenants, tokens: Tokens, events: Events, signatures: Collection[str]) -> None:
        self._tenants, self._tokens, self._events = tenants, tokens, events
        self._signatures = signatures

    def create(self, request: ProjectRequest) -> ProjectInfo:
        """:raise NotFound: no such organisation. :raise PermissionDenied: that is for its owners.
        :raise Conflict: the name is taken in it. :raise NoSpace: the disk is full.
        """
        above = self._organisation(request.organisation)
        rights.check_manages(self._tenants, above)
        self._check_name(above, request.name)
        made = Project(
            id=secrets.token_hex(8), name=request.name, organisation=above.id, created_at=clock.stamp(),
            description=request.description, owner=current().owner,
        )  # fmt: skip
        self._tenants.put(made)
        self._events.publish("project", "create", made.id, tenant=made.id, name=made.name, organisation=above.name)
        return self._told(made)

    def _organisation(self, key: str) -> Organisation:
        """ "" is the only one that one sees."""
        if key:
            return rights.organisation(self._tenants, key)
        seen = rights.organisations(self._tenants)
        if len(seen) != 1:
            raise InvalidArgument(
                "the organisation is not said" if seen else "there is no organisation yet",
                hint="give --organisation NAME" if seen else "make one with `hyperctl organisation create NAME`",
            )
        return seen[0]

    def _check_name(self, above: Organisation, name: str) -> None:
        self._tenants.check_name("project", name, self._tenants.projects_of(above.id))

    def all(self) -> list[ProjectInfo]:
        """Those that one sees, by name."""
        return [self._told(p) for p in rights.projects(self._tenants)]

    def inspect(self, key: str) -> ProjectInfo:
        """:raise NotFound: there is none that one sees. :raise Conflict: more than one has the name."""
        return self._told(rights.project(self._tenants, key))

    def rename(self, key: str, name: str) -> ProjectInfo:
        """Raises what `inspect` and `create` do. What is in it is its still: that goes by its id."""
        found = self._managed(key)
        self._check_name(self._tenants.organisation(found.organisation), name)
        return self._changed(msgspec.structs.replace(found, name=name), "rename", old=found.name)

    def limit(self, key: str, quota: Quota) -> ProjectInfo:
        """Say what may be in it at most; what is there already stays.

        :raise NotFound: there is none that one sees. :raise NoSpace: the disk is full.
        """
        return self._changed(msgspec.structs.replace(rights.project(self._tenants, key), quota=quota), "limit")

    def restrict(self, key: str, policy: Policy) -> ProjectInfo:
        """Say what its containers may be; those that are there stay, and start.

        :raise NotFound: there is none that one sees. :raise NoSpace: the disk is full.
        :raise InvalidArgument: it asks for signatures of which the configuration knows nothing.
        """
        found = rights.project(self._tenants, key)
        if policy.signatures and policy.signatures not in self._signatures:
            known = ", ".join(sorted(self._signatures)) or "none"
            raise InvalidArgument(f"hyperd's configuration has no {policy.signatures!r} in `image_policies`",
                                  hint=f"it has: {known}")  # fmt: skip
        return self._changed(msgspec.structs.replace(found, policy=policy), "restrict")

    async def remove(self, key: str) -> ProjectInfo:
        """With its tokens, images' names, builder and default network.

        :raise Conflict: there is something in it, here or in the cluster; and what `inspect` and `create` raise.
        """
        found = self._managed(key)
        self._check_empty(found)
        await self._tenants.contents.clear(found.id)
        self._check_empty(found, everything=True)  # something may have been made meanwhile
        await self._tenants.leave(found)
        self._check_empty(found, everything=True)
        told = self._told(found)
        self._tokens.revoke_all(lambda t: t.tenant == found.id)
        self._tenants.remove(found)
        self._events.publish("project", "destroy", found.id, tenant=found.id, name=found.name)
        return told

    def _check_empty(self, project: Project, *, everything: bool = False) -> None:
        if has := self._tenants.contents.counted(project.id, everything=everything):
            raise Conflict(
                f"the project {project.name} is not empty: it has {', '.join(has)}", hint="remove them first"
            )

    def _managed(self, key: str) -> Project:
        found = rights.project(self._tenants, key)
        rights.check_manages(self._tenants, self._tenants.organisation(found.organisation))
        return found

    def _changed(self, record: Project, action: str, **attributes: str) -> ProjectInfo:
        self._tenants.put(record)
        self._events.publish("project", action, record.id, of=None, tenant=record.id, name=record.name, **attributes)
        return self._told(record)

    def _told(self, record: Project) -> ProjectInfo:
        above = self._tenants.organisation(record.organisation)
        return ProjectInfo(
            id=record.id, name=record.name, organisation=above.name, organisation_id=above.id,
            created_at=record.created_at, description=record.description, quota=record.quota, policy=record.policy,
        )  # fmt: skip
