# SPDX-License-Identifier: Apache-2.0
"""factory: templates of virtual machines, and those that wait for a container."""

from __future__ import annotations

import click

from ..client.api import Client
from ..model.factory import Drained, FactoryStatus, WarmRequest
from ..model.units import format_binary, parse_size
from .context import client
from .output import print_one, print_table, waiting


@click.group()
def factory() -> None:
    """Virtual machines that are started ahead of time.

    A container gets one that waits in the pool, or a clone of a template; the
    first of its shape boots. `run --isolation=fresh` always boots.
    """


def _show(found: FactoryStatus) -> None:
    if not found.enabled:
        print("The factory is off: every virtual machine boots.")
        return
    used = sum(t.memory for t in found.templates)
    print(f"Templates: {len(found.templates)}, {format_binary(used)} of {format_binary(found.template_limit)}")
    if found.templates:
        print_table(
            ["SHAPE", "IMAGE", "KEY", "MADE AT", "MEMORY", "CLONES"],
            [
                [t.shape, t.image or "any", t.key, t.made_at, format_binary(t.memory), str(t.clones)]
                for t in found.templates
            ],
        )
    print(
        f"Waiting: {sum(p.waiting for p in found.pool)}, "
        f"{format_binary(found.pool_memory)} of {format_binary(found.pool_limit)}"
    )
    if found.pool:
        print_table(
            ["SHAPE", "IMAGE", "WAITING", "TARGET"],
            [[p.shape, p.image or "any", str(p.waiting), str(p.target)] for p in found.pool],
        )
    print("Started: " + ", ".join(f"{count} {kind}" for kind, count in found.started.items()))


@factory.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
def status(format_: str) -> None:
    """Show templates, and machines that wait."""
    found = client().call(FactoryStatus, "GET", "/factory")
    print_one(found, format_, lambda: _show(found))


@factory.command()
@click.option("--cpus", type=click.IntRange(1, 64), default=None, help="CPUs of the machines [default: 1].")
@click.option("-m", "--memory", default="", help="Memory limit of the containers that shall run in them.")
@click.option("--network", default="", metavar="user|none|NAME", help="Their network [default: the daemon's].")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(0, 1000),
    default=1,
    help="How many shall wait; 0 makes the template only [default: 1].",
)
def warm(cpus: int | None, memory: str, network: str, count: int) -> None:
    """Make a template now, and let machines wait from now on."""
    request = WarmRequest(cpus=cpus or 0, memory=parse_size(memory) if memory else 0, network=network, count=count)
    c: Client = client()
    with waiting("starting virtual machines"):
        found = c.call(FactoryStatus, "POST", "/factory/warm", body=request)
    _show(found)


@factory.command()
@click.option("--templates", is_flag=True, help="Forget the templates too.")
def drain(templates: bool) -> None:
    """End the machines that wait, and print how many there were."""
    print(client().call(Drained, "POST", "/factory/drain", {"templates": templates}).ended)
