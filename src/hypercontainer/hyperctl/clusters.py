# SPDX-License-Identifier: Apache-2.0
"""cluster: what the daemon's cluster of Kubernetes has of projects."""

from __future__ import annotations

import sys
from urllib.parse import quote

import click

from ..client.api import Client
from ..model.cluster import ClusterPod, NodeInfo
from ..model.units import format_age
from .context import client, for_each
from .output import show

_FORMAT = click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")


@click.group()
def cluster() -> None:
    """Projects as namespaces of a cluster of Kubernetes, by the daemon that has them.

    A context of the cluster's (`hyperctl context create --kubernetes`) runs Pods there.
    """


@cluster.command()
@_FORMAT
def nodes(format_: str) -> None:
    """List the nodes whose use is collected, and how far it is."""
    found = client().call(list[NodeInfo], "GET", "/cluster/nodes")

    def cells(node: NodeInfo) -> list[str]:
        seen = format_age(node.collected_at) or "never"
        return [node.name, node.address, str(node.entries), seen, node.trouble]

    show(found, format_, ["NAME", "ADDRESS", "ENTRIES", "COLLECTED", "TROUBLE"], cells)


@cluster.command()
@_FORMAT
def ps(format_: str) -> None:
    """List Pods of the project, or of all, in the cluster."""
    found = client().call(list[ClusterPod], "GET", "/cluster/pods")

    def cells(pod: ClusterPod) -> list[str]:
        images = ", ".join(pod.images)
        return [pod.project, pod.name, pod.status, pod.node, images, format_age(pod.created_at)]

    show(found, format_, ["PROJECT", "NAME", "STATUS", "NODE", "IMAGE", "CREATED"], cells)


def _route(name: str, suffix: str = "") -> str:
    return f"/cluster/pods/{quote(name, safe='')}{suffix}"


@cluster.command()
@click.argument("names", nargs=-1, required=True)
def stop(names: tuple[str, ...]) -> int:
    """End Pods of the project; what owns one may make another."""
    c: Client = client()
    return for_each(names, lambda name: c.do("DELETE", _route(name)))


@cluster.command()
@click.option("-n", "--tail", type=click.IntRange(1), default=1000, help="Lines from the end [default: 1000].")
@click.argument("name")
def logs(name: str, tail: int) -> None:
    """Show the last output of a Pod's first container."""
    sys.stdout.buffer.write(client().open("GET", _route(name, "/logs"), {"tail": tail}).read())
