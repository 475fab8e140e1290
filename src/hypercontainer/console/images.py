# SPDX-License-Identifier: Apache-2.0
"""Images: what there are, and how one comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from aiohttp import web

from ..engine.host_access import check_registry
from ..errors import HyperError
from ..model.reference import parse_reference, parse_source
from ..sys import tasks
from .call import Call, Pages
from .streams import send_events

pages = Pages()


@pages.get("/images")
async def list_(c: Call) -> web.StreamResponse:
    """All of them."""
    return c.page("images.html", title="Images", images=c.engine.listing.images())


@pages.post("/images/remove")
async def remove(c: Call) -> web.StreamResponse:
    """Remove one that nothing needs."""
    c.engine.image_events.removed(await c.engine.images.remove(c.form.get("image", ""), force=True))
    return c.see("images")


@pages.post("/images/pull")
async def pull(c: Call) -> web.StreamResponse:
    """Fetch one; the answer tells how far it is."""
    name = c.form.get("name", "").strip()
    source = parse_source(name)
    if source.transport == "docker":
        await check_registry(parse_reference(source.location).host)
    progress, image = c.engine.pull(name)

    async def told() -> AsyncGenerator[object, None]:
        task = asyncio.ensure_future(image)
        try:
            async for update in progress.listen():
                yield update
            await task
            yield {"done": True}
        except HyperError as error:
            yield {"error": str(error)}
        finally:
            await tasks.end([task])

    return await send_events(c, told())
