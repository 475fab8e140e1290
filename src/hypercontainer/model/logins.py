# SPDX-License-Identifier: Apache-2.0
"""Log-ins by an identity provider, as REST tells of them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from .base import Model


class DeviceLogin(Model, frozen=True, kw_only=True):
    """A log-in that has begun; somebody opens the address and enters the code there."""

    handle: str  # a secret: who has it asks how it went
    user_code: str
    verification_uri: str
    verification_uri_complete: str = ""  # with the code in it; "" is none
    expires_in: float  # seconds
    interval: float  # seconds until one may ask


class DeviceQuestion(Model, frozen=True, kw_only=True):
    """How a log-in went."""

    handle: Annotated[str, Meta(max_length=200)]


class LoginAnswer(Model, frozen=True, kw_only=True):
    """How it went: it is not over while there is no `secret`."""

    secret: str = ""  # the token, as it is sent
    expires_at: str = ""
    user: str = ""  # name
    wait: float = 0.0  # seconds until one may ask again
