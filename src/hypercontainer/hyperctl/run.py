# SPDX-License-Identifier: Apache-2.0
"""run and create."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from ..client.api import Client, container_route
from ..errors import Conflict, HyperError, NotFound
from ..model.specs import ContainerSpec
from ..model.status import Container
from .context import client
from .options import container_options, spec_from
from .pulling import pull_image
from .stream import AttachedStream, require_terminal, window_size

_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["--help"]}


def create_container(c: Client, spec: ContainerSpec, *, quiet: bool) -> Container:
    """Create; pull the image as the policy says."""
    if spec.pull == "always":
        pull_image(c, spec.image, platform=spec.platform, quiet=quiet)
    try:
        return c.call(Container, "POST", "/containers", body=spec)
    except NotFound:
        if spec.pull != "missing":
            raise
    if not quiet:
        print(f"Unable to find image {spec.image!r} locally", file=sys.stderr)
    pull_image(c, spec.image, platform=spec.platform, quiet=quiet)
    return c.call(Container, "POST", "/containers", body=spec)


def _write_cidfile(path: str | None, id_: str) -> None:
    if path:
        with open(path, "x") as f:
            f.write(id_)


def _check_cidfile(path: str | None) -> None:
    if path and os.path.exists(path):
        raise Conflict(f"the file {path} exists", hint="remove it: it names another container")


def attach_to(c: Client, container: Container, *, start: bool, stdin: bool, output: bool = True, proxy: bool = True) -> int:
    """Attach, and start if asked; the exit code."""
    rows, columns = window_size() if container.spec.tty else (0, 0)
    query = {"start": start, "rows": rows, "columns": columns, "noOutput": not output}
    connection = c.upgrade(container_route(container.id, "/attach"), query)

    def forward(number: int) -> None:
        c.do("POST", container_route(container.id, "/kill"), {"signal": signal.Signals(number).name})

    # A terminal sends ctrl-c as a key; without one the signal is forwarded.
    with connection:
        return AttachedStream(
            connection,
            stdin=stdin and container.spec.stdin,
            terminal=container.spec.tty and stdin,
            on_signal=forward if proxy and not (container.spec.tty and stdin) else None,
        ).run()


@click.command(context_settings=_SETTINGS)
@container_options
@click.option("-d", "--detach", is_flag=True, help="Run in the background, print the container's id.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Forward signals to the process.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(image: str, command: tuple[str, ...], detach: bool, sig_proxy: bool, **options: Any) -> int:
    """Run a command in a new container, in a virtual machine of its own.

    The exit status is the command's; 128+n when signal n ended it; 125 when
    HyperContainer failed, 126 when the command cannot be executed, 127 when it
    is not there.
    """
    if options["tty"] and options["interactive"] and not detach:
        require_terminal()
    _check_cidfile(options["cidfile"])
    c = client()
    container = create_container(c, spec_from(image, command, options), quiet=options["quiet"])
    _write_cidfile(options["cidfile"], container.id)
    if detach:
        try:
            c.do("POST", container_route(container.id, "/start"))
        except HyperError:
            print(container.id)
            raise
        print(container.id)
        return 0
    return attach_to(c, container, start=True, stdin=options["interactive"], proxy=sig_proxy)


@click.command(context_settings=_SETTINGS)
@container_options
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def create(image: str, command: tuple[str, ...], **options: Any) -> None:
    """Create a container and print its id; `hyperctl start` runs it."""
    _check_cidfile(options["cidfile"])
    container = create_container(client(), spec_from(image, command, options), quiet=options["quiet"])
    _write_cidfile(options["cidfile"], container.id)
    print(container.id)
