# SPDX-License-Identifier: Apache-2.0
"""system: df, prune, and the verbs about the daemon."""

from __future__ import annotations

import shlex
from typing import Any, ClassVar

import click

from ..client.api import Client
from ..model.filters import encode_filters, read_filters
from ..model.ids import short
from ..model.images import RemovedImage
from ..model.reference import parse_reference
from ..model.status import Pruned
from ..model.units import format_age, format_size
from ..model.usage import DiskUsage, Freed
from .cli import HELP, VERBS, LazyGroup
from .context import client
from .groups import PRUNE_FILTERS, print_pruned
from .output import print_one, print_table, show
from .warning import ask

_HEAD = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]


class _System(LazyGroup):
    verbs: ClassVar[dict[str, str]] = {
        "df": "df:df",
        "events": VERBS["events"],
        "info": VERBS["info"],
        "prune": "df:prune",
    }
    summaries: ClassVar[dict[str, str]] = {
        "df": "Show what takes disk space",
        "events": HELP["events"],
        "info": HELP["info"],
        "prune": "Remove what nothing needs",
    }


@click.group(cls=_System)
def system() -> None:
    """What is about the daemon and all that it has."""


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, str]:
    share = f" ({100 * free // size}%)" if size else ""
    return {"type": kind, "totalCount": str(total), "active": str(active), "size": format_size(size),
            "reclaimable": format_size(free) + share}  # fmt: skip


def summary(usage: DiskUsage) -> list[dict[str, str]]:
    """Docker's rows, and one of snapshots, and of suspended pods, where there are some."""
    used = [i for i in usage.images if i.containers]
    stopped = [c for c in usage.containers if not c.running]
    idle = [v for v in usage.volumes if not v.used_by]
    kept = sum(s.size for s in usage.snapshots)
    rows = [_row("Snapshots", len(usage.snapshots), 0, kept, kept)] if usage.snapshots else []
    copied = sum(s.disk_usage for s in usage.volume_snapshots)
    rows += [_row("Volume Snapshots", len(usage.volume_snapshots), 0, copied, copied)] if usage.volume_snapshots else []
    asleep = len(usage.suspended)
    rows += [_row("Suspended Pods", asleep, asleep, sum(s.size for s in usage.suspended), 0)] if asleep else []
    return [
        _row("Images", len(usage.images), len(used), usage.layers_size, usage.images_reclaimable),
        _row("Containers", len(usage.containers), len(usage.containers) - len(stopped),
             sum(c.size for c in usage.containers), sum(c.size for c in stopped)),
        _row("Local Volumes", len(usage.volumes), len(usage.volumes) - len(idle),
             sum(v.disk_usage for v in usage.volumes), sum(v.disk_usage for v in idle)),
        _row("Build Cache", usage.build_cache.records, usage.build_cache.active, usage.build_cache.size,
             usage.build_cache.reclaimable),
        *rows,
    ]  # fmt: skip


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Each image, container and volume.")
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def df(verbose: bool, format_: str) -> None:
    """Show what takes disk space."""
    usage = client().call(DiskUsage, "GET", "/system/df")
    if not verbose:
        show(summary(usage), format_, _HEAD, lambda row: list(row.values()))
    else:
        print_one(usage, format_, lambda: _verbose(usage))


def _verbose(usage: DiskUsage) -> None:
    print("Images space usage:\n")
    print_table(
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
        [
            [*_name(i.image.names), short(i.image.id), f"{format_age(i.image.created)} ago", format_size(i.size),
             format_size(i.shared_size), format_size(i.size - i.shared_size), str(i.containers)]
            for i in usage.images
        ],
    )  # fmt: skip
    print("\nContainers space usage:\n")
    print_table(
        ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"],
        [
            [short(c.id), c.image, f'"{shlex.join(c.command)[:20]}"', str(c.local_volumes), format_size(c.size),
             f"{format_age(c.created_at)} ago", c.status, c.name]
            for c in usage.containers
        ],
    )  # fmt: skip
    print("\nLocal Volumes space usage:\n")
    print_table(
        ["VOLUME NAME", "LINKS", "SIZE"],
        [[v.volume.name, str(len(v.used_by)), format_size(v.disk_usage)] for v in usage.volumes],
    )
    if usage.snapshots:
        print("\nSnapshots space usage:\n")
        print_table(["SNAPSHOT NAME", "POD", "SIZE"], [[s.name, s.pod, format_size(s.size)] for s in usage.snapshots])
    if usage.volume_snapshots:
        print("\nVolume snapshots space usage:\n")
        print_table(["SNAPSHOT NAME", "VOLUME", "SIZE"],
                    [[s.name, s.volume, format_size(s.disk_usage)] for s in usage.volume_snapshots])  # fmt: skip
    if usage.suspended:
        print("\nSuspended pods space usage:\n")
        print_table(["POD", "SIZE"], [[s.pod, format_size(s.size)] for s in usage.suspended])
    print(f"\nBuild cache usage: {format_size(usage.build_cache.size)}")


def _name(names: list[str]) -> tuple[str, str]:
    if not names:
        return "<none>", "<none>"
    reference = parse_reference(names[0])
    return reference._replace(tag="", digest="").familiar, reference.tag or "<none>"


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All images that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--volumes", is_flag=True, help="Also volumes that were made without a name.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help="Only such containers and images, and no networks: until=TIME, label=KEY[=VALUE].")  # fmt: skip
def prune(everything: bool, force: bool, volumes: bool, filters: tuple[str, ...]) -> None:
    """Remove containers that do not run, networks that no pod is in, images without a name, and unused build cache."""
    wanted = read_filters(filters, PRUNE_FILTERS)
    if not force:
        networks = [] if wanted else ["all networks not used by at least one pod"]
        images = "all images without at least one container associated to them" if everything else "all dangling images"
        anonymous = ["all anonymous volumes not used by at least one pod"] if volumes else []
        cache = [] if wanted else ["unused build cache"]
        ask(["all stopped containers", *networks, *anonymous, images, *cache])
    freed = _prune(client(), encode_filters(wanted), everything=everything, volumes=volumes)
    print(f"Total reclaimed space: {format_size(freed)}")


def _prune(c: Client, filters: str, *, everything: bool, volumes: bool) -> int:
    """Bytes."""
    query: dict[str, Any] = {"filters": filters}
    containers = c.call(Pruned, "POST", "/containers/prune", query)
    print_pruned("Deleted Containers:", containers.removed)
    if not filters:
        print_pruned("Deleted Networks:", c.call(Pruned, "POST", "/networks/prune").removed)
    found = c.call(Pruned, "POST", "/volumes/prune") if volumes else Pruned()
    print_pruned("Deleted Volumes:", found.removed)
    images = c.call(RemovedImage, "POST", "/images/prune", {**query, "all": everything})
    gone = [*(f"untagged: {n}" for n in images.untagged), *(f"deleted: {i}" for i in images.deleted)]
    print_pruned("Deleted Images:", gone)
    cache = 0 if filters else c.call(Freed, "POST", "/build/prune", {"all": everything}).freed
    return containers.freed + found.freed + images.freed + cache
