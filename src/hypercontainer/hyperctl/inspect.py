# SPDX-License-Identifier: Apache-2.0
"""inspect."""

from __future__ import annotations

import sys

import click

from ..client.api import Client, container_route, pod_route
from ..errors import HyperError, NotFound
from ..model.status import Container, Image, PodDetails, VolumeInfo
from .context import client
from .output import show_details
from .volumes import volume_route


def _find(c: Client, name: str, kind: str) -> object:
    if kind in ("", "container"):
        try:
            return c.call(Container, "GET", container_route(name))
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
        raise NotFound(f"no such container, pod, volume or image: {name}", hint="see `hyperctl ps -a` and `hyperctl images`") from None


@click.command()
@click.option("--type", "kind", type=click.Choice(["container", "pod", "volume", "image"]), default=None, help="Look for this kind only.")
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], kind: str | None, format_: str) -> int:
    """Show all about containers, pods, volumes or images, as JSON."""
    c = client()
    found, failed = [], 0
    for name in names:
        try:
            found.append(_find(c, name, kind or ""))
        except HyperError as error:
            print(f"hyperctl: {error}", file=sys.stderr)
            failed = 1
    show_details(found, format_)
    return failed
