# SPDX-License-Identifier: Apache-2.0
"""Organisations and their members."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from msgspec import UNSET

from ...errors import Conflict, NotFound
from ...model.principal import Tenant
from ...model.tenancy import Member, MemberRequest, Organisation, OrganisationInfo, OrganisationRequest, Role, User
from ...sys import clock
from ..events import Events
from ..principal import current
from ..tenants import Tenants, pick
from ..tokens import Tokens, is_login
from . import rights


class Organisations:
    """Made by the administrator; their owners say who does what in them."""

    def __init__(self, tenants: Tenants, tokens: Tokens, events: Events) -> None:
        self._tenants, self._tokens, self._events = tenants, tokens, events

    def create(self, request: OrganisationRequest) -> OrganisationInfo:
        """:raise Conflict: the name is taken. :raise NoSpace: the disk is full."""
        self._tenants.check_name("organisation", request.name, self._tenants.organisations())
        made = Organisation(
            id=secrets.token_hex(8), name=request.name, created_at=clock.stamp(), description=request.description,
            owner=current().owner,
        )  # fmt: skip
        self._tenants.put(made)
        self._events.publish("organisation", "create", made.id, tenant=UNSET, name=made.name)
        return self._told(made)

    def all(self) -> list[OrganisationInfo]:
        """Those that one sees, by name."""
        return [self._told(o) for o in rights.organisations(self._tenants)]

    def inspect(self, key: str) -> OrganisationInfo:
        """:raise NotFound: there is none that one sees."""
        return self._told(rights.organisation(self._tenants, key))

    def rename(self, key: str, name: str) -> OrganisationInfo:
        """:raise NotFound: there is none. :raise Conflict: the name is taken."""
        found = rights.organisation(self._tenants, key)
        self._tenants.check_name("organisation", name, self._tenants.organisations())
        return self._changed(msgspec.structs.replace(found, name=name), "rename", old=found.name)

    def remove(self, key: str) -> OrganisationInfo:
        """:raise NotFound: there is none. :raise Conflict: it has projects."""
        found = rights.organisation(self._tenants, key)
        if has := [p.name for p in self._tenants.projects_of(found.id)]:
            raise Conflict(
                f"the organisation {found.name} has projects: {', '.join(has)}",
                hint="remove them first, with `hyperctl project rm`",
            )
        told = self._told(found)
        self._tenants.remove(found)
        self._events.publish("organisation", "destroy", found.id, tenant=UNSET, name=found.name)
        return told

    # -- members --------------------------------------------------------------------

    def put_member(self, key: str, request: MemberRequest) -> OrganisationInfo:
        """Bring a user in, or give them another role. Owners know the users of their organisations only.

        :raise NotFound: no such organisation or user. :raise PermissionDenied: that is for owners.
        :raise Conflict: it would have no owner.
        """
        found = rights.organisation(self._tenants, key)
        rights.check_manages(self._tenants, found)
        user = self._user(request.user)
        if found.members.get(user.id) == request.role:
            return self._told(found)
        self._check_owned(found, {**found.members, user.id: request.role})
        changed = msgspec.structs.replace(found, members={**found.members, user.id: request.role})
        told = self._changed(changed, "member", user=user.name, role=request.role)
        projects = self._projects_of(found)
        # What is open was opened by another role.
        self._tokens.close_all(lambda t: t.user == user.id and (is_login(t) or t.tenant in projects))
        self._tokens.on_revoke(f"user:{user.name}")
        return told

    def remove_member(self, key: str, user_key: str) -> OrganisationInfo:
        """With their tokens in its projects.

        :raise NotFound: no such organisation, or member. :raise PermissionDenied: that is for owners.
        :raise Conflict: it would have no owner.
        """
        found = rights.organisation(self._tenants, key)
        rights.check_manages(self._tenants, found)
        user = pick(self._members(found), user_key)
        if user is None:
            raise NotFound(f"no such member of {found.name}: {user_key}",
                           hint=f"see `hyperctl organisation inspect {found.name}`")  # fmt: skip
        left = {id_: role for id_, role in found.members.items() if id_ != user.id}
        self._check_owned(found, left)
        changed = msgspec.structs.replace(found, members=left)
        projects = self._projects_of(found)
        self._tokens.revoke_all(lambda t: t.user == user.id and t.tenant in projects)
        self._tokens.close_all(lambda t: t.user == user.id and is_login(t))
        told = self._changed(changed, "member", user=user.name, role="")
        self._tokens.on_revoke(f"user:{user.name}")
        return told

    def _projects_of(self, of: Organisation) -> set[Tenant]:
        return {p.id for p in self._tenants.projects_of(of.id)}

    @staticmethod
    def _check_owned(before: Organisation, members: dict[str, Role]) -> None:
        if not rights.is_administrator() and "owner" not in members.values():
            raise Conflict(f"{before.name} would be left without an owner", hint="make another member its owner first")

    def _user(self, key: str) -> User:
        users = self._tenants.users()
        if not rights.is_administrator():
            users = [u for o in rights.organisations(self._tenants) for u in self._members(o)]
        if found := pick(users, key):
            return found
        raise NotFound(f"no such user: {key}", hint="the administrator makes users, and brings them in")

    def _members(self, of: Organisation) -> list[User]:
        return [u for u in self._tenants.users() if u.id in of.members]

    def _changed(self, record: Organisation, action: str, **attributes: Any) -> OrganisationInfo:
        self._tenants.put(record)
        self._events.publish("organisation", action, record.id, of=None, tenant=UNSET, name=record.name, **attributes)
        return self._told(record)

    def _told(self, record: Organisation) -> OrganisationInfo:
        """A project's own token is not told who its people are, unless it manages them."""
        who = current()
        told = rights.is_administrator() or who.user or who.scopes & {"manage", "audit"}
        members = [Member(user=u.name, id=u.id, role=record.members[u.id]) for u in self._members(record)]
        seen = rights.projects(self._tenants)
        return OrganisationInfo(
            id=record.id, name=record.name, created_at=record.created_at, description=record.description,
            members=members if told else [], projects=[p.name for p in seen if p.organisation == record.id],
        )  # fmt: skip
