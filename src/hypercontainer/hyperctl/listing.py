# SPDX-License-Identifier: Apache-2.0
"""ps, list, top, stats."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
import msgspec

from ..client.api import Client, container_route
from ..errors import HyperError, InvalidArgument
from ..model.ids import short
from ..model.reference import parse_reference
from ..model.specs import PortMapping
from ..model.status import Container, ContainerStats, ContainerStatus, PodInfo, ProcessInfo
from ..model.units import format_age, format_binary, format_size
from .context import client
from .output import print_json, print_table, show

STATS_HEAD = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]
_FORMAT = click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")


def describe_state(c: Container) -> str:
    """`Up 5 minutes`, `Exited (0) 2 hours ago`, as Docker says."""
    s = c.state
    if s.status is ContainerStatus.RUNNING and s.unresponsive:
        return f"Up {format_age(s.started_at)} (unresponsive)"
    if s.status is ContainerStatus.RUNNING:
        notes = [s.health.status] if s.health and c.health else []
        notes += ["log not written"] if s.log_error else []
        return f"Up {format_age(s.started_at)}" + (f" ({', '.join(notes)})" if notes else "")
    if s.status is ContainerStatus.RESTARTING:
        return f"Restarting ({s.exit_code}) {format_age(s.finished_at)} ago" + (f": {s.error}" if s.error else "")
    if s.status is ContainerStatus.PAUSED:
        return f"Up {format_age(s.started_at)} (Paused)"
    if s.status is ContainerStatus.EXITED:
        return f"Exited ({s.exit_code}) {format_age(s.finished_at)} ago"
    return s.status.value.capitalize()


def describe_ports(c: Container) -> str:
    return describe_mappings(c.ports)


def describe_mappings(ports: list[PortMapping]) -> str:
    """Docker's PORTS; ports that follow each other on both sides are one range."""
    runs: list[list[PortMapping]] = []
    for p in sorted(ports, key=lambda p: (p.host_ip, p.protocol, p.host_port)):
        if runs and _follows(runs[-1][-1], p):
            runs[-1].append(p)
        else:
            runs.append([p])
    return ", ".join(_describe_run(run) for run in runs)


def _follows(a: PortMapping, b: PortMapping) -> bool:
    return (b.host_ip, b.protocol, b.host_port, b.container_port) == (
        a.host_ip,
        a.protocol,
        a.host_port + 1,
        a.container_port + 1,
    )


def _describe_run(run: list[PortMapping]) -> str:
    first, last = run[0], run[-1]
    host = f"[{first.host_ip}]" if ":" in first.host_ip else first.host_ip or "0.0.0.0"
    ends = [
        str(a) if a == b else f"{a}-{b}"
        for a, b in ((first.host_port, last.host_port), (first.container_port, last.container_port))
    ]
    return f"{host}:{ends[0]}->{ends[1]}/{first.protocol}"


def _fields(c: Container) -> dict[str, Any]:
    """Docker's field names, for templates and JSON."""
    return {
        "id": short(c.id), "names": c.name, "image": c.image, "command": shlex.join(c.process.args),
        "createdAt": c.created_at, "runningFor": f"{format_age(c.created_at)} ago", "status": describe_state(c),
        "state": c.state.status.value, "ports": describe_ports(c), "labels": c.spec.labels, "pod": short(c.pod),
    }  # fmt: skip


def _is_image(c: Container, image: str) -> bool:
    """By name, whichever way it is spelled, or by the beginning of the id."""
    prefix = image.removeprefix("sha256:")
    if image in (c.image, c.image_id) or (len(prefix) >= 3 and c.image_id.removeprefix("sha256:").startswith(prefix)):
        return True
    try:
        wanted, own = (
            parse_reference(i.removeprefix("builtin:").removeprefix("docker://")).full for i in (image, c.image)
        )
    except InvalidArgument:
        return False
    return wanted == own


