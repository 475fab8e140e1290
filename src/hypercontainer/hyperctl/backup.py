# SPDX-License-Identifier: Apache-2.0
"""backup: the whole state of hyperd as one file."""

from __future__ import annotations

import sys

import click

from ..errors import InvalidArgument
from .byte_progress import shown
from .context import client
from .whole_file import write_out


@click.group()
def backup() -> None:
    """The whole state of hyperd as one file: records, images, disks, volumes, snapshots, accounts and ledger.

    `hyperd --restore FILE` makes an empty root directory such a state again.
    """


@backup.command()
@click.option("--without", multiple=True, type=click.Choice(["images", "snapshots", "volumes"]),
              help="Leave the contents of these out; may be repeated.")  # fmt: skip
@click.argument("file")
def create(file: str, without: tuple[str, ...]) -> None:
    """Write a backup to FILE, which only you can read then; FILE may be - for stdout.

    hyperd works on meanwhile; a pod that runs stands still while its disks are copied on the host. The file has the
    keys of secrets, and hashes of tokens: keep it as you would keep the host.
    """
    if file == "-" and sys.stdout.isatty():
        raise InvalidArgument("refusing to write to a terminal", hint="name a file, or redirect stdout")
    response = client().open("GET", "/backup", {"without": ",".join(without)})
    with response.connection:
        write_out(shown(response.chunks(), "backup"), None if file == "-" else file, private=True)
