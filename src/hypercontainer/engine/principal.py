# SPDX-License-Identifier: Apache-2.0
"""Whose request the running code works for.

A front end says who asks, once for each request; what is created takes its
owner from here and has it in its record. Why it is no parameter of every
call: ADR 7.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, TypedDict

from msgspec import UNSET

from ..model.policy import Policy
from ..model.principal import DAEMON, SCOPES, Principal, Scope, Tenant


@dataclass
class _Request:
    principal: Principal
    answered: bool = False


class Ownership(TypedDict):
    """What a record says of its owner."""

    owner: str
    tenant: Tenant


_request: ContextVar[_Request | None] = ContextVar("request", default=None)


@contextlib.contextmanager
def asked_by(principal: Principal) -> Iterator[None]:
    """What is done in here, and by tasks that are made in here, is the principal's."""
    request = _Request(principal)
    token = _request.set(request)
    try:
        yield
    finally:
        request.answered = True
        _request.reset(token)


def forget(tenant: Tenant = UNSET) -> None:
    """From here on nobody asks: for tasks of the daemon's own that are begun in a request. What they make is of this
    tenant.
    """
    _request.set(_Request(DAEMON._replace(tenant=tenant)))


def current() -> Principal:
    """Whose work this is, also after the request was answered; the daemon where nobody asked."""
    request = _request.get()
    return request.principal if request else DAEMON


def asking() -> Principal:
    """Who waits for this work; the daemon after the request was answered, and where nobody asked."""
    request = _request.get()
    return request.principal if request and not request.answered else DAEMON


def owned() -> Ownership:
    """For the record of what is created."""
    who = current()
    return Ownership(owner=who.owner, tenant=who.tenant)


def names_of() -> str | None:
    """Whose names are meant: a project's id, "" outside of projects; None: the daemon works for itself, for all."""
    who = current()
    return None if who.name == DAEMON.name else who.tenant or ""


class Acting(Protocol):
    """A record by which the daemon makes things later, as whoever made it might have then."""

    @property
    def owner(self) -> str: ...

    @property
    def tenant(self) -> Tenant: ...

    @property
    def scopes(self) -> list[Scope]:
        """Of who made it, then."""


def own_scopes() -> list[Scope]:
    """Of who asks, for such a record."""
    return [s for s in SCOPES if s in current().scopes]


def acting_for(record: Acting, policy: Policy | None) -> contextlib.AbstractContextManager[None]:
    """What is done in here is done as by who made the record, under their project's policy as it is now."""
    return asked_by(Principal(record.owner, record.tenant, frozenset(record.scopes), policy=policy))
