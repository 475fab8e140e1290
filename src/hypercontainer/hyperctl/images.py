# SPDX-License-Identifier: Apache-2.0
"""pull, push, images, history, rmi, tag, image-prune."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ..client.api import Query
from ..errors import HyperError, InvalidArgument, NotFound, Unsupported
from ..model.filters import encode_filters, read_filters
from ..model.ids import short
from ..model.images import HistoryEntry, Image, RemovedImage
from ..model.reference import name_matches, parse_reference
from ..model.units import format_age, format_size
from .context import client, confirm
from .output import show
from .pulling import all_tags, pull_image, push_image

_FILTERS = ("reference", "dangling", "before", "since", "until", "label")
_COMMAND_MAX = 45  # characters of a step that `history` shows, as Docker does


@click.command()
@click.option("--platform", default="", help="Platform, such as linux/amd64.")
@click.option("-q", "--quiet", is_flag=True, help="Only the image's id.")
@click.option("-a", "--all-tags", "every", is_flag=True, help="All that the registry has of this repository.")
@click.argument("image")
def pull(image: str, platform: str, quiet: bool, every: bool) -> None:
    """Pull an image from a registry, or take it from an archive.

    IMAGE is a name as Docker knows it, or one of docker://NAME,
    docker-archive:FILE[:NAME], oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG],
    docker-daemon:NAME, builtin:busybox.
    """
    c = client()
    for name in all_tags(c, image) if every else [image]:
        id_ = pull_image(c, name, platform=platform, quiet=quiet)
        print(id_ if quiet else name)


@click.command()
@click.option("-a", "--all-tags", "every", is_flag=True, help="All names that this repository has here.")
@click.option("-q", "--quiet", is_flag=True, help="Only the names that were pushed.")
@click.argument("image")
def push(image: str, every: bool, quiet: bool) -> None:
    """Push an image to the registry that its name says.

    Layers that the registry has are not sent again; an image of several
    platforms is pushed with all of them if they are all here.
    """
    c, names = client(), [image]
    if every:
        reference = parse_reference(image)
        if ":" in image.rpartition("/")[2] or reference.digest:
            raise InvalidArgument("--all-tags takes a repository, without a tag")
        known = [parse_reference(n) for i in c.call(list[Image], "GET", "/images") for n in i.names]
        names = [r.familiar for r in known if r.repository == reference.repository and r.tag]
        if not names:
            raise NotFound(f"no such image: {image}", hint="see `hyperctl images`")
    for name in names:
        push_image(c, name, quiet=quiet)
        print(parse_reference(name).full if quiet else name)


def _age(image: Image) -> str:
    if image.damaged:
        return "damaged"
    return f"{format_age(image.created)} ago" if image.created else "N/A"


def _rows(image: Image, patterns: Sequence[str]) -> list[tuple[str, str]]:
    """Repository and tag of each name that was asked for."""
    rows = []
    for name in image.names:
        reference = parse_reference(name)
        if not patterns or any(name_matches(name, p) for p in patterns):
            rows.append((reference._replace(tag="", digest="").familiar, reference.tag or "<none>"))
    return rows or ([] if patterns else [("<none>", "<none>")])


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("-a", "--all", "everything", is_flag=True, hidden=True)
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("--digests", is_flag=True, help="With the manifests' digests.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only those: reference=PATTERN, dangling=BOOL, before=IMAGE, since=IMAGE, until=TIME, label=KEY[=VALUE].",
)
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("name", default="")
def images(
    name: str, quiet: bool, everything: bool, no_trunc: bool, digests: bool, filters: tuple[str, ...], format_: str
) -> None:  # fmt: skip
    """List images, newest first; NAME is a pattern as --filter reference= takes it."""
    wanted = read_filters([*filters, *([f"reference={name}"] if name else [])], _FILTERS)
    found = client().call(list[Image], "GET", "/images", {"filters": encode_filters(wanted)})
    entries = [(repo, tag, i) for i in found for repo, tag in _rows(i, wanted.get("reference", []))]

    def id_of(image: Image) -> str:
        return image.id if no_trunc else short(image.id)

    if quiet:
        for id_ in dict.fromkeys(id_of(i) for _, _, i in entries):
            print(id_)
        return
    _tell_damaged(found)
    head = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]

    def row(entry: tuple[str, str, Image]) -> list[str]:
        repo, tag, i = entry
        return [repo, tag, *([_digest(repo, i)] if digests else []), id_of(i), _age(i), format_size(i.size)]

    def fields(entry: tuple[str, str, Image]) -> dict[str, object]:
        repo, tag, i = entry
        return {"repository": repo, "tag": tag, "digest": _digest(repo, i), "id": id_of(i), "createdAt": i.created,
                "createdSince": _age(i), "size": format_size(i.size), "bytes": i.size}  # fmt: skip

    show(entries, format_, head, row, fields, {"id": "IMAGE ID"})


def _digest(repository: str, image: Image) -> str:
    """What a registry knows it by."""
    found = (d.partition("@")[2] for d in image.repo_digests if d.partition("@")[0] == repository)
    return next(found, image.digest)


def _tell_damaged(found: list[Image]) -> None:
    for i in found:
        if i.damaged:
            what = ", ".join(parse_reference(n).familiar for n in i.names) or short(i.id)
            print(
                f"hyperctl: image {what} is damaged: {i.damaged}: pull it again, or remove it with `hyperctl rmi`",
                file=sys.stderr,
            )


@click.command()
@click.option("-H", "--human", type=bool, is_flag=False, flag_value="true", default="true", metavar="true|false",
              help="Sizes and dates for people [default: true].")  # fmt: skip
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("image")
def history(image: str, human: bool, no_trunc: bool, quiet: bool, format_: str) -> None:
    """Show how an image was made, the last step first; sizes are those of layers as they are stored."""
    found = client().call(list[HistoryEntry], "GET", "/images/history", {"name": image})

    def fields(step: HistoryEntry) -> dict[str, object]:
        by = " ".join(step.created_by.split())
        since = f"{format_age(step.created)} ago" if step.created else "N/A"
        return {
            "id": step.id if no_trunc or step.id.startswith("<") else short(step.id),
            "createdSince": since if human else step.created,
            "createdAt": step.created,
            "createdBy": by if no_trunc or len(by) <= _COMMAND_MAX else by[: _COMMAND_MAX - 1] + "…",
            "size": format_size(step.size) if human else str(step.size),
            "comment": step.comment,
        }

    def row(step: HistoryEntry) -> list[str]:
        f = fields(step)
        return [str(f[k]) for k in ("id", "createdSince", "createdBy", "size", "comment")]

    if quiet:
        print("\n".join(str(fields(step)["id"]) for step in found))
        return
    show(found, format_, ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], row, fields, {"id": "IMAGE"})


def _report(removed: RemovedImage) -> None:
    for name in removed.untagged:
        print(f"Untagged: {name}")
    for id_ in removed.deleted:
        print(f"Deleted: {id_}")


@click.command()
@click.option("-f", "--force", is_flag=True, help="Remove all names of an image given by its id.")
@click.option("--no-prune", is_flag=True, help="Accepted for Docker's sake: no image has parents here.")
@click.argument("names", nargs=-1, required=True)
def rmi(names: tuple[str, ...], force: bool, no_prune: bool) -> int:
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
@click.argument("source")
@click.argument("target")
def tag(source: str, target: str) -> None:
    """Give an image a further name."""
    client().do("POST", "/images/tag", {"name": source, "new": target})


@click.command(name="image-prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Also images with a name that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help="Only those: until=TIME, label=KEY[=VALUE], dangling=false for --all.")  # fmt: skip
def image_prune(everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove images that nothing needs."""
    wanted = read_filters(filters, ("dangling", "until", "label"))
    what = "all images that no container uses" if everything else "all images without a name"
    if not force:
        confirm(what)
    query: Query = {"all": everything, "filters": encode_filters(wanted)}
    removed = client().call(RemovedImage, "POST", "/images/prune", query)
    _report(removed)
    print(f"Total reclaimed space: {format_size(removed.freed)}")


@click.command()
@click.option("-f", "--filter", multiple=True, hidden=True)
@click.option("--format", default="", hidden=True)
@click.option("--limit", default=0, hidden=True)
@click.option("--no-trunc", is_flag=True, hidden=True)
@click.argument("term")
def search(term: str, **_: object) -> None:
    """Say where images are found: what registries speak has no search."""
    raise Unsupported(
        f"cannot search for {term!r}: what registries speak has no search",
        hint="look on hub.docker.com, or at the registry's own pages; `hyperctl pull -a NAME` takes all tags of a name",
    )
