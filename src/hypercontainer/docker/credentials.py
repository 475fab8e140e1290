# SPDX-License-Identifier: Apache-2.0
"""`X-Registry-Auth`: by what a client is known to a registry.

Base64 (of URLs) of a document; clients send an empty one, or `null`, where they have nothing. Its source is "Registry
authentication" of the Engine API's reference.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from ..errors import InvalidArgument
from ..model.registry_auth import registry_auth
from ..sys.documents import UNREADABLE


class Credentials(msgspec.Struct, kw_only=True):
    """What the document may have; `auth` is base64 of `username:password`, as in a client's configuration."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


def read_credentials(header: str) -> Credentials:
    """:raise InvalidArgument: it is none."""
    if not header:
        return Credentials()
    try:
        raw = base64.b64decode(header.replace("-", "+").replace("_", "/") + "=" * (-len(header) % 4))
        found = msgspec.json.decode(raw, type=Credentials | None) or Credentials()
        if found.auth and not found.username:
            name, _, password = base64.b64decode(found.auth).decode().partition(":")
            return msgspec.structs.replace(found, username=name, password=password)
        return found
    except (*UNREADABLE, binascii.Error) as error:
        raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from error


def for_engine(header: str) -> str:
    """As the engine takes them: such a document, or "" where nothing is in it.

    :raise InvalidArgument: it is none. :raise Unsupported: they are a registry token.
    """
    found = read_credentials(header)
    return registry_auth(
        found.username, found.password, identity_token=found.identitytoken, registry_token=found.registrytoken
    )
