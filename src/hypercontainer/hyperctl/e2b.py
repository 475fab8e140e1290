# SPDX-License-Identifier: Apache-2.0
"""e2b: a server for programs that were written for E2B's sandboxes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import InvalidArgument

_PORT = 3000


@click.group()
def e2b() -> None:
    """For programs that were written for E2B: they run here, with sandboxes of this host."""


@e2b.command()
@click.option("--listen", default="127.0.0.1", metavar="ADDRESS", help="Address to listen at [default: 127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, help=f"Port [default: {_PORT}]; 0: a free one.")
@click.option("--image", default="python:3", help="Image of who names no template [default: python:3].")
@click.option(
    "--key-file", metavar="FILE", help="File with the key that clients show [default: $E2B_API_KEY, or a new one]."
)
@click.pass_context
def serve(ctx: click.Context, listen: str, port: int, image: str, key_file: str | None) -> None:
    """Serve E2B's API until it is ended, and print what its clients are to have in their environment.

    Their templates are images, or built of images by clients. Sandboxes stay when this ends. It speaks plain HTTP:
    elsewhere than on the loopback interface it belongs behind a proxy that speaks TLS.
    """
    import asyncio

    from ..integrations.e2b.server import Server, serve

    key = _key(key_file)

    def listening(address: str, number: int) -> None:
        url = f"http://{f'[{address}]' if ':' in address else address}:{number}"
        print(f"export E2B_API_URL={url} E2B_SANDBOX_URL={url} E2B_VOLUME_API_URL={url} E2B_API_KEY={key}", flush=True)

    host: str | None = ctx.find_root().obj
    asyncio.run(serve(Server(key, host=host, image=image), listen, port, listening))


def _key(file: str | None) -> str:
    import secrets

    if file:
        key = Path(file).read_text().strip()
        if not key:
            raise InvalidArgument(f"{file} is empty", hint="write a key into it")
        return key
    return os.environ.get("E2B_API_KEY") or f"e2b_{secrets.token_hex(20)}"