def _has_name(c: Container, pattern: str, given: str) -> bool:
    """By a regular expression, where Docker's names begin with a slash.

    :raise InvalidArgument: when it is none.
    """
    try:
        return bool(re.search(pattern, c.name) or re.search(pattern, f"/{c.name}"))
    except re.error as error:
        raise InvalidArgument(
            f"invalid filter {given!r}: {error}", hint="write a name or a regular expression, such as name=^web"
        ) from None


def _matches(c: Container, filters: tuple[str, ...]) -> bool:
    for given in filters:
        key, equals, value = given.partition("=")
        label, _, wanted = value.partition("=")
        tests = {
            "status": c.state.status.value == value,
            "name": key == "name" and _has_name(c, value, given),
            "id": c.id.startswith(value),
            "ancestor": _is_image(c, value),
            "label": label in c.spec.labels and ("=" not in value or c.spec.labels[label] == wanted),
            "exited": c.state.status is ContainerStatus.EXITED and str(c.state.exit_code) == value,
        }
        if not equals or key not in tests:
            raise InvalidArgument(
                f"invalid filter {given!r}", hint=f"use one of {', '.join(tests)}, such as status=running"
            )
        if not tests[key]:
            return False
    return True


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
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only those: status, name, id, label, ancestor, exited.",
)
@click.option("-n", "--last", type=int, default=0, help="The last so many, whatever their state.")
@_FORMAT
def ps(everything: bool, quiet: bool, no_trunc: bool, filters: tuple[str, ...], last: int, format_: str) -> None:
    """List containers."""
    everything = everything or last > 0 or any(f.startswith(("status=", "exited=")) for f in filters)
    c = client()
    found = [x for x in _containers(c, everything=everything) if _matches(x, filters)]
    found = found[:last] if last > 0 else found
    found = found if quiet else _with_ports(c, found)
    if quiet:
        for x in found:
            print(x.id if no_trunc else short(x.id))
        return

    def row(c: Container) -> list[str]:
        command = shlex.join(c.process.args)
        if not no_trunc and len(command) > 20:
            command = command[:19] + "…"
        id_ = c.id if no_trunc else short(c.id)
        return [
            id_,
            c.image,
            f'"{command}"',
            f"{format_age(c.created_at)} ago",
            describe_state(c),
            describe_ports(c),
            c.name,
        ]

    show(found, format_, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"], row, _fields)


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
             lambda x: [short(x.id), x.name, short(x.pod), x.state.status.value], _fields)  # fmt: skip
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
@click.option("--format", "format_", default="", metavar="table|json", help="How to print.")
def top(container: str, format_: str) -> None:
    """Show the processes of a container."""
    found = client().call(list[ProcessInfo], "GET", container_route(container, "/top"))
    if format_ == "json":
        print_json(found)
        return

    def row(p: ProcessInfo) -> list[str]:
        seconds = p.cpu_ms // 1000
        clock = datetime.fromisoformat(p.started_at).astimezone().strftime("%H:%M")
        spent = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return [str(p.uid), str(p.pid), str(p.ppid), clock, spent, p.command]

    print_table(["UID", "PID", "PPID", "STIME", "TIME", "CMD"], [row(p) for p in found])


def _cpu_percent(now: ContainerStats, before: ContainerStats | None) -> float:
    if before is None:
        return 0.0
    span = (datetime.fromisoformat(now.read_at) - datetime.fromisoformat(before.read_at)).total_seconds()
    return (now.cpu_usec - before.cpu_usec) / 10_000 / span if span > 0 else 0.0


def stats_row(s: ContainerStats, before: ContainerStats | None) -> list[str]:
    percent = 100 * s.memory / s.memory_limit if s.memory_limit else 0.0
    return [
        short(s.id),
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
@click.option("--format", "format_", default="", metavar="table|json", help="How to print.")
def stats(containers: tuple[str, ...], no_stream: bool, format_: str) -> None:
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

    show_stats(sample, once=no_stream, format_=format_)


def show_stats(sample: Callable[[], dict[str, ContainerStats]], *, once: bool, format_: str) -> None:
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
            print_table(STATS_HEAD, [stats_row(s, before.get(k)) for k, s in now.items()])
        if once:
            return
        before = now
