# SPDX-License-Identifier: Apache-2.0
"""ps, list, top, stats."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from datetime import datetime

import click
import msgspec

from ..client.api import Client, Query, container_route
from ..errors import HyperError, NotFound
from ..model.container_filters import NAMES
from ..model.filters import encode_filters, read_filters
from ..model.ids import short
from ..model.statistics import ContainerStats
from ..model.status import Container, ContainerSize, PodInfo, ProcessInfo
from ..model.units import format_age, format_binary, format_size
from .container_view import command, describe_ports, describe_size, describe_state, fields
from .context import client
from .output import print_json, show

STATS_HEAD = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]
_FORMAT = click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")


def _containers(c: Client, *, everything: bool) -> list[Container]:
    return c.call(list[Container], "GET", "/containers", {"all": everything})


def _with_ports(c: Client, found: list[Container]) -> list[Container]:
    """Those in a pod with the ports that their pod publishes."""
    if all(x.ports or x.pod == x.id for x in found):
        return found
    ports = {p.id: p.ports for p in c.call(list[PodInfo], "GET", "/pods") if not p.implicit}
    return [x if x.ports else msgspec.structs.replace(x, ports=ports.get(x.pod, [])) for x in found]


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"Only those: {', '.join(NAMES)}.")
@click.option("-n", "--last", type=int, default=0, help="The last so many, whatever their state.")
@click.option("-l", "--latest", is_flag=True, help="The last one, whatever its state.")
@click.option("-s", "--size", is_flag=True, help="What they take of the disk.")
@_FORMAT
def ps(
    everything: bool, quiet: bool, no_trunc: bool, filters: tuple[str, ...], last: int, latest: bool, size: bool,
    format_: str,
) -> None:  # fmt: skip
    """List containers."""
    wanted = read_filters(filters, NAMES)
    query: Query = {"all": everything, "limit": 1 if latest else max(last, 0), "filters": encode_filters(wanted)}
    c = client()
    found = c.call(list[Container], "GET", "/containers", query)
    if quiet and not format_:
        for x in found:
            print(x.id if no_trunc else short(x.id))
        return
    found = _with_ports(c, found)
    measured = size or re.search(r"\.Size\b", format_) is not None
    sizes = {x.id: _size(c, x) for x in found} if measured else {}

    def row(x: Container) -> list[str]:
        id_, made = x.id if no_trunc else short(x.id), f"{format_age(x.created_at)} ago"
        cells = [id_, x.image, command(x, whole=no_trunc), made, describe_state(x), describe_ports(x), x.name]
        return [*cells, describe_size(sizes[x.id])] if size else cells

    head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", *(["SIZE"] if size else [])]
    show(found, format_, head, row, lambda x: fields(x, whole=no_trunc, size=sizes.get(x.id)))


def _size(c: Client, container: Container) -> ContainerSize | None:
    """None of one that has gone meanwhile."""
    try:
        return c.call(ContainerSize, "GET", container_route(container.id, "/size"))
    except NotFound:
        return None


@click.command(name="list")
@click.argument("item", type=click.Choice(["pod", "container", "vm"]), default="pod")
@click.option("-p", "--pod", default="", help="Only this pod, or what is in it.")
@click.option("-m", "--vm", default="", metavar="PID", help="Only what is in this virtual machine.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@_FORMAT
def list_(item: str, pod: str, vm: str, quiet: bool, format_: str) -> None:
    """List pods, containers or virtual machines."""
    c = client()
    every = [p for p in c.call(list[PodInfo], "GET", "/pods") if not vm or str(p.vm_pid) == vm]
    every = [p for p in every if not pod or pod == p.name or p.id.startswith(pod)]
    if item == "container":
        inside = {p.id for p in every}
        found = [x for x in _containers(c, everything=True) if x.pod in inside]
        if quiet:
            print("\n".join(short(x.id) for x in found))
            return
        show(found, format_, ["CONTAINER ID", "NAME", "POD ID", "STATUS"],
             lambda x: [short(x.id), x.name, short(x.pod), x.state.status.value], fields)  # fmt: skip
        return
    pods = [p for p in every if item == "pod" or p.vm_pid]
    if quiet:
        for p in pods:
            print(short(p.id))
    elif item == "pod":
        show(pods, format_, ["POD ID", "POD NAME", "VM PID", "CONTAINERS", "STATUS"],
             lambda p: [short(p.id), p.name, str(p.vm_pid or ""), ",".join(p.containers), p.status])  # fmt: skip
    else:
        show(pods, format_, ["VM PID", "POD NAME", "VCPUS", "MEMORY", "STATUS"],
             lambda p: [str(p.vm_pid), p.name, str(p.vcpus), format_binary(p.memory), p.status])  # fmt: skip


@click.command()
@click.argument("container")
@_FORMAT
def top(container: str, format_: str) -> None:
    """Show the processes of a container."""
    found = client().call(list[ProcessInfo], "GET", container_route(container, "/top"))

    def row(p: ProcessInfo) -> list[str]:
        seconds = p.cpu_ms // 1000
        clock = datetime.fromisoformat(p.started_at).astimezone().strftime("%H:%M")
        spent = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return [str(p.uid), str(p.pid), str(p.ppid), clock, spent, p.command]

    show(found, format_, ["UID", "PID", "PPID", "STIME", "TIME", "CMD"], row)


def _cpu_percent(now: ContainerStats, before: ContainerStats | None) -> float:
    if before is None:
        return 0.0
    span = (datetime.fromisoformat(now.read_at) - datetime.fromisoformat(before.read_at)).total_seconds()
    return (now.cpu_usec - before.cpu_usec) / 10_000 / span if span > 0 else 0.0


def _stats_fields(row: list[str]) -> dict[str, str]:
    """Docker's, by https://docs.docker.com/reference/cli/docker/container/stats/#format."""
    names = ("id", "name", "cpuPerc", "memUsage", "memPerc", "netIO", "blockIO", "pids")
    return {"container": row[0], **dict(zip(names, row, strict=True))}


