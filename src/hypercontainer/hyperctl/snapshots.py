# SPDX-License-Identifier: Apache-2.0
"""snapshot: pods that were saved while they ran; and pods that go on from that."""

from __future__ import annotations

import os
import sys

import click
import msgspec

from ..client.base import pod_route, snapshot_route
from ..errors import InvalidArgument
from ..model.ids import short
from ..model.snapshots import FORKS_MAX, SnapshotInfo
from ..model.status import PodDetails
from ..model.units import format_age, format_size
from .bundles import opened, pieces_of
from .byte_progress import shown
from .context import client, for_each
from .output import show, show_details
from .standard import print_made
from .whole_file import write_out

_NAMES = click.argument("snapshots", nargs=-1, required=True)


@click.group()
def snapshot() -> None:
    """Pods that were saved while they ran: memory, disks and programs at one instant."""


@snapshot.command()
@click.argument("pod")
@click.option("-n", "--name", default="", help="Name of the snapshot [default: the pod's, and some digits].")
def create(pod: str, name: str) -> None:
    """Save a pod or container that runs, and print the snapshot's id; it runs on."""
    made = client().call(SnapshotInfo, "POST", "/snapshots", body={"pod": pod, "name": name})
    print_made(made.id, "the snapshot")


@snapshot.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, format_: str) -> None:
    """List snapshots, newest first."""
    found = client().call(list[SnapshotInfo], "GET", "/snapshots")
    if quiet:
        for s in found:
            print(s.name)
        return
    show(
        found,
        format_,
        ["SNAPSHOT ID", "NAME", "POD", "CREATED", "MEMORY", "SIZE"],
        lambda s: [
            short(s.id), s.name, s.pod, f"{format_age(s.created_at)} ago", format_size(s.memory), format_size(s.size),
        ],
    )  # fmt: skip


snapshot.add_command(list_, "list")


@snapshot.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@_NAMES
def inspect(snapshots: tuple[str, ...], format_: str) -> int:
    """Show all about snapshots, as JSON."""
    c = client()
    show_details([c.call(SnapshotInfo, "GET", snapshot_route(name)) for name in snapshots], format_)
    return 0


@snapshot.command()
@_NAMES
def rm(snapshots: tuple[str, ...]) -> int:
    """Remove snapshots; pods that went on from them have their own."""
    c = client()
    return for_each(snapshots, lambda name: c.do("DELETE", snapshot_route(name)))


@snapshot.command()
@click.option("-o", "--output", type=click.Path(), help="Write to a file instead of stdout; - is stdout, too.")
@click.argument("snapshot")
def export(snapshot: str, output: str | None) -> None:
    """Write a snapshot as one file, which `snapshot import` takes, of this hyperd or of one on a host like this one.

    The file has all that was in the pod's memory, its secrets too, unencrypted; with -o only you can read it.
    """
    to_file = output if output != "-" else None
    if not to_file and sys.stdout.isatty():
        raise InvalidArgument("refusing to write to a terminal", hint="use -o, or redirect stdout")
    response = client().open("GET", snapshot_route(snapshot, "/export"))
    with response.connection:
        write_out(shown(response.chunks(), f"exporting {snapshot}"), to_file, private=True)


@snapshot.command(name="import")
@click.option("-n", "--name", default="", help="Name of the snapshot [default: the one that it had].")
@click.argument("file")
def import_(file: str, name: str) -> None:
    """Take a snapshot out of a file that export wrote, and print its id; FILE may be - for stdin.

    It must fit this host: the same version of QEMU and, with KVM, the same processor, and the images of its containers
    must be here. Import only what you trust: it says what files of this host a pod opens.
    """
    if file == "-" and sys.stdin.isatty():
        raise InvalidArgument("there is no snapshot on a terminal", hint="name a file, or redirect stdin")
    with opened(file) as source:
        total = os.fstat(source.fileno()).st_size if file != "-" else None
        body = shown(pieces_of(source), f"importing {file}", total)
        response = client().open("POST", "/snapshots/import", {"name": name}, body=body)
        print_made(msgspec.json.decode(response.read(), type=SnapshotInfo).id, "the snapshot")


@click.command()
@click.argument("snapshot")
@click.option("-n", "--name", default="", help="Name of the pod [default: the saved one's, and some digits].")
def restore(snapshot: str, name: str) -> None:
    """Make a pod that goes on where a saved one was, and print its id.

    It has its own name, addresses and disks; ports that were published get other numbers (`hyperctl ports ls`).
    """
    made = client().call(PodDetails, "POST", snapshot_route(snapshot, "/restore"), body={"name": name})
    print_made(made.pod.id, "the pod")


@click.command()
@click.argument("pod")
@click.option("-n", "--count", type=click.IntRange(1, FORKS_MAX), default=1, help="How many [default: 1].")
@click.option("--name", default="", help="Name of the new pod; of several, each has a number after it.")
def fork(pod: str, count: int, name: str) -> None:
    """Make pods that go on where a pod or container that runs is now, and print their ids; it runs on.

    Each has its own name, addresses and disks, and shares memory with the others until it writes; ports that are
    published get other numbers (`hyperctl ports ls`).
    """
    for made in client().call(list[PodDetails], "POST", pod_route(pod, "/fork"), body={"count": count, "name": name}):
        print_made(made.pod.id, "the pod")
