# SPDX-License-Identifier: Apache-2.0
"""pull, images, rmi, tag, image-prune."""

from __future__ import annotations

import sys

import click

from ..errors import HyperError
from ..model.ids import short
from ..model.reference import parse_reference
from ..model.status import Image, RemovedImage
from ..model.units import format_age, format_size
from .context import client, confirm
from .output import show
from .pulling import pull_image


@click.command()
@click.option("--platform", default="", help="Platform, such as linux/amd64.")
@click.option("-q", "--quiet", is_flag=True, help="Only the image's id.")
@click.argument("image")
def pull(image: str, platform: str, quiet: bool) -> None:
    """Pull an image from a registry, or take it from an archive.

    IMAGE is a name as Docker knows it, or one of docker://NAME,
    docker-archive:FILE[:NAME], oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG],
    docker-daemon:NAME, builtin:busybox.
    """
    id_ = pull_image(client(), image, platform=platform, quiet=quiet)
    print(id_ if quiet else image)


def _age(image: Image) -> str:
    if image.damaged:
        return "damaged"
    return f"{format_age(image.created)} ago" if image.created else "N/A"


def _rows(image: Image) -> list[tuple[str, str]]:
    """Repository and tag of each name."""
    rows = []
    for name in image.names:
        reference = parse_reference(name)
        rows.append((reference._replace(tag="", digest="").familiar, reference.tag or "<none>"))
    return rows or [("<none>", "<none>")]


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("-a", "--all", "everything", is_flag=True, hidden=True)
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("--digests", is_flag=True, help="With the manifests' digests.")
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("name", default="")
def images(name: str, quiet: bool, everything: bool, no_trunc: bool, digests: bool, format_: str) -> None:
    """List images, newest first."""
    found = client().call(list[Image], "GET", "/images")
    entries = [(repo, tag, i) for i in found for repo, tag in _rows(i) if not name or name in (repo, f"{repo}:{tag}")]

    def id_of(image: Image) -> str:
        return image.id if no_trunc else short(image.id)

    if quiet:
        for id_ in dict.fromkeys(id_of(i) for _, _, i in entries):
            print(id_)
        return
    for i in found:
        if i.damaged:
            what = ", ".join(parse_reference(n).familiar for n in i.names) or short(i.id)
            print(
                f"hyperctl: image {what} is damaged: {i.damaged}: pull it again, or remove it with `hyperctl rmi`",
                file=sys.stderr,
            )
    head = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]

    def row(entry: tuple[str, str, Image]) -> list[str]:
        repo, tag, i = entry
        age = _age(i)
        return [repo, tag, *([i.digest] if digests else []), id_of(i), age, format_size(i.size)]

    def fields(entry: tuple[str, str, Image]) -> dict[str, object]:
        repo, tag, i = entry
        return {"repository": repo, "tag": tag, "digest": i.digest, "id": id_of(i), "createdAt": i.created,
                "createdSince": _age(i), "size": format_size(i.size), "bytes": i.size}  # fmt: skip

    show(entries, format_, head, row, fields)


def _report(removed: RemovedImage) -> None:
    for name in removed.untagged:
        print(f"Untagged: {name}")
    for id_ in removed.deleted:
        print(f"Deleted: {id_}")


@click.command()
@click.option("-f", "--force", is_flag=True, help="Remove all names of an image given by its id.")
@click.argument("names", nargs=-1, required=True)
def rmi(names: tuple[str, ...], force: bool) -> int:
    """Remove images; one that a container uses stays."""
    c, failed = client(), 0
    for name in names:
        try:
            _report(c.call(RemovedImage, "DELETE", "/images", {"name": name, "force": force}))
        except HyperError as error:
            print(f"hyperctl: {error}", file=sys.stderr)
            failed = 1
    return failed


@click.command()
@click.argument("image")
@click.argument("new_name")
def tag(image: str, new_name: str) -> None:
    """Give an image a further name."""
    client().do("POST", "/images/tag", {"name": image, "new": new_name})


@click.command(name="image-prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Also images with a name that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def image_prune(everything: bool, force: bool) -> None:
    """Remove images that nothing needs."""
    what = "all images that no container uses" if everything else "all images without a name"
    if not force:
        confirm(what)
    removed = client().call(RemovedImage, "POST", "/images/prune", {"all": everything})
    _report(removed)
    print(f"Total reclaimed space: {format_size(removed.freed)}")
