# SPDX-License-Identifier: Apache-2.0
"""attach."""

from __future__ import annotations

import click

from ..errors import InvalidState
from ..model.status import ContainerStatus
from .context import client
from .dockerflags import detach_keys_option
from .run import attach_to


@click.command()
@detach_keys_option
@click.option("--no-stdin", is_flag=True, help="Do not send input.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Forward signals to the process.")
@click.argument("container")
def attach(container: str, no_stdin: bool, sig_proxy: bool, detach_keys: str) -> int:
    """Attach this terminal to the main process of a container, or of the first one of a pod.

    ctrl-p ctrl-q detaches again; the exit status is the process's.
    """
    from .podrun import container_of

    found = container_of(c := client(), container)
    if found.state.status is ContainerStatus.PAUSED:
        raise InvalidState(f"container {found.name} is paused", hint=f"use `hyperctl unpause {found.name}`")
    return attach_to(c, found, start=False, stdin=not no_stdin, proxy=sig_proxy, keys=detach_keys)
