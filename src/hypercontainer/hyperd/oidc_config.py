# SPDX-License-Identifier: Apache-2.0
"""The table `oidc` of the configuration: who vouches for people."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec

from ..engine.tenancy.logins import LoginSettings
from ..errors import InvalidArgument
from ..model.tenancy import ROLES, Role
from ..model.units import parse_duration
from ..oidc.provider import Provider, ProviderSettings, check_address
from ..serving.logging_in import LoginsConfiguration
from .values import value

_LIFE_MAX = 30 * 86400.0  # seconds


class OidcConfig(msgspec.Struct, forbid_unknown_fields=True):
    """An identity provider, by OpenID Connect."""

    issuer: str = ""  # https://...; "": there is none
    client_id: str = ""
    client_secret_file: str = ""  # "": hyperd is a public client there
    scopes: list[str] = msgspec.field(default_factory=lambda: ["openid", "profile", "email"])
    user_claim: str = "sub"  # by which users are known: `hyperctl user create --login`
    roles_claim: str = ""  # a list of words, or one; "": claims give no roles
    roles: dict[str, str] = {}  # word -> ORGANISATION/ROLE
    life: str = "12h"  # of a log-in
    title: str = ""  # what people call the provider; "" is its host
    console: str = ""  # https://HOST[:PORT] of the console as browsers have it; "": as they say
    cacert: str = ""  # PEM: the provider's CA; "": this host's

    def configuration(self) -> LoginsConfiguration | None:
        """:raise InvalidArgument: a value that is malformed, naming it."""
        if not self.issuer:
            if self != OidcConfig():
                raise InvalidArgument("oidc.issuer is not said", hint="write it like https://id.example.org")
            return None
        if not self.client_id:
            raise InvalidArgument("oidc.client_id is not said", hint="it is what hyperd is known as at the provider")
        if "openid" not in self.scopes:
            raise InvalidArgument("oidc.scopes lack openid", hint="without it a provider says of nobody who they are")
        if self.console:
            check_address("oidc.console", self.console)
        if self.cacert and not Path(self.cacert).is_file():
            raise InvalidArgument(f"oidc.cacert {self.cacert} is no file")
        if bool(self.roles) != bool(self.roles_claim):
            raise InvalidArgument("oidc.roles and oidc.roles_claim go together", hint="give both, or none")
        life = value("oidc.life", self.life, parse_duration)
        if not 60 <= life <= _LIFE_MAX:
            raise InvalidArgument(f"oidc.life {self.life} is not from a minute to 30 days", hint="write it like 12h")
        wanted = [self.user_claim, self.roles_claim, *(["email_verified"] if self.user_claim == "email" else [])]
        provider = Provider(
            ProviderSettings(
                self.issuer,
                self.client_id,
                self._secret(),
                tuple(self.scopes),
                self.cacert,
                tuple(filter(None, wanted)),
            )
        )
        roles = {word: _role(word, given) for word, given in self.roles.items()}
        return LoginsConfiguration(
            provider, LoginSettings(self.user_claim, self.roles_claim, roles, life),
            self.title or self.issuer.partition("//")[2].partition("/")[0], self.console.rstrip("/"),
        )  # fmt: skip

    def _secret(self) -> str:
        if not self.client_secret_file:
            return ""
        try:
            found = Path(self.client_secret_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"oidc.client_secret_file cannot be read: {error}") from None
        if not found:
            raise InvalidArgument(f"oidc.client_secret_file {self.client_secret_file} is empty")
        return found


def _role(word: str, given: str) -> tuple[str, Role]:
    organisation, _, role = given.rpartition("/")
    found = next((r for r in get_args(Role) if r == role), None)
    if not organisation or found is None:
        raise InvalidArgument(
            f"oidc.roles.{word}: {given!r} is not ORGANISATION/ROLE", hint=f"roles are {', '.join(ROLES)}"
        )
    return organisation, found
