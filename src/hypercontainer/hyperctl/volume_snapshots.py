# SPDX-License-Identifier: Apache-2.0
"""volume snapshot: volumes as they were at one instant."""

from __future__ import annotations

import click
import msgspec

from ..client.api import Query
from ..client.base import follow, volume_snapshot_route
from ..model.filters import encode_filters, read_filters
from ..model.ids import short
from ..model.thing_filters import VOLUME_SNAPSHOT_FILTERS
from ..model.units import format_age, format_size
from ..model.volume_snapshots import VolumeSnapshot, VolumeSnapshotRequest
from .byte_progress import Bar
from .context import client, for_each
from .options import pairs
from .output import show, show_details
from .standard import print_made

_NAMES = click.argument("volume_snapshots", metavar="SNAPSHOTS...", nargs=-1, required=True)
_ROUTE = "/volume-snapshots"


@click.group()
def snapshot() -> None:
    """Volumes as they were at one instant; `volume create --from` makes volumes of them."""


@snapshot.command()
@click.option("-n", "--name", default="", help="Name of the snapshot [default: the volume's, and some digits].")
@click.option("-l", "--label", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("volume")
def create(name: str, label: tuple[str, ...], quiet: bool, volume: str) -> None:
    """Keep a volume as it is now, and print the snapshot's id; pods that have it go on.

    The file system of a volume that a running pod has takes no writes while its disk is copied: at once where the host
    has reflinks (XFS, Btrfs), else as long as its data takes. Volumes that are directories have no snapshots.
    """
    request = VolumeSnapshotRequest(volume=volume, name=name, labels=pairs(label, "label", need_value=False))
    lines = client().lines("POST", _ROUTE, {"progress": True}, body=msgspec.json.encode(request))
    with Bar(f"copying {volume}", quiet=quiet) as bar:
        last = follow(
            lines, "snapshot", "the copy", lambda line: bar.update(line.get("current", 0), line.get("total") or None)
        )
    print_made(str(last["snapshot"]["id"]), "the snapshot")


@snapshot.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help=f"Only those: {', '.join(VOLUME_SNAPSHOT_FILTERS)}.")  # fmt: skip
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, filters: tuple[str, ...], format_: str) -> None:
    """List snapshots of volumes, newest first."""
    query: Query = {"filters": encode_filters(read_filters(filters, VOLUME_SNAPSHOT_FILTERS))}
    found = client().call(list[VolumeSnapshot], "GET", _ROUTE, query)
    if quiet:
        for s in found:
            print(s.name)
        return
    show(
        found, format_, ["SNAPSHOT ID", "NAME", "VOLUME", "CREATED", "SIZE", "USED", "MANNER"],
        lambda s: [short(s.id), s.name, s.volume, f"{format_age(s.created_at)} ago", format_size(s.size),
                   format_size(s.disk_usage), s.manner],
    )  # fmt: skip


snapshot.add_command(list_, "list")


@snapshot.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@_NAMES
def inspect(volume_snapshots: tuple[str, ...], format_: str) -> None:
    """Show all about snapshots of volumes, as JSON."""
    c = client()
    show_details([c.call(VolumeSnapshot, "GET", volume_snapshot_route(name)) for name in volume_snapshots], format_)


@snapshot.command()
@_NAMES
def rm(volume_snapshots: tuple[str, ...]) -> int:
    """Remove snapshots of volumes; volumes that were made of them have their own."""
    c = client()
    return for_each(volume_snapshots, lambda name: c.do("DELETE", volume_snapshot_route(name)))
