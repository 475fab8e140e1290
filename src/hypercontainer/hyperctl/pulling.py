# SPDX-License-Identifier: Apache-2.0
"""Pulling and pushing, with progress."""

from __future__ import annotations

import json
from typing import Any

from ..client.api import Client
from ..client.base import follow
from ..client.sources import absolute, auth_header
from ..errors import InvalidArgument, NotFound
from ..model.images import Image
from ..model.reference import parse_reference, parse_source
from ..model.specs import ContainerSpec
from .output import PullProgress


def take_image(client: Client, source: str, *, platform: str = "", quiet: bool = False) -> str:
    """Take an image from an archive or another such place; its name, or its id when it has none.

    :raise HyperError: what the daemon says went wrong.
    """
    pulled = _pull(client, source, platform, quiet)
    return str(pulled.get("name") or pulled["image"])


def has_image(client: Client, name: str, platform: str) -> bool:
    """Whether hyperd has an image, for that platform if one is named."""
    try:
        image = client.call(Image, "GET", "/images/inspect", {"name": name})
    except NotFound:
        return False
    own = "/".join(filter(None, (image.os, image.architecture, image.variant)))
    return any(f"{p}/".startswith(f"{platform}/") for p in (own, *image.platforms)) if platform else True


def fetch_for(client: Client, spec: ContainerSpec, *, quiet: bool = False) -> None:
    """Pull the image of containers that are made later, if it is not here, or is always to be pulled.

    :raise HyperError: what the daemon says went wrong.
    """
    if spec.pull == "always" or (spec.pull == "missing" and not has_image(client, spec.image, spec.platform)):
        pull_image(client, spec.image, platform=spec.platform, quiet=quiet)


def pull_image(client: Client, source: str, *, platform: str = "", quiet: bool = False) -> str:
    """Pull; the image's id.

    :raise HyperError: what the daemon says went wrong.
    """
    return str(_pull(client, source, platform, quiet)["image"])


def all_tags(client: Client, repository: str) -> list[str]:
    """The names of all that a registry has of a repository.

    :raise InvalidArgument: it has a tag, or is in no registry. :raise HyperError: what the daemon says went wrong.
    """
    parsed = parse_source(repository)
    reference = parse_reference(parsed.location)
    if parsed.transport != "docker" or reference.digest or ":" in repository.rpartition("/")[2]:
        raise InvalidArgument("--all-tags takes a repository of a registry, without a tag")
    response = client.open("GET", "/images/tags", {"name": reference.repository}, headers=auth_header(repository))
    return [reference._replace(tag=tag).familiar for tag in json.loads(response.read())]


def push_image(client: Client, name: str, *, quiet: bool = False) -> str:
    """Push; the digest that the registry has it by.

    :raise HyperError: what the daemon says went wrong.
    """
    pushed = _follow(client, "/images/push", {"name": name}, name, quiet)
    return str(pushed["digest"])


def _pull(client: Client, source: str, platform: str, quiet: bool) -> dict[str, Any]:
    """The daemon's last word."""
    query = {"name": absolute(source), "platform": platform}
    return _follow(client, "/images/pull", query, source, quiet)


def _follow(client: Client, route: str, query: dict[str, str], source: str, quiet: bool) -> dict[str, Any]:
    with PullProgress(quiet) as progress:
        lines = client.lines("POST", route, query, headers=auth_header(source))
        return follow(lines, "digest", route, progress.update)
