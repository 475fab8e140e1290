# SPDX-License-Identifier: Apache-2.0
"""network: networks that pods share."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click
import msgspec

from ..client.api import Query, pod_route
from ..errors import HyperError
from ..model.filters import encode_filters, read_filters
from ..model.network import Network, NetworkInfo, NetworkRequest, NetworkSpec
from ..model.status import Pruned
from ..model.thing_filters import NETWORK_FILTERS, NETWORK_PRUNE_FILTERS
from .container_view import describe_labels
from .context import client, confirm, for_each
from .options import pairs
from .output import show, show_details
from .standard import print_made


@click.group()
def network() -> None:
    """Networks that pods share, on bridges of this host."""


def network_route(name: str) -> str:
    return f"/networks/{quote(name, safe='')}"


@network.command()
@click.argument("name")
@click.option("--subnet", multiple=True, metavar="CIDR", help="IPv4 or IPv6; one of each at most.")
@click.option("--gateway", multiple=True, help="The host's address in the subnet [default: the first].")
@click.option("--ip-range", default="", metavar="CIDR", help="The part of the subnet that addresses are taken from.")
@click.option("--internal", is_flag=True, help="No way out of the network.")
@click.option("--ipv6", is_flag=True, help="With IPv6 addresses too.")
@click.option("--mtu", type=click.IntRange(0, 65535), default=0, help="[default: 1500]")
@click.option("-d", "--driver", type=click.Choice(["bridge"]), default="bridge", help="Accepted for Docker's sake.")
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Set a label.")
def create(
    name: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: str,
    internal: bool,
    ipv6: bool,
    mtu: int,
    driver: str,
    label: tuple[str, ...],
) -> None:
    """Create a network and print its id."""
    labels = pairs(label, "label", need_value=False)
    spec = NetworkSpec(
        name=name,
        subnets=list(subnet),
        gateways=list(gateway),
        ip_range=ip_range,
        internal=internal,
        ipv6=ipv6,
        mtu=mtu,
        labels=labels,
    )
    print_made(client().call(Network, "POST", "/networks", body=spec).id, "the network")


@network.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help=f"Only those: {', '.join(NETWORK_FILTERS)}.")  # fmt: skip
@click.option("--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def ls(quiet: bool, no_trunc: bool, filters: tuple[str, ...], format_: str) -> None:
    """List networks."""
    query: Query = {"filters": encode_filters(read_filters(filters, NETWORK_FILTERS))}
    found = client().call(list[NetworkInfo], "GET", "/networks", query)
    if quiet:
        for n in found:
            print(n.network.id if no_trunc else n.network.id[:12])
        return

    def row(n: NetworkInfo) -> list[str]:
        subnets = ", ".join(filter(None, (n.network.subnet, n.network.subnet6)))
        return [
            n.network.id if no_trunc else n.network.id[:12],
            n.network.name,
            n.network.bridge,
            subnets,
            "internal" if n.network.internal else "",
            ",".join(n.pods),
        ]

    show(found, format_, ["NETWORK ID", "NAME", "BRIDGE", "SUBNETS", "", "PODS"], row,
         lambda n: _fields(n, whole=no_trunc))  # fmt: skip


def _fields(n: NetworkInfo, *, whole: bool) -> dict[str, Any]:
    """All of it, and Docker's: https://docs.docker.com/reference/cli/docker/network/ls/#format."""
    own = n.network
    return {
        **msgspec.to_builtins(n), "id": own.id if whole else own.id[:12], "name": own.name, "driver": "bridge",
        "scope": "local", "iPv4": True, "iPv6": bool(own.subnet6), "internal": own.internal,
        "createdAt": own.created_at, "labels": describe_labels(own.labels), "label": own.labels,
    }  # fmt: skip


@network.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format_: str) -> None:
    """Show all about networks, as JSON."""
    c = client()
    found = [c.call(NetworkInfo, "GET", network_route(name)) for name in names]
    show_details(found, format_)


@network.command()
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> int:
    """Remove networks that no pod is in."""
    c = client()
    return for_each(names, lambda name: c.do("DELETE", network_route(name)))


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help=f"Only those: {', '.join(NETWORK_PRUNE_FILTERS)}.")  # fmt: skip
def prune(force: bool, filters: tuple[str, ...]) -> None:
    """Remove all networks that no pod is in."""
    query: Query = {"filters": encode_filters(read_filters(filters, NETWORK_PRUNE_FILTERS))}
    if not force:
        confirm("all networks that no pod is in")
    for name in client().call(Pruned, "POST", "/networks/prune", query).removed:
        print(name)


@network.command()
@click.argument("name")
@click.argument("pod")
@click.option("--ip", default="", help="IPv4 address in the network.")
@click.option("--ip6", default="", help="IPv6 address in the network.")
@click.option("--mac-address", default="", help="MAC address of the NIC.")
@click.option("--alias", multiple=True, help="A further name in the network.")
def connect(name: str, pod: str, ip: str, ip6: str, mac_address: str, alias: tuple[str, ...]) -> None:
    """Bring a pod or container into a network."""
    client().do(
        "POST",
        pod_route(pod, "/networks"),
        body=NetworkRequest(name=name, ip=ip, ip6=ip6, mac=mac_address, aliases=list(alias)),
    )


@network.command()
@click.option("-f", "--force", is_flag=True, help="Say nothing when it is not in it.")
@click.argument("name")
@click.argument("pod")
def disconnect(name: str, pod: str, force: bool) -> None:
    """Take a pod or container out of a network."""
    try:
        client().do("DELETE", pod_route(pod, "/networks"), {"network": name})
    except HyperError:
        if not force:
            raise
