# SPDX-License-Identifier: Apache-2.0
"""Users."""

from __future__ import annotations

import secrets

import msgspec
from msgspec import UNSET

from ...errors import Conflict, NotFound
from ...model.base import given_fields
from ...model.tenancy import User, UserInfo, UserRequest, UserUpdate
from ...sys import clock
from ..events import Events
from ..principal import current
from ..tenants import Tenants, pick
from ..tokens import Tokens, is_login


class Users:
    """The administrator's to make and to remove: who they are is vouched for by whoever runs the host."""

    def __init__(self, tenants: Tenants, tokens: Tokens, events: Events) -> None:
        self._tenants, self._tokens, self._events = tenants, tokens, events

    def create(self, request: UserRequest) -> UserInfo:
        """:raise Conflict: the name, or the certificate's, is another's. :raise NoSpace: the disk is full."""
        self._tenants.check_name("user", request.name, self._tenants.users())
        self._check_free(request.certificate, request.login)
        made = User(
            id=secrets.token_hex(8), name=request.name, created_at=clock.stamp(), email=request.email,
            certificate=request.certificate, login=request.login, owner=current().owner,
        )  # fmt: skip
        self._tenants.put(made)
        self._events.publish("user", "create", made.id, tenant=UNSET, name=made.name)
        return self._told(made)

    def _check_free(self, certificate: str, login: str, of: str = "") -> None:
        """:raise Conflict: it is a user's who has not this id."""
        other = self._tenants.by_certificate(certificate)
        if other and other.id != of:
            raise Conflict(f"the certificate {certificate!r} is the user {other.name}'s", hint="name another")
        other = self._tenants.by_login(login)
        if other and other.id != of:
            raise Conflict(f"the log-in {login!r} is the user {other.name}'s", hint="name another")

    def update(self, key: str, wanted: UserUpdate) -> UserInfo:
        """Who is known by another certificate or log-in from now on is logged out, and what is open by it is closed.

        :raise NotFound: there is none. :raise Conflict: it is another user's. :raise NoSpace: the disk is full.
        """
        before = self._find(key)
        after = msgspec.structs.replace(before, **given_fields(wanted))
        self._check_free(after.certificate, after.login, of=after.id)
        if after.login != before.login:  # whoever logged in by the old one may be another person
            self._tokens.revoke_all(lambda t: t.user == after.id and is_login(t))
        self._tenants.put(after)
        if after.certificate != before.certificate:
            self._tokens.on_revoke(f"user:{after.name}")
        self._events.publish("user", "update", after.id, tenant=UNSET, name=after.name)
        return self._told(after)

    def all(self) -> list[UserInfo]:
        """By name."""
        return [self._told(u) for u in self._tenants.users()]

    def inspect(self, key: str) -> UserInfo:
        """:raise NotFound: there is none."""
        return self._told(self._find(key))

    def remove(self, key: str) -> UserInfo:
        """With their memberships, tokens and log-ins; what they made stays. :raise NotFound: there is none."""
        found = self._find(key)
        told = self._told(found)
        left = [
            msgspec.structs.replace(o, members={id_: role for id_, role in o.members.items() if id_ != found.id})
            for o in self._tenants.memberships(found.id)
        ]
        self._tokens.revoke_all(lambda t: t.user == found.id)
        self._tenants.put(*left)
        self._tenants.remove(found)
        self._tokens.on_revoke(f"user:{found.name}")
        self._events.publish("user", "destroy", found.id, tenant=UNSET, name=found.name)
        return told

    def _find(self, key: str) -> User:
        if found := pick(self._tenants.users(), key):
            return found
        raise NotFound(f"no such user: {key}", hint="see `hyperctl user ls`")

    def _told(self, record: User) -> UserInfo:
        return UserInfo(
            id=record.id, name=record.name, created_at=record.created_at, email=record.email,
            certificate=record.certificate, login=record.login,
            organisations=[o.name for o in self._tenants.memberships(record.id)],
        )  # fmt: skip
