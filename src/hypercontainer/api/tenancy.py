# SPDX-License-Identifier: Apache-2.0
"""Organisations, projects and users over REST. Who sees and changes which of them: engine/tenancy/rights.py."""

from __future__ import annotations

from ..model.policy import Policy
from ..model.quotas import Quota
from ..model.tenancy import (
    MemberRequest,
    OrganisationInfo,
    OrganisationRequest,
    ProjectInfo,
    ProjectRequest,
    UserInfo,
    UserRequest,
    UserUpdate,
)
from .router import Context, Routes

routes = Routes()


@routes.post("/organisations", body=OrganisationRequest, status=201, scope="admin")
async def create_organisation(c: Context) -> OrganisationInfo:
    """Make an organisation."""
    return c.engine.tenancy.organisations.create(await c.body(OrganisationRequest))


@routes.get("/organisations", also=("audit",), anywhere=True)
async def list_organisations(c: Context) -> list[OrganisationInfo]:
    """List one's organisations, by name."""
    return c.engine.tenancy.organisations.all()


@routes.get("/organisations/{id}", also=("audit",), anywhere=True)
async def inspect_organisation(c: Context) -> OrganisationInfo:
    """Inspect an organisation."""
    return c.engine.tenancy.organisations.inspect(c.id)


@routes.post("/organisations/{id}/rename", query={"name": "the new name"}, scope="admin")
async def rename_organisation(c: Context) -> OrganisationInfo:
    """Rename an organisation."""
    return c.engine.tenancy.organisations.rename(c.id, c.text("name"))


@routes.delete("/organisations/{id}", scope="admin")
async def remove_organisation(c: Context) -> OrganisationInfo:
    """Remove an organisation that has no projects."""
    return c.engine.tenancy.organisations.remove(c.id)


@routes.put("/organisations/{id}/members", body=MemberRequest, scope="manage", anywhere=True)
async def put_member(c: Context) -> OrganisationInfo:
    """Bring a user into an organisation, or give a member another role."""
    return c.engine.tenancy.organisations.put_member(c.id, await c.body(MemberRequest))


@routes.delete("/organisations/{id}/members", query={"user": "name or id"}, scope="manage", anywhere=True)
async def remove_member(c: Context) -> OrganisationInfo:
    """Take a user out of an organisation, with their tokens in its projects."""
    return c.engine.tenancy.organisations.remove_member(c.id, c.text("user"))


@routes.post("/projects", body=ProjectRequest, status=201, scope="manage", anywhere=True)
async def create_project(c: Context) -> ProjectInfo:
    """Make a project."""
    return c.engine.tenancy.projects.create(await c.body(ProjectRequest))


@routes.get("/projects", also=("audit",), anywhere=True)
async def list_projects(c: Context) -> list[ProjectInfo]:
    """List one's projects, by name."""
    return c.engine.tenancy.projects.all()


@routes.get("/projects/{id}", also=("audit",), anywhere=True)
async def inspect_project(c: Context) -> ProjectInfo:
    """Inspect a project."""
    return c.engine.tenancy.projects.inspect(c.id)


@routes.post("/projects/{id}/rename", query={"name": "the new name"}, scope="manage", anywhere=True)
async def rename_project(c: Context) -> ProjectInfo:
    """Rename a project."""
    return c.engine.tenancy.projects.rename(c.id, c.text("name"))


@routes.put("/projects/{id}/quota", body=Quota, scope="admin")
async def limit_project(c: Context) -> ProjectInfo:
    """Say what may be in a project at most."""
    return c.engine.tenancy.projects.limit(c.id, await c.body(Quota))


@routes.put("/projects/{id}/policy", body=Policy, scope="admin")
async def restrict_project(c: Context) -> ProjectInfo:
    """Say what a project's containers may be."""
    return c.engine.tenancy.projects.restrict(c.id, await c.body(Policy))


@routes.delete("/projects/{id}", scope="manage", anywhere=True)
async def remove_project(c: Context) -> ProjectInfo:
    """Remove a project that is empty, with its tokens."""
    return await c.engine.tenancy.projects.remove(c.id)


@routes.post("/users", body=UserRequest, status=201, scope="admin")
async def create_user(c: Context) -> UserInfo:
    """Make a user."""
    return c.engine.tenancy.users.create(await c.body(UserRequest))


@routes.get("/users", scope="admin")
async def list_users(c: Context) -> list[UserInfo]:
    """List users, by name."""
    return c.engine.tenancy.users.all()


@routes.get("/users/{id}", scope="admin")
async def inspect_user(c: Context) -> UserInfo:
    """Inspect a user."""
    return c.engine.tenancy.users.inspect(c.id)


@routes.post("/users/{id}/update", body=UserUpdate, scope="admin")
async def update_user(c: Context) -> UserInfo:
    """Change by what a user is known; who was logged in by another name is logged out."""
    return c.engine.tenancy.users.update(c.id, await c.body(UserUpdate))


@routes.delete("/users/{id}", scope="admin")
async def remove_user(c: Context) -> UserInfo:
    """Remove a user, with their memberships and tokens."""
    return c.engine.tenancy.users.remove(c.id)
