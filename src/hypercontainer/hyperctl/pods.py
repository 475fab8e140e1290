# SPDX-License-Identifier: Apache-2.0
"""pod: several containers in one virtual machine."""

from __future__ import annotations

import json
from typing import Any

import click

from ..client.api import pod_route
from ..errors import HyperError, InvalidArgument, NotFound
from ..model.ids import short
from ..model.statistics import ContainerStats
from ..model.status import PodDetails, PodInfo, ProcessInfo
from ..model.units import format_age
from .container_view import describe_mappings
from .context import client, for_each
from .exec import exec_
from .hostflags import DEVICE
from .lifetime import lifetime_options
from .output import print_json, print_table, show, show_details
from .podrun import create_pod, details, empty_pod, follow, member, run_pod, start_pod
from .snapshots import fork, restore
from .standard import print_made

_NAMES = click.argument("pods", nargs=-1, required=True)
_POD = click.argument("pod")
_FORMAT = click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
_TIME = click.option(
    "-t",
    "--time",
    "--timeout",
    "timeout",
    type=click.IntRange(min=0),
    help="Seconds until SIGKILL [default: each container's].",
)
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Show no progress of a pull.")


@click.group()
def pod() -> None:
    """Several containers in one virtual machine."""


pod.add_command(fork)
pod.add_command(restore)


