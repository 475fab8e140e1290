# SPDX-License-Identifier: Apache-2.0
"""Who somebody is of whom an identity provider tells: a user, and in what role where the provider's claims give one."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import Conflict, PermissionDenied
from ...model.principal import DAEMON
from ...model.tenancy import ROLES, MemberRequest, Role, User, UserRequest
from ...model.tokens import NewToken
from ..principal import asked_by
from ..tenants import Tenants, pick
from ..tokens import Tokens
from .organisations import Organisations
from .users import Users

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoginSettings:
    """What is made of claims."""

    user_claim: str = "sub"
    roles_claim: str = ""  # "": claims give none
    roles: Mapping[str, tuple[str, Role]] = field(default_factory=dict)  # what is in it -> organisation by name, role
    life: float = 12 * 3600.0  # seconds that a log-in is good for


class Logins:
    """The daemon's own work: whoever logs in has no rights before."""

    def __init__(self, tenants: Tenants, tokens: Tokens, organisations: Organisations, users: Users) -> None:
        self._tenants, self._tokens = tenants, tokens
        self._organisations, self._users = organisations, users

    def enter(self, claims: Mapping[str, Any], settings: LoginSettings) -> NewToken:
        """A token that is the user. The claims have been verified.

        :raise PermissionDenied: they tell of no user of ours. :raise NoSpace: the disk is full.
        """
        login = _login(claims, settings.user_claim)
        given = _given(claims, settings)
        with asked_by(DAEMON):
            user = self._tenants.by_login(login)
            if user is None and given:
                user = self._make(login, claims)
            if user is None:
                raise PermissionDenied(
                    f"nobody here is known at the identity provider as {login!r}",
                    hint="an administrator makes you known: `hyperctl user create NAME --login ...`",
                )
            self._give_roles(user, given, {organisation for organisation, _ in settings.roles.values()})
            return self._tokens.create_login(user, settings.life)

    def _make(self, login: str, claims: Mapping[str, Any]) -> User:
        wanted = str(claims.get("preferred_username") or claims.get("email") or login).partition("@")[0]
        name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", wanted).strip("-_.")[:64] or "user"
        if pick(self._tenants.users(), name):  # another's, who is another person
            name = f"{name}-{hashlib.sha256(login.encode()).hexdigest()[:8]}"
        email = str(claims.get("email") or "")[:1000]
        try:
            made = self._users.create(UserRequest(name=name, email=email, login=login))
        except Conflict as error:
            raise PermissionDenied(f"no user can be made of the log-in: {error.message}") from None
        found = self._tenants.user(made.id)
        assert found is not None
        return found

    def _give_roles(self, user: User, given: Mapping[str, Role], ruled: set[str]) -> None:
        """In the organisations of which claims rule: what is given no more is taken away."""
        for name in sorted(ruled):
            organisation = pick(self._tenants.organisations(), name)
            if organisation is None:
                log.warning("oidc.roles names the organisation %s, which there is not", name)
                continue
            owners = [id_ for id_, role in organisation.members.items() if role == "owner"]
            if owners == [user.id] and given.get(name) != "owner":
                # Who is no owner at the provider any more is to be none here, whoever else there is.
                log.warning("%s was the only owner of the organisation %s, and is none at the identity provider now: "
                            "an administrator can make another", user.name, name)  # fmt: skip
            if role := given.get(name):
                self._organisations.put_member(organisation.id, MemberRequest(user=user.id, role=role))
            elif user.id in organisation.members:
                self._organisations.remove_member(organisation.id, user.id)


def _login(claims: Mapping[str, Any], claim: str) -> str:
    found = claims.get(claim)
    if not isinstance(found, str) or not 0 < len(found) <= 1000:
        raise PermissionDenied(
            f"the identity provider does not tell the claim {claim!r}", hint="correct `oidc.user_claim`, or its scopes"
        )
    if claim == "email" and claims.get("email_verified") is not True:
        raise PermissionDenied(f"the identity provider has not verified the address {found}", hint="verify it there")
    return found


def _given(claims: Mapping[str, Any], settings: LoginSettings) -> dict[str, Role]:
    """Organisation -> role; of several the one that comes first in the list of roles."""
    said = claims.get(settings.roles_claim, []) if settings.roles_claim else []
    words = said if isinstance(said, list) else [said]
    pairs = [settings.roles[word] for word in words if isinstance(word, str) and word in settings.roles]
    found: dict[str, Role] = {}
    for organisation, role in pairs:
        before = found.get(organisation, role)
        found[organisation] = min(before, role, key=ROLES.index)
    return found
