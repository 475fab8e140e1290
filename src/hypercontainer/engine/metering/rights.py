# SPDX-License-Identifier: Apache-2.0
"""Whose use, and whose bills, somebody sees."""

from __future__ import annotations

from ...errors import InvalidArgument, PermissionDenied
from ...model.metering import EVERYBODY, Whose
from ...model.principal import NOWHERE
from ...model.tenancy import Organisation
from ..principal import current
from ..tenancy import rights
from ..tenants import Tenants


def audits(tenants: Tenants, which: Organisation) -> bool:
    """Whether who asks may see what an organisation uses and pays: its owners and auditors, and the administrator."""
    who = current()
    if rights.is_administrator():
        return True
    project = tenants.project(who.tenant)
    if project and project.organisation == which.id and "audit" in who.scopes:
        return True
    return who.tenant == NOWHERE and tenants.role(who.user, which.id) in ("owner", "auditor")


def audited(tenants: Tenants, key: str) -> Organisation:
    """One whose accounts who asks may see, by name or id; "" is the only one.

    :raise NotFound: there is none that they see. :raise PermissionDenied: they may not see its accounts.
    :raise InvalidArgument: there are several.
    """
    if key:
        found = rights.organisation(tenants, key)
    else:
        seen = [o for o in rights.organisations(tenants) if audits(tenants, o)]
        if len(seen) != 1:
            raise InvalidArgument("which organisation is meant?", hint="name it: `hyperctl organisation ls` has them")
        found = seen[0]
    if not audits(tenants, found):
        raise PermissionDenied(f"this takes the scope `audit` in the organisation {found.name}, or an owner of it")
    return found


def whose(tenants: Tenants, organisation: str) -> Whose:
    """Whose use: an organisation's; else of the project that one is in, everybody's for the administrator, or what is
    no project's.

    :raise HyperError: what `audited` does.
    """
    tenant = current().tenant
    if organisation or tenant == NOWHERE:
        return Whose(payer=audited(tenants, organisation).id)
    if tenant or not rights.is_administrator():
        return Whose(tenant=tenant or "")
    return EVERYBODY
