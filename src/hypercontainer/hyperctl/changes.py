# SPDX-License-Identifier: Apache-2.0
"""diff and export: what a container's root file system has become."""

from __future__ import annotations

import sys

import click

from ..client.api import container_route
from ..errors import HyperError, InvalidArgument
from ..model.status import Change
from .context import client
from .output import print_json
from .standard import naming, write_all


@click.command()
@click.option("--format", "format_", default="", metavar="json", help="How to print.")
@click.argument("container")
def diff(container: str, format_: str) -> None:
    """Show what a container added (A), changed (C) and deleted (D) in its image's files."""
    found = client().call(list[Change], "GET", container_route(container, "/changes"))
    if format_ == "json":
        print_json(found)
        return
    for change in found:
        print(f"{change.kind} {change.path}")


@click.command()
@click.option("-o", "--output", type=click.Path(), help="Write to a file instead of stdout.")
@click.argument("container")
def export(container: str, output: str | None) -> None:
    """Write a container's root file system as a tar archive, without its volumes."""
    if not output and sys.stdout.isatty():
        raise InvalidArgument("refusing to write a tar stream to a terminal", hint="use -o, or redirect stdout")
    response = client().open("GET", container_route(container, "/export"))
    with response.connection:
        if not output:
            for chunk in response.chunks():
                write_all(1, memoryview(chunk))
            return
        try:
            out = open(output, "wb")
        except OSError as error:
            raise HyperError(f"cannot write {output}: {error.strerror}") from error
        with naming(output), out:
            for chunk in response.chunks():
                out.write(chunk)
