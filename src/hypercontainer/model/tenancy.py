# SPDX-License-Identifier: Apache-2.0
"""Organisations, their projects, users, and what users may do: docs/caas.md."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from .base import Model
from .policy import Policy
from .principal import Scope, Tenant, widened
from .quotas import Quota

Role = Literal["owner", "operator", "viewer", "auditor"]
ROLES: tuple[Role, ...] = ("owner", "operator", "viewer", "auditor")
OF_ROLE: dict[Role, frozenset[Scope]] = {
    "owner": widened(["operate", "manage", "audit"]),
    "operator": widened(["operate"]),
    "viewer": widened(["read"]),
    "auditor": widened(["audit"]),
}
OF_PROJECTS: frozenset[Scope] = OF_ROLE["owner"]  # what a token of a project may have at most
Text = Annotated[str, Meta(max_length=1000)]


class Organisation(Model, frozen=True, kw_only=True):
    """Who pays. A record."""

    id: str
    name: str
    created_at: str
    description: str = ""
    members: dict[str, Role] = field(default_factory=dict)  # by the ids of users
    owner: str = ""  # the principal that made it

    @property
    def tenant(self) -> Tenant:
        """Names of organisations are unique in the daemon."""
        return UNSET


class Project(Model, frozen=True, kw_only=True):
    """What things are made in; its id is their `tenant`. A record."""

    id: str
    name: str
    organisation: str  # its id
    created_at: str
    description: str = ""
    quota: Quota = field(default_factory=Quota)
    policy: Policy = field(default_factory=Policy)
    owner: str = ""  # the principal that made it

    @property
    def tenant(self) -> Tenant:
        """Its name is unique in its organisation."""
        return self.organisation


class User(Model, frozen=True, kw_only=True):
    """A person. A record."""

    id: str
    name: str
    created_at: str
    email: str = ""
    certificate: str = ""  # the common name in a client's certificate by which they are known
    login: str = ""  # what the identity provider says of them, in the claim that is configured
    owner: str = ""  # the principal that made it

    @property
    def tenant(self) -> Tenant:
        """Names of users are unique in the daemon."""
        return UNSET


class OrganisationRequest(Model, frozen=True, kw_only=True):
    """An organisation to make."""

    name: str
    description: Text = ""


class ProjectRequest(Model, frozen=True, kw_only=True):
    """A project to make; the organisation by name or id, "" where there is one only."""

    name: str
    organisation: str = ""
    description: Text = ""


class UserRequest(Model, frozen=True, kw_only=True):
    """A user to make."""

    name: str
    email: Text = ""
    certificate: Text = ""  # common name
    login: Text = ""  # at the identity provider


class UserUpdate(Model, frozen=True, kw_only=True):
    """What is to change of a user; "" takes it away."""

    email: Text | UnsetType = UNSET
    certificate: Text | UnsetType = UNSET  # common name
    login: Text | UnsetType = UNSET  # at the identity provider


class MemberRequest(Model, frozen=True, kw_only=True):
    """A user, by name or id, to bring into an organisation, or to give another role."""

    user: str
    role: Role


class Member(Model, frozen=True, kw_only=True):
    """Of an organisation."""

    user: str  # name
    id: str
    role: Role


class OrganisationInfo(Model, frozen=True, kw_only=True):
    """What is told of an organisation to who may see it."""

    id: str
    name: str
    created_at: str
    description: str = ""
    members: list[Member] = field(default_factory=list)
    projects: list[str] = field(default_factory=list)  # names


class ProjectInfo(Model, frozen=True, kw_only=True):
    """What is told of a project to who may see it."""

    id: str
    name: str
    organisation: str  # name
    organisation_id: str
    created_at: str
    description: str = ""
    quota: Quota = field(default_factory=Quota)
    policy: Policy = field(default_factory=Policy)


class UserInfo(Model, frozen=True, kw_only=True):
    """What is told of a user."""

    id: str
    name: str
    created_at: str
    email: str = ""
    certificate: str = ""
    login: str = ""
    organisations: list[str] = field(default_factory=list)  # names
