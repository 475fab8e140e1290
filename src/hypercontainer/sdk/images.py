# SPDX-License-Identifier: Apache-2.0
"""Images for sandboxes: pulled when they are not there."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ..client.base import raise_known
from ..client.sources import absolute, auth_header, is_place
from ..errors import NotFound, Unavailable
from ..model.images import Image
from ..model.specs import ContainerSpec
from ..model.status import Container
from .api import Api


async def create(api: Api, spec: ContainerSpec) -> Container:
    """Create and start; pull the image as the policy says.

    :raise NotFound: there is no such image. :raise StartFailed: the program could not be started.
    """
    if is_place(spec.image) and spec.pull != "never":
        spec = msgspec.structs.replace(spec, image=await pull(api, spec.image), pull="never")
    if spec.pull == "always":
        await pull(api, spec.image)
    try:
        return await _create(api, spec)
    except NotFound:
        if spec.pull != "missing" or await _is_there(api, spec.image):
            raise
    await pull(api, spec.image)
    return await _create(api, spec)


async def _create(api: Api, spec: ContainerSpec) -> Container:
    return await api.call(Container, "POST", "/containers", {"start": True}, spec)


async def _is_there(api: Api, name: str) -> bool:
    try:
        await api.call(Image, "GET", "/images/inspect", {"name": name})
    except NotFound:
        return False
    return True


async def pull(api: Api, source: str, auth: dict[str, str] | None = None) -> str:
    """Its name, or its id when it has none. `auth`: a header; None: your own logins at registries.

    :raise HyperError: what the daemon says went wrong.
    """
    last: dict[str, Any] = {}
    headers = await asyncio.to_thread(auth_header, source) if auth is None else auth  # it may ask a program
    query = {"name": absolute(source)}
    async with api.open("POST", "/images/pull", query, headers=headers) as exchange:
        async for line in exchange.lines():
            last = msgspec.json.decode(line)
            if "error" in last:
                raise_known(last["error"])
    if "digest" not in last:
        raise Unavailable(f"hyperd closed the connection while it pulled {source}", hint="see its log, and try again")
    return str(last.get("name") or last["image"])
