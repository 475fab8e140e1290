# SPDX-License-Identifier: Apache-2.0
"""Backups over REST."""

from __future__ import annotations

from aiohttp import web

from ..engine.backup.backups import PARTS
from ..serving.streaming import send_tar
from .router import Context, Routes

routes = Routes()


@routes.get(
    "/backup", query={"without": f"what is left out, with commas between: {', '.join(PARTS)}"},
    stream="application/zstd", scope="admin",
)  # fmt: skip
async def create(c: Context) -> web.StreamResponse:
    """The whole state of the daemon as an archive, which `hyperd --restore` takes, with the keys of secrets."""
    without = [part for part in c.text("without").split(",") if part]
    return await send_tar(c.request, c.engine.backups.create(without), "application/zstd")
