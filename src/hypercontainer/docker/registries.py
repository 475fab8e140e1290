# SPDX-License-Identifier: Apache-2.0
"""What registries have, and whether they let somebody in."""

from __future__ import annotations

from typing import Any

import msgspec

from ..engine.host_access import check_registry
from ..model.reference import parse_reference
from .credentials import Credentials, for_engine
from .router import Call, Routes

routes = Routes()
_HUB = "https://index.docker.io/v1/"  # as clients call Docker's own


class Distribution(msgspec.Struct, kw_only=True, rename="pascal"):
    """What a registry has of a name."""

    descriptor: dict[str, Any]
    platforms: list[dict[str, Any]]


class LoggedIn(msgspec.Struct, kw_only=True, rename="pascal"):
    """Nobody else is given a token."""

    status: str = "Login Succeeded"
    identity_token: str = ""


@routes.get("/distribution/{name:.+}/json", scope="operate")
async def distribution(c: Call) -> Distribution:
    """Ask the registry, whatever is here."""
    auth = for_engine(c.request.headers.get("X-Registry-Auth", ""))
    await check_registry(parse_reference(c.name).host)
    found = await c.engine.images.registries.look(c.name, auth=auth)
    entry = {"mediaType": found.entry.media_type, "digest": found.entry.digest, "size": found.entry.size}
    return Distribution(descriptor=entry, platforms=found.platforms)


@routes.post("/auth")
async def login(c: Call) -> LoggedIn:
    """Whether a registry takes a user's name and password; nothing of it is kept here."""
    asked = await c.body(Credentials)
    address = asked.serveraddress or _HUB
    host = "docker.io" if address == _HUB else address.partition("://")[2] or address
    await check_registry(host.rstrip("/"))
    await c.engine.images.registries.login(host.rstrip("/"), asked.username, asked.password)
    return LoggedIn()
