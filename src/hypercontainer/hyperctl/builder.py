# SPDX-License-Identifier: Apache-2.0
"""builder: what builds images."""

from __future__ import annotations

import click

from ..model.units import format_size
from ..model.usage import Freed
from .context import client, confirm


@click.group()
def builder() -> None:
    """What builds images: its cache, and its virtual machine."""


@builder.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also what was used lately.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(everything: bool, force: bool) -> None:
    """Remove what the build cache has and no build uses."""
    if not force:
        confirm("what the build cache has and no build uses")
    found = client().call(Freed, "POST", "/build/prune", {"all": everything})
    print(f"Total reclaimed space: {format_size(found.freed)}")


@builder.command()
def stop() -> None:
    """End its virtual machine; the next build starts another, which has the cache."""
    client().do("POST", "/build/stop")
