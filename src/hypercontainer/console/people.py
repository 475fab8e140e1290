# SPDX-License-Identifier: Apache-2.0
"""Members and tokens, for owners; the audit log, for auditors, too."""

from __future__ import annotations

from aiohttp import web

from ..engine.principal import current
from ..errors import InvalidArgument, NotFound
from ..model.principal import SCOPES
from ..model.tenancy import OF_PROJECTS, ROLES, MemberRequest
from ..model.tokens import LIFE, TokenRequest
from ..model.units import parse_duration
from .call import Call, Pages

pages = Pages()
_LATEST = 200  # requests of the audit log that its page has


@pages.get("/members", scope="manage")
async def members(c: Call) -> web.StreamResponse:
    """Of the project's organisation."""
    found = c.engine.tenancy.organisations.inspect(_organisation(c))
    return c.page("members.html", title="Members", organisation=found, roles=ROLES)


@pages.post("/members", scope="manage")
async def put_member(c: Call) -> web.StreamResponse:
    """Bring in a user, or give a member another role."""
    role = next((r for r in ROLES if r == c.form.get("role")), None)
    if role is None:
        raise InvalidArgument("the role is not said", hint=f"choose one of {', '.join(ROLES)}")
    request = MemberRequest(user=c.form.get("user", "").strip(), role=role)
    c.engine.tenancy.organisations.put_member(_organisation(c), request)
    return c.see("members")


@pages.post("/members/{name}/remove", scope="manage")
async def remove_member(c: Call) -> web.StreamResponse:
    """With their tokens."""
    c.engine.tenancy.organisations.remove_member(_organisation(c), c.name)
    return c.see("members")


@pages.get("/tokens", scope="manage")
async def tokens(c: Call) -> web.StreamResponse:
    """All of them, without their secrets."""
    return _tokens(c, "")


@pages.post("/tokens", scope="manage")
async def create_token(c: Call) -> web.StreamResponse:
    """Make one; its secret is on the page that answers, and nowhere after that."""
    scope = next((s for s in SCOPES if s == c.form.get("scope")), None)
    if scope is None:
        raise InvalidArgument("the scope is not said", hint=f"choose one of {', '.join(SCOPES)}")
    life = c.form.get("life", "").strip()
    request = TokenRequest(
        name=c.form.get("name", "").strip(), scopes=[scope], life=parse_duration(life) if life else LIFE,
        user=c.form.get("user", "").strip(),
    )  # fmt: skip
    return _tokens(c, c.engine.tokens.create(request).secret)


@pages.post("/tokens/{name}/revoke", scope="manage")
async def revoke_token(c: Call) -> web.StreamResponse:
    """With what is open by it."""
    c.engine.tokens.revoke(c.name)
    return c.see("tokens")


@pages.get("/audit", scope="audit")
async def audit(c: Call) -> web.StreamResponse:
    """The latest requests: of the project, or of all where there is none."""
    entries = await c.engine.read_audit(current().tenant, _LATEST) if c.engine.audit else None
    return c.page("audit.html", title="Audit log", entries=entries)


def _tokens(c: Call, secret: str) -> web.StreamResponse:
    may = [s for s in SCOPES if s in current().scopes and (not current().tenant or s in OF_PROJECTS)]
    return c.page("tokens.html", title="Tokens", tokens=c.engine.tokens.all(), scopes_given=may, secret=secret)


def _organisation(c: Call) -> str:
    """:raise NotFound: there is no project, so there is none."""
    found = c.engine.tenants.project(current().tenant)
    if found is None:
        raise NotFound("members are an organisation's, and this is no project")
    return found.organisation
