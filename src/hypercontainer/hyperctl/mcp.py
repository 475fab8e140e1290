# SPDX-License-Identifier: Apache-2.0
"""mcp: sandboxes as tools of a language model."""

from __future__ import annotations

import click


@click.command()
@click.option("--image", default="python:3", help="Image of sandboxes that name none [default: python:3].")
@click.option(
    "--ttl", type=click.FloatRange(min=1), default=3600.0, metavar="SECONDS",
    help="A sandbox that nothing was asked of for so long is ended [default: 3600].",
)  # fmt: skip
@click.pass_context
def mcp(ctx: click.Context, image: str, ttl: float) -> None:
    """Serve the Model Context Protocol on stdin and stdout: tools for sandboxes, commands, files, forks.

    Whoever starts this has a session: it uses the sandboxes that it made, and they end with it; of one that is killed
    they end by --ttl. It takes the package mcp (`pip install 'hypercontainer[mcp]'`).
    """
    import asyncio

    from ..integrations.mcp import Tools, serve

    async def session() -> None:
        await serve(Tools(ctx.find_root().obj, image, ttl))

    asyncio.run(session())
