# SPDX-License-Identifier: Apache-2.0
"""diff, export and commit: what a container's root file system has become."""

from __future__ import annotations

import sys

import click

from ..client.api import container_route
from ..errors import InvalidArgument
from ..model.images import CommitRequest, LoadedImage
from ..model.status import Change
from .context import client
from .dockerflags import DockerCommand
from .output import show
from .whole_file import write_out


@click.command()
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("container")
def diff(container: str, format_: str) -> None:
    """Show what a container added (A), changed (C) and deleted (D) in its image's files."""
    found = client().call(list[Change], "GET", container_route(container, "/changes"))
    if format_:
        show(found, format_, ["CHANGE TYPE", "PATH"], lambda c: [c.kind, c.path],
             lambda c: {"kind": c.kind, "type": c.kind, "path": c.path})  # fmt: skip
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
        write_out(response.chunks(), output)


@click.command(cls=DockerCommand)
@click.option("-a", "--author", default="", help="Who has made the image.")
@click.option("-m", "--message", default="", help="Comment of its last step.")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION",
              help="An instruction of a Dockerfile, such as 'CMD [\"sh\"]'.")  # fmt: skip
@click.option("-p", "--pause/--no-pause", default=True, help="Let the container stand still meanwhile; it does.")
@click.argument("container")
@click.argument("reference", default="")
def commit(container: str, reference: str, author: str, message: str, changes: tuple[str, ...], pause: bool) -> None:
    """Make an image of a container: of what its files have become, without its volumes."""
    request = CommitRequest(reference=reference, author=author, message=message, changes=list(changes), pause=pause)
    print(client().call(LoadedImage, "POST", container_route(container, "/commit"), body=request).id)
