# SPDX-License-Identifier: Apache-2.0
"""Tokens by which callers of the API are known that are no users of this host."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, field

from .base import Model
from .principal import Scope, Tenant

LIFE = 30 * 86400.0  # seconds that one is good for, where nothing is said
_LIFE_MAX = 10 * 366 * 86400


class TokenRequest(Model, frozen=True, kw_only=True):
    """A token to create."""

    name: str
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    life: Annotated[float, Meta(ge=0, le=_LIFE_MAX)] = LIFE  # seconds; 0 is without an end
    user: str = ""  # whose, by name or id: a member's of the project that is asked in; "": nobody's but the project's


class Token(Model, frozen=True, kw_only=True):
    """A record. The secret is not in it, only its SHA-256 in hexadecimal: it is 256 random bits."""

    id: str
    name: str
    created_at: str
    digest: str
    scopes: list[Scope]
    expires_at: str = ""  # "" is never
    last_used_at: str = ""  # "" is never; up to a minute old where hyperd was killed
    owner: str = ""  # the principal that made it
    tenant: Tenant = UNSET
    user: str = ""  # id; it can do no more than they may at the time


class TokenInfo(Model, frozen=True, kw_only=True):
    """What is told of a token."""

    id: str
    name: str
    created_at: str
    scopes: list[Scope]
    expires_at: str = ""
    expired: bool = False
    last_used_at: str = ""  # "" is never
    owner: str = ""
    user: str = ""  # name


class NewToken(Model, frozen=True, kw_only=True):
    """What is told once, when it is made: `secret` is the whole token, as it is sent."""

    token: TokenInfo
    secret: str = field(default="")
