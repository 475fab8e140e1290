# SPDX-License-Identifier: Apache-2.0
"""Organisations, projects, users: made, told of, removed, and who asks in which project (docs/caas.md).

entry           which project a request is for, and what it may do there
rights          which organisations, projects and users somebody sees, and may change
organisations, projects, users      the verbs
logins          who somebody is of whom an identity provider tells
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..events import Events
from ..tenants import Tenants
from ..tokens import Tokens
from .entry import Entry
from .logins import Logins
from .organisations import Organisations
from .projects import Projects
from .users import Users


@dataclass(frozen=True)
class Tenancy:
    """What front ends need of it."""

    entry: Entry
    organisations: Organisations
    projects: Projects
    users: Users
    logins: Logins


def tenancy(tenants: Tenants, tokens: Tokens, events: Events, signatures: Collection[str]) -> Tenancy:
    """All of it, over these records; `signatures` are those that a project's policy may name."""
    organisations, users = Organisations(tenants, tokens, events), Users(tenants, tokens, events)
    return Tenancy(
        Entry(tenants),
        organisations,
        Projects(tenants, tokens, events, signatures),
        users,
        Logins(tenants, tokens, organisations, users),
    )