@pod.command()
@click.argument("podfile", required=False)
@click.option("-n", "--name", default="", help="Name of the pod.")
@click.option("-h", "--hostname", default="", help="Host name [default: the pod's name].")
@click.option("-l", "--label", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.option(
    "-p", "--publish", multiple=True, metavar="[IP:][HOST:]CONTAINER[/PROTOCOL]", help="Publish a port or a range."
)
@click.option("--cpus", type=click.IntRange(min=0), default=0, help="Virtual CPUs.")
@click.option("-m", "--memory", default="", help="Memory of the machine, such as 512m.")
@click.option("--size", default="", metavar="NAME", help="Both by a name: see `hyperctl size ls`.")
@click.option("--shm-size", default="", help="Size of /dev/shm [default: 64m].")
@DEVICE
@click.option(
    "--network",
    multiple=True,
    metavar="user[:host-loopback]|none|NAME|cni:NAME",
    help="Network of the pod; may be repeated.",
)
@click.option(
    "--driver", default="", metavar="NAME", help="Hypervisor of the virtual machine, or auto [default: the daemon's]."
)
@click.option(
    "--exit-policy",
    type=click.Choice(["stop", "continue"]),
    default="continue",
    help="What to do when the last container has ended.",
)
@lifetime_options
@_QUIET
def create(podfile: str | None, name: str, quiet: bool, **options: Any) -> None:
    """Create a pod from a podfile, or an empty one, and print its id."""
    c = client()
    if podfile:
        print_made(create_pod(c, podfile, name=name, quiet=quiet).pod.id, "the pod")
        return
    print_made(c.call(PodDetails, "POST", "/pods", body=empty_pod(name, options)).pod.id, "the pod")


@pod.command()
@click.argument("podfile")
@click.option("-n", "--name", default="", help="Name of the pod.")
@click.option("-a", "--attach", is_flag=True, help="Follow the output until the pod ends.")
@click.option("--rm", is_flag=True, help="With --attach: remove the pod when it has ended.")
@_QUIET
def run(podfile: str, name: str, attach: bool, rm: bool, quiet: bool) -> int:
    """Create a pod from a podfile and start it."""
    return run_pod(podfile, name=name, attach=attach, remove=rm, quiet=quiet)


@pod.command()
@click.option("-a", "--attach", is_flag=True, help="Follow the output until the pod ends.")
@_NAMES
def start(pods: tuple[str, ...], attach: bool) -> int:
    """Start pods; returns when their containers have been started."""
    c = client()
    failed = for_each(pods, lambda name: start_pod(c, name))
    if attach and not failed:
        follow(c, [m for name in pods for m in details(c, name).containers])
    return failed


@pod.command()
@_TIME
@_NAMES
def stop(pods: tuple[str, ...], timeout: int | None) -> int:
    """Stop pods: those containers first that depend on others."""
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/stop"), {"timeout": timeout}))


@pod.command()
@_TIME
@_NAMES
def restart(pods: tuple[str, ...], timeout: int | None) -> int:
    """Stop pods and start them again; what they wrote is kept."""
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/restart"), {"timeout": timeout}))


@pod.command()
@click.option("-s", "--signal", default="KILL", help="Signal, by name or number [default: KILL].")
@_NAMES
def kill(pods: tuple[str, ...], signal: str) -> int:
    """Send a signal to all running containers of pods."""
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/kill"), {"signal": signal}))


@pod.command()
@click.option("-f", "--force", is_flag=True, help="Stop those that run; say nothing of those that are not there.")
@_NAMES
def rm(pods: tuple[str, ...], force: bool) -> int:
    """Remove pods with their containers; named volumes stay."""
    c = client()

    def remove(name: str) -> None:
        try:
            c.do("DELETE", pod_route(name), {"force": force})
        except NotFound:
            if not force:
                raise

    return for_each(pods, remove)


@pod.command(name="list")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@_FORMAT
def list_(quiet: bool, format_: str) -> None:
    """List pods; containers of their own are left out."""
    c = client()
    found = [p for p in c.call(list[PodInfo], "GET", "/pods") if not p.implicit]
    if quiet:
        for p in found:
            print(short(p.id))
        return
    show(
        found,
        format_,
        ["POD ID", "NAME", "STATUS", "CREATED", "CONTAINERS", "PORTS"],
        lambda p: [
            short(p.id),
            p.name,
            p.status,
            f"{format_age(p.created_at)} ago",
            ",".join(p.containers),
            describe_mappings(p.ports),
        ],
    )


pod.add_command(list_, "ls")


@pod.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@_NAMES
def inspect(pods: tuple[str, ...], format_: str) -> int:
    """Show all about pods, as JSON; never their secrets."""
    c = client()
    found = [details(c, name) for name in pods]
    show_details(found, format_)
    return 0


@pod.command()
@_POD
@_FORMAT
def top(pod: str, format_: str) -> None:
    """Show the processes of all containers as one tree."""
    found = client().call(list[ProcessInfo], "GET", pod_route(pod, "/top"))
    if format_ == "json":
        print_json(found)
        return
    print_table(
        ["PID", "PPID", "USER", "TIME", "CONTAINER", "COMMAND"],
        [
            [str(p.pid), str(p.ppid), str(p.uid), f"{p.cpu_ms / 1000:.2f}", p.container, f"{'  ' * depth}{p.command}"]
            for depth, p in _tree(found)
        ],
    )


def _tree(processes: list[ProcessInfo]) -> list[tuple[int, ProcessInfo]]:
    """Children below their parents.

    A parent that is not listed is the first process of the pod, or of a container that numbers its own.
    """
    apart = {p.container for p in processes if p.pid == 1}
    by_number = {(_space(p, apart), p.pid): p for p in processes}
    out: list[tuple[int, ProcessInfo]] = []

    def above(p: ProcessInfo) -> tuple[str, int]:
        if p.pid == 1:
            return "", 0
        parent = (_space(p, apart), p.ppid)
        return parent if parent in by_number else (parent[0], 1)

    def add(parent: tuple[str, int], depth: int) -> None:
        for number, p in sorted(by_number.items()):
            if above(p) == parent:
                out.append((depth, p))
                add(number, depth + 1)

    add(("", 0), 0)
    return out


def _space(process: ProcessInfo, apart: set[str]) -> str:
    """Whose numbers a process's are: its container's if that has a first process of its own, else the pod's, ""."""
    return process.container if process.container in apart else ""


@pod.command()
@_POD
@click.option("--no-stream", is_flag=True, help="Print once.")
@click.option("--format", "format_", default="", metavar="table|json", help="How to print.")
def stats(pod: str, no_stream: bool, format_: str) -> None:
    """Show the use of resources by each container, every second."""
    from .listing import show_stats

    c = client()

    def sample() -> dict[str, ContainerStats]:
        return {s.id: s for s in c.call(list[ContainerStats], "GET", pod_route(pod, "/stats"))}

    show_stats(sample, once=no_stream, format_=format_)


@pod.command()
@_NAMES
def pause(pods: tuple[str, ...]) -> int:
    """Stop the machines of pods where they are."""
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/pause")))


@pod.command()
@_NAMES
def unpause(pods: tuple[str, ...]) -> int:
    """Let the machines of pods go on."""
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/unpause")))


@pod.command()
@_NAMES
def suspend(pods: tuple[str, ...]) -> int:
    """Put pods or containers that run on the disk, and free their memory.

    They keep their names, addresses and ports, and go on where they were by `resume`, after a restart of the host, too.
    """
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/suspend")))


@pod.command()
@_NAMES
def resume(pods: tuple[str, ...]) -> int:
    """Let suspended pods or containers go on."""
    c = client()
    return for_each(pods, lambda name: c.do("POST", pod_route(name, "/resume")))


@pod.command()
@click.option("-f", "--follow", "follow_", is_flag=True, help="Go on with what is added.")
@click.option("-n", "--tail", default="all", help="Only the last so many lines of each.")
@click.option("-c", "--container", default="", help="Only this container.")
@_POD
def logs(pod: str, follow_: bool, tail: str, container: str) -> None:
    """Show the output of a pod's containers, each line behind its container's name."""
    if tail != "all" and not tail.isdecimal():
        raise InvalidArgument(f"invalid number of lines {tail!r}", hint="give 0 or more, or all")
    c = client()
    chosen = [member(c, pod, container)] if container else details(c, pod).containers
    follow(c, chosen, past_only=not follow_, tail=None if tail == "all" else tail)


@pod.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.option("-c", "--container", default="", help="In this container [default: the first].")
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@_POD
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_in(
    ctx: click.Context, pod: str, command: tuple[str, ...], container: str, interactive: bool, tty: bool
) -> int:
    """Run a further command in a container of a pod; the exit status is the command's."""
    found = member(client(), pod, container)
    result = ctx.invoke(exec_, container=found.id, command=command, interactive=interactive, tty=tty)
    return int(result)


@pod.command()
@click.argument("pod")
@click.argument("labels", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--override", is_flag=True, help="Change labels that exist.")
def labels(pod: str, labels: tuple[str, ...], override: bool) -> None:
    """Show a pod's labels, or add some."""
    c = client()
    found = details(c, pod).pod.labels
    if labels:
        from .options import pairs

        given = pairs(labels, "label", need_value=False)
        found = c.call(dict[str, str], "POST", pod_route(pod, "/labels"), {"override": override}, body=given)
    for name, value in sorted(found.items()):
        print(f"{name}={value}")


@pod.command()
@click.argument("images", nargs=-1, required=True)
@click.option("-n", "--name", default="mypod", help="Name of the pod.")
@click.option(
    "-p", "--publish", multiple=True, metavar="[IP:][HOST:]CONTAINER[/PROTOCOL]", help="Publish a port or a range."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of YAML.")
@click.option("-o", "--output", type=click.Path(), help="Write to a file.")
def generate(images: tuple[str, ...], name: str, publish: tuple[str, ...], as_json: bool, output: str | None) -> None:
    """Write a podfile with a container for each image."""
    from ..podfile.generate import generate as made
    from .options import parse_ports

    ports = [
        {"hostPort": p.host_port or "", "containerPort": p.container_port, "protocol": p.protocol}
        for p in parse_ports(publish)
    ]
    text = made(list(images), name=name, publish=ports, as_json=as_json)
    if not output:
        print(text, end="")
        return
    try:
        with open(output, "x") as f:
            f.write(text)
    except OSError as error:
        raise HyperError(f"cannot write {output}: {error.strerror}") from error


@pod.command()
def schema() -> None:
    """Print the podfile's JSON Schema, for editors."""
    from ..podfile.strict import schema as of_podfile

    print(json.dumps(of_podfile(), indent=2))


@pod.command()
@_POD
@click.pass_context
def ports(ctx: click.Context, pod: str) -> None:
    """List a pod's published ports; `hyperctl ports` changes them."""
    from .ports import ls

    ctx.invoke(ls, pod=pod)
