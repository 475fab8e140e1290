# SPDX-License-Identifier: Apache-2.0
"""start, stop, restart, kill, wait, rm, rename, pause, unpause."""

from __future__ import annotations

import sys

import click

from ..client.api import container_route
from ..errors import HyperError, NotFound
from ..model.status import Container, ExitCode
from .context import client, for_each
from .run import attach_to

_NAMES = click.argument("containers", nargs=-1, required=True)


@click.command()
@click.option("-a", "--attach", is_flag=True, help="Attach to the output, forward signals, exit with its status.")
@click.option("-i", "--interactive", is_flag=True, help="Send input too.")
@_NAMES
def start(containers: tuple[str, ...], attach: bool, interactive: bool) -> int:
    """Start containers that do not run."""
    c = client()
    if not (attach or interactive):
        return for_each(containers, lambda name: c.do("POST", container_route(name, "/start")))
    if len(containers) > 1:
        raise click.UsageError("only one container can be attached to")
    found = c.call(Container, "GET", container_route(containers[0]))
    return attach_to(c, found, start=True, stdin=interactive)


@click.command()
@click.option(
    "-t", "--time", "--timeout", "timeout", type=click.IntRange(min=0), help="Seconds until SIGKILL [default: the container's, 10]."
)
@_NAMES
def stop(containers: tuple[str, ...], timeout: int | None) -> int:
    """Ask containers to end, and kill those that do not."""
    c = client()
    return for_each(containers, lambda name: c.do("POST", container_route(name, "/stop"), {"timeout": timeout}))


@click.command()
@click.option("-t", "--time", "--timeout", "timeout", type=click.IntRange(min=0), help="Seconds until SIGKILL.")
@_NAMES
def restart(containers: tuple[str, ...], timeout: int | None) -> int:
    """Stop containers and start them again; what they wrote is kept."""
    c = client()
    return for_each(containers, lambda name: c.do("POST", container_route(name, "/restart"), {"timeout": timeout}))


@click.command()
@click.option("-s", "--signal", default="KILL", help="Signal, by name or number [default: KILL].")
@_NAMES
def kill(containers: tuple[str, ...], signal: str) -> int:
    """Send a signal to the main process of containers."""
    c = client()
    return for_each(containers, lambda name: c.do("POST", container_route(name, "/kill"), {"signal": signal}))


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
@_NAMES
def rm(containers: tuple[str, ...], force: bool) -> int:
    """Remove containers and what they wrote."""
    c = client()

    def remove(name: str) -> None:
        try:
            c.do("DELETE", container_route(name), {"force": force})
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
    """Freeze all processes of containers."""
    c = client()
    return for_each(containers, lambda name: c.do("POST", container_route(name, "/pause")))


@click.command()
@_NAMES
def unpause(containers: tuple[str, ...]) -> int:
    """Thaw all processes of containers."""
    c = client()
    return for_each(containers, lambda name: c.do("POST", container_route(name, "/unpause")))
