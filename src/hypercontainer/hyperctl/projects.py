# SPDX-License-Identifier: Apache-2.0
"""project: what containers, volumes, networks and tokens are in."""

from __future__ import annotations

from urllib.parse import quote

import click
import msgspec

from ..model.policy import Policy
from ..model.quotas import read_quota
from ..model.tenancy import ProjectInfo, ProjectRequest
from .context import client, for_each
from .options import pairs
from .output import show, show_details


@click.group()
def project() -> None:
    """Projects: what containers, volumes, networks and tokens are in.

    Other verbs are for the one that `hyperctl --project NAME` says, HYPER_PROJECT, or the context.
    """


def project_route(name: str, suffix: str = "") -> str:
    return f"/projects/{quote(name, safe='')}{suffix}"


@project.command()
@click.option("--organisation", default="", metavar="NAME", help="Whose it is [default: the only one].")
@click.option("--description", default="", help="What it is, for people.")
@click.argument("name")
def create(name: str, organisation: str, description: str) -> None:
    """Make a project, and print its id."""
    request = ProjectRequest(name=name, organisation=organisation, description=description)
    print(client().call(ProjectInfo, "POST", "/projects", body=request).id)


@project.command()
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def ls(quiet: bool, format_: str) -> None:
    """List projects."""
    found = client().call(list[ProjectInfo], "GET", "/projects")
    if quiet:
        print(*(p.name for p in found), sep="\n", end="\n" if found else "")
        return
    show(
        found, format_, ["ID", "NAME", "ORGANISATION", "DESCRIPTION"],
        lambda p: [p.id, p.name, p.organisation, p.description],
    )  # fmt: skip


@project.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format_: str) -> None:
    """Show all about projects, as JSON."""
    c = client()
    show_details([c.call(ProjectInfo, "GET", project_route(name)) for name in names], format_)


@project.command()
@click.argument("name")
@click.argument("new")
def rename(name: str, new: str) -> None:
    """Rename a project."""
    client().do("POST", project_route(name, "/rename"), {"name": new})


@project.command()
@click.option("--image", "images", multiple=True, metavar="PATTERN",
              help="Names in full that may be pulled, with *: registry.example.org/team/*; none: all.")  # fmt: skip
@click.option("--signatures", default="", metavar="NAME",
              help="Only images that this one of hyperd's `image_policies` takes [default: as the host].")  # fmt: skip
@click.option("--no-builds", is_flag=True, help="No images that are built, committed, loaded or imported.")
@click.option("--no-privileged", is_flag=True, help="No privileged containers.")
@click.option("--no-host-paths", is_flag=True, help="No files of the host, whoever asks.")
@click.option("--capability", "capabilities", multiple=True, metavar="NAME",
              help="Those that may be added, NONE for none [default: all].")  # fmt: skip
@click.option("--driver", "drivers", multiple=True, metavar="NAME", help="Hypervisors [default: all].")
@click.option("--fresh", is_flag=True, help="Only machines that share no memory with others from their start.")
@click.argument("name")
def restrict(
    name: str, images: tuple[str, ...], signatures: str, no_builds: bool, no_privileged: bool, no_host_paths: bool,
    capabilities: tuple[str, ...], drivers: tuple[str, ...], fresh: bool,
) -> None:  # fmt: skip
    """Say what a project's containers may be, in place of what was said before; without options, anything."""
    policy = Policy(
        images=list(images) or None, signatures=signatures, builds=not no_builds, privileged=not no_privileged,
        host_paths=not no_host_paths,
        capabilities=[c for c in capabilities if c.upper() != "NONE"] if capabilities else None,
        drivers=list(drivers) or None, isolation="fresh" if fresh else "default",
    )  # fmt: skip
    client().do("PUT", project_route(name, "/policy"), body=policy)


@project.command()
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> int:
    """Remove projects that are empty, with their tokens."""
    c = client()
    return for_each(names, lambda name: c.do("DELETE", project_route(name)))


@project.command()
@click.argument("name")
@click.argument("limits", nargs=-1, required=True, metavar="[NAME=NUMBER|none]...")
def quota(name: str, limits: tuple[str, ...]) -> None:
    """Say what may be in a project at most: pods=10 memory=4g starts=none.

    \b
    pods, containers, volumes, networks, snapshots  that there are
    addresses, security_groups, deployments, crons  that there are; addresses are floating ones
    ports                                           of the host, that pods publish
    vcpus, memory                                   of pods that run
    disk                                            that disks and volumes may grow to
    image_disk, snapshot_disk                       that images and snapshots take
    starts, requests                                in a minute

    What is not named stays as it is. `hyperctl --project NAME quota` shows what there is.
    """
    c = client()
    before = c.call(ProjectInfo, "GET", project_route(name)).quota
    changed = msgspec.structs.replace(before, **read_quota(pairs(limits, "quota", need_value=True)))
    c.call(ProjectInfo, "PUT", project_route(name, "/quota"), body=changed)
