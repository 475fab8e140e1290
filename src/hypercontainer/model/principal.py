# SPDX-License-Identifier: Apache-2.0
"""Who asks, what they may do, and whose something is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

# A tenant's name. The only tenant of a daemon is UNSET: then no document and no answer tells of tenants.
Tenant = str | UnsetType

# What a principal may do:
#   read     see what there is
#   operate  change pods, containers, images, volumes and networks; with it, read
#   admin    tokens, and the daemon itself; with it, operate
#   host     have the daemon use this host for it: its files, its own networks, its logs. Comes with no other
Scope = Literal["read", "operate", "admin", "host"]
SCOPES: tuple[Scope, ...] = ("read", "operate", "admin", "host")
_WITH: dict[Scope, tuple[Scope, ...]] = {"admin": ("operate", "read"), "operate": ("read",), "read": (), "host": ()}
ALL: frozenset[Scope] = frozenset(SCOPES)


def widened(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """With what each of them brings."""
    return frozenset(s for given in scopes for s in (given, *_WITH[given]))


class Principal(NamedTuple):
    """Who asks: `uid:1000` for a user of this host, `token:ID`, `cert:NAME`; "" for the daemon itself."""

    name: str
    tenant: Tenant = UNSET
    scopes: frozenset[Scope] = ALL


DAEMON = Principal("")
