# SPDX-License-Identifier: Apache-2.0
"""save, load, import: images as archives."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from ..client.api import Client
from ..client.base import follow
from ..errors import InvalidArgument, NotFound
from ..model.images import LoadedImage
from .context import client
from .output import PullProgress
from .whole_file import write_out

_CHUNK = 1 << 20  # bytes
_KINDS = click.Choice(["docker-archive", "oci-archive"])


@click.command()
@click.option("-o", "--output", type=click.Path(), help="Write to a file instead of stdout.")
@click.option("--format", "format_", type=_KINDS, default="docker-archive", help="Kind of archive.")
@click.option("--platform", default="", help="Only what is for this platform, such as linux/amd64.")
@click.argument("images", nargs=-1, required=True)
def save(images: tuple[str, ...], output: str | None, format_: str, platform: str) -> None:
    """Write images as an archive, which load takes, of this and of other engines.

    A name without a tag stands for all of its tags. Layers that images share
    are in it once. The default has OCI's layout and Docker's manifest.json, as
    `docker save` writes it.
    """
    if not output and sys.stdout.isatty():
        raise InvalidArgument("refusing to save to a terminal", hint="use -o, or redirect stdout")
    response = client().open(
        "GET", "/images/save", {"names": json.dumps(images), "format": format_, "platform": platform}
    )
    with response.connection:
        write_out(response.chunks(), output)


@click.command()
@click.option("-i", "--input", "input_", type=click.Path(), help="Read from a file instead of stdin.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--platform", default="", help="Names stand for images of this platform, such as linux/amd64.")
@click.argument("file", default="")
def load(input_: str | None, quiet: bool, platform: str, file: str) -> None:
    """Take images from an archive that save, docker save or podman save wrote, or App Container images, compressed or
    not; FILE is the same as -i.
    """
    input_ = input_ or file
    if not input_ and sys.stdin.isatty():
        raise InvalidArgument("there is no archive on a terminal", hint="use -i, or redirect stdin")
    for image in load_file(client(), input_ or "-", quiet=quiet, platform=platform):
        _tell(image)


def load_file(c: Client, path: str, *, quiet: bool, platform: str = "") -> list[LoadedImage]:
    """All images of an archive; - is stdin.

    :raise NotFound: it cannot be read. :raise HyperError: what the daemon says of it.
    """
    with opened(path) as file, PullProgress(quiet) as progress:
        lines = c.lines("POST", "/images/load", {"platform": platform}, body=pieces_of(file))
        last = follow(lines, "loaded", "the load", progress.update)
    return msgspec.convert(last["loaded"], list[LoadedImage])


def _tell(image: LoadedImage) -> None:
    """In Docker's words."""
    for name, old in image.replaced.items():
        print(f"The image {name} already exists, renaming the old one with ID {old} to empty string")
    for name in image.names:
        print(f"Loaded image: {name}")
    if not image.names:
        print(f"Loaded image ID: {image.id}")
    if image.app:
        print(f"App Container image ID: {image.app.id}")
        for what in image.app.ignored:
            print(f"hyperctl: {what} has no counterpart here and is ignored", file=sys.stderr)


@click.command(name="import")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION",
              help="An instruction of a Dockerfile, such as 'CMD [\"sh\"]'.")  # fmt: skip
@click.option("-m", "--message", default="", help="Comment of the image's one step.")
@click.option("--platform", default="", help="Platform, such as linux/amd64.")
@click.argument("file")
@click.argument("reference", default="")
def import_(file: str, reference: str, changes: tuple[str, ...], message: str, platform: str) -> None:
    """Make an image of an archive of files, such as export writes; FILE may be - for stdin."""
    if "://" in file:
        raise InvalidArgument(f"{file} is not fetched", hint="fetch it, and give the file or -")
    if file == "-" and sys.stdin.isatty():
        raise InvalidArgument("there is no archive on a terminal", hint="name a file, or redirect stdin")
    query = {
        "reference": reference, "message": message, "platform": platform, "changes": json.dumps(changes), "source": file
    }  # fmt: skip
    with opened(file) as source:
        response = client().open("POST", "/images/import", query, body=pieces_of(source))
        print(msgspec.json.decode(response.read(), type=LoadedImage).id)


def opened(path: str) -> BinaryIO:
    """:raise NotFound: it cannot be read."""
    try:
        found = open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
        if Path(path).is_dir():
            raise NotFound(f"{path} is a directory", hint="name an archive")
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    return found


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """All of it."""
    while data := file.read(_CHUNK):
        yield data
