# SPDX-License-Identifier: Apache-2.0
"""volume: named volumes."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import click
import msgspec

from ..client.api import Query
from ..errors import InvalidArgument
from ..model.filters import encode_filters, read_filters
from ..model.pods import VolumeSpec
from ..model.status import Pruned, Volume, VolumeInfo
from ..model.thing_filters import VOLUME_FILTERS, VOLUME_PRUNE_FILTERS
from ..model.units import format_age, format_size, parse_size
from .container_view import describe_labels
from .context import client, confirm, for_each
from .names import complete_kind
from .options import pairs
from .output import show, show_details
from .standard import print_made
from .volume_snapshots import snapshot


@click.group()
def volume() -> None:
    """Named volumes, which outlive containers and pods."""


def volume_route(name: str) -> str:
    return f"/volumes/{quote(name, safe='')}"


@volume.command()
@click.argument("name", default="")
@click.option(
    "-d",
    "--driver",
    type=click.Choice(["block", "directory"]),
    help="block: a disk image, fast, one pod at a time. directory: of this host, for several pods. "
    "[default: the daemon's `volume_type`]",
)
@click.option("-s", "--size", default="", help="What a block volume may grow to [default: 16g].")
@click.option("--fstype", default="ext4", metavar="ext4|xfs", help="File system of a block volume.")
@click.option(
    "--image-format", "image_format", default="raw", metavar="raw|qcow2", help="Format of a block volume's image."
)
@click.option("-l", "--label", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.option(
    "-o", "--opt", multiple=True, metavar="size|fstype|format=VALUE", help="The same, as Docker writes driver options."
)
@click.option("--from", "source", default="", metavar="SNAPSHOT", shell_complete=complete_kind("volume_snapshot"),
              help="Begin as a snapshot of a volume was (`hyperctl volume snapshot`).")  # fmt: skip
def create(
    name: str,
    driver: Literal["block", "directory"] | None,
    size: str,
    fstype: str,
    image_format: str,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    source: str,
) -> None:
    """Create a volume and print its name."""
    options = {"size": size, "fstype": fstype, "format": image_format}
    for entry in opt:
        key, _, value = entry.partition("=")
        if key not in options:
            raise InvalidArgument(f"unknown volume option {entry!r}", hint="known are size, fstype, format")
        options[key] = value
    labels = pairs(label, "label", need_value=False)
    spec = VolumeSpec(
        name=name,
        driver=driver or "",
        fstype=options["fstype"],
        size=parse_size(options["size"]) if options["size"] else 0,
        format=options["format"],
        labels=labels,
        snapshot=source,
    )
    print_made(client().call(Volume, "POST", "/volumes", body=spec).name, "the volume")


@volume.command()
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help=f"Only those: {', '.join(VOLUME_FILTERS)}.")  # fmt: skip
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def ls(quiet: bool, filters: tuple[str, ...], format_: str) -> None:
    """List volumes."""
    query: Query = {"filters": encode_filters(read_filters(filters, VOLUME_FILTERS))}
    found = client().call(list[VolumeInfo], "GET", "/volumes", query)
    if quiet:
        for v in found:
            print(v.volume.name)
        return

    def row(v: VolumeInfo) -> list[str]:
        size = format_size(v.volume.size) if v.volume.size else ""
        return [
            v.volume.name,
            v.volume.driver,
            size,
            format_size(v.disk_usage),
            f"{format_age(v.volume.created_at)} ago",
            ",".join(v.used_by),
        ]

    show(found, format_, ["NAME", "DRIVER", "SIZE", "USED", "CREATED", "PODS"], row, _fields)


def _fields(v: VolumeInfo) -> dict[str, Any]:
    """All of it, and Docker's: https://docs.docker.com/reference/cli/docker/volume/ls/#format."""
    return {
        **msgspec.to_builtins(v), "name": v.volume.name, "driver": v.volume.driver, "scope": "local",
        "mountpoint": v.volume.path, "labels": describe_labels(v.volume.labels), "label": v.volume.labels,
        "links": len(v.used_by), "size": format_size(v.disk_usage),
    }  # fmt: skip


@volume.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format_: str) -> None:
    """Show all about volumes, as JSON."""
    c = client()
    found = [c.call(VolumeInfo, "GET", volume_route(name)) for name in names]
    show_details(found, format_)


@volume.command()
@click.option("-f", "--force", is_flag=True, help="Say nothing of those that are not there.")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...], force: bool) -> int:
    """Remove volumes that no pod has, with what is in them."""
    c = client()
    return for_each(names, lambda name: c.do("DELETE", volume_route(name), {"force": force}))


@volume.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those with a name, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help=f"Only those: {', '.join(VOLUME_PRUNE_FILTERS)}.")  # fmt: skip
def prune(everything: bool, force: bool, filters: tuple[str, ...]) -> None:
    """Remove volumes that were made without a name and that no pod has."""
    wanted = read_filters(filters, VOLUME_PRUNE_FILTERS)
    if not force:
        confirm(f"all volumes {'' if everything else 'without a name of yours '}that no pod has, with what is in them")
    done = client().call(Pruned, "POST", "/volumes/prune", {"all": everything, "filters": encode_filters(wanted)})
    for name in done.removed:
        print(name)
    print(f"Total reclaimed space: {format_size(done.freed)}")


volume.add_command(snapshot)
