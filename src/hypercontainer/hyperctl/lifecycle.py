# SPDX-License-Identifier: Apache-2.0
"""start, stop, restart, kill, wait, rm, rename, pause, unpause."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..client.api import Client, container_route, pod_route
from ..errors import HyperError, NotFound
from ..model.status import Container, ExitCode
from .context import client, for_each
from .dockerflags import detach_keys_option
from .run import attach_to

_NAMES = click.argument("containers", nargs=-1, required=True)
_CONTAINER_ONLY = click.option("-c", "--container", "only", is_flag=True, help="The names are containers', not pods'.")


def act(c: Client, name: str, action: str, query: dict[str, Any] | None = None, *, only: bool = False) -> None:
    """POST to a container, or to the pod of that name when there is no such container."""
    _either(c, name, "POST", action, query, only=only)


def _either(c: Client, name: str, method: str, action: str, query: dict[str, Any] | None, *, only: bool) -> None:
    try:
        c.do(method, container_route(name, action), query)
    except NotFound as error:
        try:
            if only:
                raise error
            c.do(method, pod_route(name, action), query)
        except NotFound:
            raise error from None


@click.command()
@click.option("-a", "--attach", is_flag=True, help="Attach to the output, forward signals, exit with its status.")
@click.option("-i", "--interactive", is_flag=True, help="Send input too.")
@detach_keys_option
@_CONTAINER_ONLY
@_NAMES
def start(containers: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str, only: bool) -> int:
    """Start containers or pods that do not run."""
    c = client()
    if not (attach or interactive):
        return for_each(containers, lambda name: act(c, name, "/start", only=only))
    if len(containers) > 1:
        raise click.UsageError("only one container can be attached to")
    found = c.call(Container, "GET", container_route(containers[0]))
    return attach_to(c, found, start=True, stdin=interactive, keys=detach_keys)


_SIGNAL = click.option(
    "-s", "--signal", default="", help="Signal that asks a container to end [default: the container's]."
)


@click.command()
@click.option(
    "-t",
    "--time",
    "--timeout",
    "timeout",
    type=click.IntRange(min=0),
    help="Seconds until SIGKILL [default: the container's, 10].",
)
@_SIGNAL
@_CONTAINER_ONLY
@_NAMES
def stop(containers: tuple[str, ...], timeout: int | None, signal: str, only: bool) -> int:
    """Ask containers or pods to end, and kill those that do not."""
    c = client()
    query = {"timeout": timeout, "signal": signal or None}
    return for_each(containers, lambda name: act(c, name, "/stop", query, only=only or bool(signal)))


@click.command()
@click.option("-t", "--time", "--timeout", "timeout", type=click.IntRange(min=0), help="Seconds until SIGKILL.")
@_SIGNAL
@_NAMES
def restart(containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Stop containers and start them again; what they wrote is kept."""
    c = client()
    query = {"timeout": timeout, "signal": signal or None}
    return for_each(containers, lambda name: act(c, name, "/restart", query, only=bool(signal)))


@click.command()
@click.option("-s", "--signal", default="KILL", help="Signal, by name or number [default: KILL].")
@click.option("-p", "--pod", is_flag=True, help="The names are pods': signal all their containers.")
@_NAMES
def kill(containers: tuple[str, ...], signal: str, pod: bool) -> int:
    """Send a signal to the main process of containers."""
    c = client()
    route = pod_route if pod else container_route
    return for_each(containers, lambda name: c.do("POST", route(name, "/kill"), {"signal": signal}))


@click.command()
@_NAMES
def wait(containers: tuple[str, ...]) -> int:
    """Wait until containers do not run, and print their exit codes."""
    c = client()
    failed = 0
    for name in containers:
        try:
            print(c.call(ExitCode, "POST", container_route(name, "/wait")).exit_code)
        except HyperError as error:
            print(f"hyperctl: {error}", file=sys.stderr)
            failed = 1
    return failed


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill those that run; say nothing of those that are not there.")
@_CONTAINER_ONLY
@click.option(
    "-v",
    "--volumes",
    is_flag=True,
    help="With the volumes that were made for it and have no name.",
)
@_NAMES
def rm(containers: tuple[str, ...], force: bool, only: bool, volumes: bool) -> int:
    """Remove containers or pods, and what they wrote."""
    c = client()

    def remove(name: str) -> None:
        try:
            _either(c, name, "DELETE", "", {"force": force, "volumes": volumes}, only=only)
        except NotFound:
            if not force:
                raise

    return for_each(containers, remove)


@click.command()
@click.argument("container")
@click.argument("new_name")
def rename(container: str, new_name: str) -> None:
    """Give a container another name."""
    client().do("POST", container_route(container, "/rename"), {"name": new_name})


@click.command()
@_NAMES
def pause(containers: tuple[str, ...]) -> int:
    """Freeze all processes of containers, or the machines of pods."""
    c = client()
    return for_each(containers, lambda name: act(c, name, "/pause"))


@click.command()
@_NAMES
def unpause(containers: tuple[str, ...]) -> int:
    """Thaw all processes of containers, or the machines of pods."""
    c = client()
    return for_each(containers, lambda name: act(c, name, "/unpause"))
