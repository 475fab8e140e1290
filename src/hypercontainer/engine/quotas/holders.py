# SPDX-License-Identifier: Apache-2.0
"""Whose something is, for quotas."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ...model.principal import Tenant


class Owned(Protocol):
    """A record, or who asks."""

    @property
    def owner(self) -> str:
        """The principal."""

    @property
    def tenant(self) -> Tenant:
        """Whose it is."""


class Snapshot(Owned, Protocol):
    """One that is kept, of a pod or of a volume."""

    @property
    def id(self) -> str:
        """By which it is found on the disk."""

    @property
    def name(self) -> str:
        """For people."""


class Holder(NamedTuple):
    """Who is limited: a tenant with all that is its, or one principal in it."""

    name: str  # for people
    tenant: Tenant
    owner: str | None = None  # None: whoever's of the tenant

    def has(self, thing: Owned) -> bool:
        """Whether it is theirs."""
        return thing.tenant == self.tenant and self.owner in (None, thing.owner)