def stats_row(s: ContainerStats, before: ContainerStats | None, *, whole: bool = False) -> list[str]:
    percent = 100 * s.memory / s.memory_limit if s.memory_limit else 0.0
    return [
        s.id if whole else short(s.id),
        s.name,
        f"{_cpu_percent(s, before):.2f}%",
        f"{format_binary(s.memory)} / {format_binary(s.memory_limit)}",
        f"{percent:.2f}%",
        f"{format_size(s.rx_bytes)} / {format_size(s.tx_bytes)}",
        f"{format_size(s.read_bytes)} / {format_size(s.write_bytes)}",
        str(s.pids),
    ]


@click.command()
@click.argument("containers", nargs=-1)
@click.option("--no-stream", is_flag=True, help="Print once.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@_FORMAT
def stats(containers: tuple[str, ...], no_stream: bool, no_trunc: bool, format_: str) -> None:
    """Show the use of resources, every second."""
    c = client()

    def sample() -> dict[str, ContainerStats]:
        names = containers or [x.id for x in _containers(c, everything=False)]
        found = {}
        for name in names:
            try:
                found[name] = c.call(ContainerStats, "GET", container_route(name, "/stats"))
            except HyperError:
                if containers:  # of all, one may end meanwhile
                    raise
        return found

    show_stats(sample, once=no_stream, format_=format_, whole=no_trunc)


def show_stats(
    sample: Callable[[], dict[str, ContainerStats]], *, once: bool, format_: str, whole: bool = False
) -> None:
    """Print samples, one a second."""
    before = sample()
    while True:
        time.sleep(1)  # CPU use is a difference
        now = sample()
        if format_ == "json":
            print_json(list(now.values()))
        else:
            if not once and sys.stdout.isatty():
                click.clear()
            rows = [stats_row(s, before.get(k), whole=whole) for k, s in now.items()]
            show(rows, format_, STATS_HEAD, lambda row: row, _stats_fields)
        if once:
            return
        before = now
