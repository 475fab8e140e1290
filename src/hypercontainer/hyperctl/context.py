# SPDX-License-Identifier: Apache-2.0
"""What every verb has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from ..client.api import Client
from ..client.autostart import connect_or_start
from ..client.base import default_socket
from ..errors import HyperError, InvalidArgument


def client() -> Client:
    """The daemon that was named; on the default socket one is started when none runs."""
    import os

    host = click.get_current_context().find_root().obj
    if host or os.environ.get("HYPER_HOST"):
        return Client((host or default_socket()).removeprefix("unix://"))
    return Client(default_socket(), connect_or_start)


def confirm(what: str) -> None:
    """Ask before something is lost.

    :raise InvalidArgument: when nobody can be asked. :raise click.Abort: the user does not want it.
    """
    if not sys.stdin.isatty():
        raise InvalidArgument(
            f"this removes {what}, and there is no terminal to ask on", hint="give -f if that is meant"
        )
    click.confirm(f"This removes {what}. Go on?", abort=True)


def for_each(names: Sequence[str], action: Callable[[str], object]) -> int:
    """Do something to each, print each name that it was done to; 1 when one failed."""
    failed = 0
    for name in names:
        try:
            action(name)
        except HyperError as error:
            print(f"hyperctl: {error}", file=sys.stderr)
            failed = 1
        else:
            print(name)
    return failed
