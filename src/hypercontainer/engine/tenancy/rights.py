# SPDX-License-Identifier: Apache-2.0
"""What somebody sees of organisations and projects, and may change. What they do not see is not there for them."""

from __future__ import annotations

from ...errors import Conflict, NotFound, PermissionDenied
from ...model.principal import NOWHERE
from ...model.tenancy import Organisation, Project
from ..principal import current
from ..tenants import Tenants, pick


def is_administrator() -> bool:
    """Whether who asks is the host's: no project's principal has that scope."""
    return "admin" in current().scopes


def organisations(tenants: Tenants) -> list[Organisation]:
    """All for the administrator; those of a user; that of a project, for its token."""
    who = current()
    if is_administrator():
        return tenants.organisations()
    if project := tenants.project(who.tenant):
        found = tenants.organisation(project.organisation)
        return [found] if not who.user or who.user in found.members else []
    return tenants.memberships(who.user) if who.user else []


def projects(tenants: Tenants) -> list[Project]:
    """Those of the organisations that one sees; a project's own token sees that one."""
    who = current()
    if is_administrator():
        return tenants.projects()
    if not who.user:
        own = tenants.project(who.tenant)
        return [own] if own else []
    seen = {o.id for o in organisations(tenants)}
    return [p for p in tenants.projects() if p.organisation in seen]


def organisation(tenants: Tenants, key: str) -> Organisation:
    """By name or id. :raise NotFound: there is none that one sees."""
    if found := pick(organisations(tenants), key):
        return found
    raise NotFound(f"no such organisation: {key}", hint="see `hyperctl organisation ls`")


def one_project(tenants: Tenants, among: list[Project], key: str) -> Project:
    """By id, name, or ORGANISATION/NAME.

    :raise NotFound: none of them. :raise Conflict: more than one has the name.
    """
    above, _, name = key.rpartition("/")
    found = [p for p in among if p.id == key] or [
        p for p in among
        if p.name == name and (not above or above in (p.organisation, tenants.organisation(p.organisation).name))
    ]  # fmt: skip
    if len(found) > 1:
        raise Conflict(f"several organisations have a project {key}", hint=f"write ORGANISATION/{name}")
    if not found:
        raise NotFound(f"no such project: {key}", hint="see `hyperctl project ls`")
    return found[0]


def project(tenants: Tenants, key: str) -> Project:
    """What `one_project` does, among those that one sees."""
    return one_project(tenants, projects(tenants), key)


def check_manages(tenants: Tenants, which: Organisation) -> None:
    """:raise PermissionDenied: who asks is neither the administrator nor an owner."""
    who = current()
    by_token = who.tenant != NOWHERE and "manage" not in who.scopes
    if not is_administrator() and (tenants.role(who.user, which.id) != "owner" or by_token):
        raise PermissionDenied(f"this takes an owner of the organisation {which.name}")
