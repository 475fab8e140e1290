# SPDX-License-Identifier: Apache-2.0
"""container and image: Docker's groups, whose verbs are those that stand alone."""

from __future__ import annotations

from typing import ClassVar

import click

from ..client.api import Query
from ..model.filters import encode_filters, read_filters
from ..model.status import Pruned
from ..model.units import format_size
from .cli import HELP, VERBS, LazyGroup
from .context import client
from .inspect import show_found
from .warning import ask

PRUNE_FILTERS = ("until", "label")
_ALONE = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "rename", "restart", "rm",
    "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
)  # fmt: skip
_FILTER = click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those: until=TIME, label=KEY[=VALUE]."
)
_FORCE = click.option("-f", "--force", is_flag=True, help="Do not ask.")


class _Containers(LazyGroup):
    verbs: ClassVar[dict[str, str]] = {
        **{name: VERBS[name] for name in _ALONE},
        "inspect": "groups:inspect_container",
        "ls": VERBS["ps"],
        "prune": "groups:prune_containers",
    }
    summaries: ClassVar[dict[str, str]] = {
        **{name: HELP[name] for name in _ALONE},
        "inspect": "Show all about containers",
        "ls": HELP["ps"],
        "prune": "Remove all containers that do not run",
    }


class _Images(LazyGroup):
    verbs: ClassVar[dict[str, str]] = {
        "build": VERBS["build"],
        "history": VERBS["history"],
        "import": VERBS["import"],
        "load": VERBS["load"],
        "save": VERBS["save"],
        "inspect": "groups:inspect_image",
        "ls": VERBS["images"],
        "prune": VERBS["image-prune"],
        "pull": VERBS["pull"],
        "push": VERBS["push"],
        "rm": VERBS["rmi"],
        "tag": VERBS["tag"],
    }
    summaries: ClassVar[dict[str, str]] = {
        "build": HELP["build"],
        "history": HELP["history"],
        "import": HELP["import"],
        "load": HELP["load"],
        "save": HELP["save"],
        "inspect": "Show all about images",
        "ls": HELP["images"],
        "prune": HELP["image-prune"],
        "pull": HELP["pull"],
        "push": HELP["push"],
        "rm": HELP["rmi"],
        "tag": HELP["tag"],
    }


@click.group(cls=_Containers)
def container() -> None:
    """Manage containers; each verb is that which stands alone, `hyperctl ps` is `ls` here."""


@click.group(cls=_Images)
def image() -> None:
    """Manage images; each verb is that which stands alone, but ls, rm and prune: images, rmi and image-prune."""


@click.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("containers", nargs=-1, required=True)
def inspect_container(containers: tuple[str, ...], format_: str) -> int:
    """Show all about containers, as JSON."""
    return show_found(containers, "container", format_)


@click.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("images", nargs=-1, required=True)
def inspect_image(images: tuple[str, ...], format_: str) -> int:
    """Show all about images, as JSON."""
    return show_found(images, "image", format_)


@click.command()
@_FORCE
@_FILTER
def prune_containers(force: bool, filters: tuple[str, ...]) -> None:
    """Remove all containers that do not run; those of pods of several stay."""
    wanted = read_filters(filters, PRUNE_FILTERS)
    if not force:
        ask(["all stopped containers"])
    query: Query = {"filters": encode_filters(wanted)}
    done = client().call(Pruned, "POST", "/containers/prune", query)
    print_pruned("Deleted Containers:", done.removed)
    print(f"Total reclaimed space: {format_size(done.freed)}")


def print_pruned(title: str, lines: list[str]) -> None:
    """What went, under a title; nothing when there is nothing."""
    if lines:
        print(title)
        print("\n".join(lines))
        print()
