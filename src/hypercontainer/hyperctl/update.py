# SPDX-License-Identifier: Apache-2.0
"""update, with Docker's flags: https://docs.docker.com/reference/cli/docker/container/update/"""

from __future__ import annotations

from typing import Literal

import click

from ..client.base import container_route, pod_route
from ..errors import InvalidArgument
from ..model.egress import EgressChange, policy
from ..model.lifetimes import Lifetime
from ..model.specs import ContainerUpdate
from ..model.units import parse_duration, parse_size
from ..model.updates import PodUpdate
from .context import client, for_each
from .options import parse_restart


@click.command()
@click.option("--cpus", type=click.FloatRange(min=0), default=None, help="CPU time, in CPUs; 0 for no limit.")
@click.option("-m", "--memory", default=None, help="Memory limit, such as 512m; 0 for what the machine has.")
@click.option("--pids-limit", type=int, default=None, help="Most processes at a time; -1 for no limit.")
@click.option("--restart", default=None, metavar="POLICY", help="no, on-failure[:N], always or unless-stopped.")
@click.option("--egress", type=click.Choice(["open", "none"]), help="All that it may reach, beside --allow-host.")
@click.option("--allow-host", multiple=True, metavar="HOST[:PORT]", help="Hosts that it may reach from now on.")
@click.option("--ttl", metavar="DURATION", help="Stop it so long from now, such as 1h30m; 0: never.")
@click.option("--idle-timeout", metavar="DURATION", help="Suspend it after so long with nothing to do; 0: never.")
@click.argument("containers", nargs=-1, required=True)
def update(
    containers: tuple[str, ...], cpus: float | None, memory: str | None, pids_limit: int | None, restart: str | None,
    egress: Literal["open", "none"] | None, allow_host: tuple[str, ...], ttl: str | None, idle_timeout: str | None,
) -> int:  # fmt: skip
    """Change limits, restart policy, egress policy and lifetime of containers.

    One that runs gets limits at once, as far as its virtual machine has as much;
    more than that it gets by a stop, this, and a start. Of several changes of
    one container all are made, or none. The egress policy and
    the lifetime are also those of a pod, by the pod's name. Its connections
    that stay allowed go on, and others are ended.
    """
    change = ContainerUpdate(
        cpus=cpus,
        memory=None if memory is None else parse_size(memory),
        pids=None if pids_limit is None else max(0, pids_limit),
        restart=None if restart is None else parse_restart(restart),
    )
    reach = _reach(egress, allow_host)
    lifetime = Lifetime(
        ttl=None if ttl is None else parse_duration(ttl),
        idle_timeout=None if idle_timeout is None else parse_duration(idle_timeout),
    )
    if change == ContainerUpdate() and reach is None and lifetime == Lifetime():
        hint = "give --memory, --cpus, --pids-limit, --restart, --egress, --allow-host, --ttl or --idle-timeout"
        raise InvalidArgument("nothing to change", hint=hint)
    c = client()

    limits = None if change == ContainerUpdate() else change
    asked = PodUpdate(limits=limits, egress=reach, lifetime=None if lifetime == Lifetime() else lifetime)

    def one(name: str) -> None:
        if asked == PodUpdate(limits=limits):
            c.do("POST", container_route(name, "/update"), body=limits)
        else:
            c.do("POST", pod_route(name, "/update"), body=asked)

    return for_each(containers, one)


def _reach(egress: Literal["open", "none"] | None, hosts: tuple[str, ...]) -> EgressChange | None:
    """What is asked for of the egress policy; None: nothing."""
    if egress is None and not hosts:
        return None
    asked = policy(egress or "", hosts)
    return EgressChange(open=asked is None, hosts=asked.hosts if asked else [])
