# SPDX-License-Identifier: Apache-2.0
"""A registry's credentials as they are sent to hyperd: Docker's X-Registry-Auth header, base64 of a JSON document."""

from __future__ import annotations

import base64
import json

from ..errors import Unsupported


def registry_auth(username: str, password: str, *, identity_token: str = "", registry_token: str = "") -> str:
    """The header's value (https://docs.docker.com/reference/api/engine/#section/Authentication); "" of nothing.

    An identity token is one by which a registry's server of tokens gives others (OAuth 2's refresh token).

    :raise Unsupported: there is nothing but a registry token, one of those others.
    """
    given = {"username": username, "password": password}
    given |= {"identitytoken": identity_token} if identity_token else {}
    if any(given.values()):
        return base64.urlsafe_b64encode(json.dumps(given).encode()).decode()
    if registry_token:
        # skopeo takes it as an argument only, where everybody on this host would read it.
        raise Unsupported("a registry token alone cannot be handed on without others seeing it",
                          hint="give a user name and a password, or an identity token")  # fmt: skip
    return ""
