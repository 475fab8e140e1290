# SPDX-License-Identifier: Apache-2.0
"""Who asks, and whose something is."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import UNSET, UnsetType

# A tenant's name. The only tenant of a daemon is UNSET: then no document and no answer tells of tenants.
Tenant = str | UnsetType


class Principal(NamedTuple):
    """Who asks: `uid:1000` for a user of this host, "" for the daemon itself."""

    name: str
    tenant: Tenant = UNSET


DAEMON = Principal("")
