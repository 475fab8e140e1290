# SPDX-License-Identifier: Apache-2.0
"""update, with Docker's flags: https://docs.docker.com/reference/cli/docker/container/update/"""

from __future__ import annotations

import click

from ..client.api import container_route
from ..errors import InvalidArgument
from ..model.specs import ContainerUpdate
from ..model.units import parse_size
from .context import client, for_each
from .options import parse_restart


@click.command()
@click.option("--cpus", type=click.FloatRange(min=0), default=None, help="CPU time, in CPUs; 0 for no limit.")
@click.option("-m", "--memory", default=None, help="Memory limit, such as 512m; 0 for what the machine has.")
@click.option("--pids-limit", type=int, default=None, help="Most processes at a time; -1 for no limit.")
@click.option("--restart", default=None, metavar="POLICY", help="no, on-failure[:N], always or unless-stopped.")
@click.argument("containers", nargs=-1, required=True)
def update(
    containers: tuple[str, ...], cpus: float | None, memory: str | None, pids_limit: int | None, restart: str | None
) -> int:
    """Change limits and restart policy of containers.

    One that runs gets them at once, as far as its virtual machine has as much;
    more than that it gets by a stop, this, and a start.
    """
    change = ContainerUpdate(
        cpus=cpus,
        memory=None if memory is None else parse_size(memory),
        pids=None if pids_limit is None else max(0, pids_limit),
        restart=None if restart is None else parse_restart(restart),
    )
    if change == ContainerUpdate():
        raise InvalidArgument("nothing to change", hint="give --memory, --cpus, --pids-limit or --restart")
    c = client()
    return for_each(containers, lambda name: c.do("POST", container_route(name, "/update"), body=change))
