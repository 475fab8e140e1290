# SPDX-License-Identifier: Apache-2.0
"""Who asks, what they may do, and whose something is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from .policy import Policy

# A tenant's name. The only tenant of a daemon is UNSET: then no document and no answer tells of tenants.
Tenant = str | UnsetType

# What a principal may do:
#   read     see what there is
#   operate  change pods, containers, images, volumes and networks; with it, read
#   audit    usage, invoices, and what happened in an organisation, neither output nor environments
#   manage   members, projects and their tokens
#   admin    the daemon itself, and all organisations; with it, operate, audit and manage
#   host     have the daemon use this host for it: its files, its own networks, its logs. Comes with no other
Scope = Literal["read", "operate", "audit", "manage", "admin", "host"]
SCOPES: tuple[Scope, ...] = ("read", "operate", "audit", "manage", "admin", "host")
_WITH: dict[Scope, tuple[Scope, ...]] = {"admin": ("operate", "read", "audit", "manage"), "operate": ("read",)}
ALL: frozenset[Scope] = frozenset(SCOPES)
NOWHERE = "-"  # the tenant of a user who has not said which project is meant: nothing is its


def widened(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """With what each of them brings."""
    return frozenset(s for given in scopes for s in (given, *_WITH.get(given, ())))


class Principal(NamedTuple):
    """Who asks: `uid:1000` for a user of this host, `user:NAME` for one of a project, `token:ID`, `cert:NAME`; "" for
    the daemon itself."""

    name: str
    tenant: Tenant = UNSET
    scopes: frozenset[Scope] = ALL
    user: str = ""  # id of the user who it is; "" is none
    policy: Policy | None = None  # of the project; None is none
    person: str = ""  # `user:NAME` where the token is a log-in, which ends and is followed by others

    @property
    def owner(self) -> str:
        """Whose is what they make, and who is counted as one."""
        return self.person or self.name


DAEMON = Principal("")
