# SPDX-License-Identifier: Apache-2.0
"""inspect."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from ..client.api import Client, container_route, pod_route
from ..errors import HyperError, NotFound
from ..model.images import Image
from ..model.status import Container, Pod, PodDetails, VolumeInfo
from .context import client
from .output import show_details
from .volumes import volume_route


def with_network(container: Container, pod: Pod) -> dict[str, Any]:
    """A container with what its pod's network gave it, by Docker's names."""
    networks = {
        a.network: {"ipAddress": a.ip, "globalIPv6Address": a.ip6, "macAddress": a.mac, "aliases": a.aliases}
        for a in pod.attachments
    }
    first = next(iter(networks.values()), {"ipAddress": "", "globalIPv6Address": "", "macAddress": ""})
    ports: dict[str, list[dict[str, str]]] = {}
    for p in pod.ports or container.ports:
        ports.setdefault(f"{p.container_port}/{p.protocol}", []).append(
            {"hostIp": p.host_ip or "0.0.0.0", "hostPort": str(p.host_port)}
        )
    settings = {key: first[key] for key in ("ipAddress", "globalIPv6Address", "macAddress")} | {
        "ports": ports,
        "networks": networks,
        "userNetwork": pod.vm.user_network if pod.vm else "",
    }
    return {**msgspec.to_builtins(container), "networkSettings": settings}


def _find(c: Client, name: str, kind: str) -> object:
    if kind in ("", "container"):
        try:
            container = c.call(Container, "GET", container_route(name))
            return with_network(container, c.call(PodDetails, "GET", pod_route(container.pod)).pod)
        except NotFound:
            if kind:
                raise
    if kind in ("", "pod"):
        try:
            return c.call(PodDetails, "GET", pod_route(name))
        except NotFound:
            if kind:
                raise
    if kind in ("", "volume"):
        try:
            return c.call(VolumeInfo, "GET", volume_route(name))
        except NotFound:
            if kind:
                raise
    try:
        return c.call(Image, "GET", "/images/inspect", {"name": name})
    except HyperError:
        if kind:
            raise
        raise NotFound(
            f"no such container, pod, volume or image: {name}", hint="see `hyperctl ps -a` and `hyperctl images`"
        ) from None


@click.command()
@click.option(
    "--type",
    "kind",
    type=click.Choice(["container", "pod", "volume", "image"]),
    default=None,
    help="Look for this kind only.",
)
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], kind: str | None, format_: str) -> int:
    """Show all about containers, pods, volumes or images, as JSON."""
    return show_found(names, kind or "", format_)


def show_found(names: Sequence[str], kind: str, format_: str) -> int:
    """Print what there is of a kind ("" for any); 1 when one was not there."""
    c = client()
    found, failed = [], 0
    for name in names:
        try:
            found.append(_find(c, name, kind))
        except HyperError as error:
            print(f"hyperctl: {error}", file=sys.stderr)
            failed = 1
    show_details(found, format_)
    return failed
