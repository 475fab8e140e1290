# SPDX-License-Identifier: Apache-2.0
"""organisation: who pays, and who does what in their projects."""

from __future__ import annotations

from urllib.parse import quote

import click

from ..model.tenancy import ROLES, MemberRequest, OrganisationInfo, OrganisationRequest, Role
from .context import client, for_each
from .output import show, show_details


@click.group()
def organisation() -> None:
    """Organisations: who pays, and who does what in their projects.

    \b
    viewer    sees what there is
    operator  makes, starts and ends it
    owner     that, and members, projects and tokens
    auditor   sees usage and what happened, neither output nor environments
    """


def _route(name: str, suffix: str = "") -> str:
    return f"/organisations/{quote(name, safe='')}{suffix}"


@organisation.command()
@click.option("--description", default="", help="What it is, for people.")
@click.argument("name")
def create(name: str, description: str) -> None:
    """Make an organisation, and print its id."""
    request = OrganisationRequest(name=name, description=description)
    print(client().call(OrganisationInfo, "POST", "/organisations", body=request).id)


@organisation.command()
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def ls(quiet: bool, format_: str) -> None:
    """List organisations."""
    found = client().call(list[OrganisationInfo], "GET", "/organisations")
    if quiet:
        print(*(o.name for o in found), sep="\n", end="\n" if found else "")
        return

    def cells(o: OrganisationInfo) -> list[str]:
        members = ",".join(f"{m.user}:{m.role}" for m in o.members)
        return [o.id, o.name, ",".join(o.projects), members, o.description]

    show(found, format_, ["ID", "NAME", "PROJECTS", "MEMBERS", "DESCRIPTION"], cells)


@organisation.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format_: str) -> None:
    """Show all about organisations, as JSON."""
    c = client()
    show_details([c.call(OrganisationInfo, "GET", _route(name)) for name in names], format_)


@organisation.command()
@click.argument("name")
@click.argument("new")
def rename(name: str, new: str) -> None:
    """Rename an organisation."""
    client().do("POST", _route(name, "/rename"), {"name": new})


@organisation.command()
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> int:
    """Remove organisations that have no projects."""
    c = client()
    return for_each(names, lambda name: c.do("DELETE", _route(name)))


@organisation.group()
def member() -> None:
    """Who does what in an organisation's projects."""


@member.command()
@click.option("-r", "--role", type=click.Choice(ROLES), required=True, help="What they may do.")
@click.argument("name")
@click.argument("user")
def put(name: str, user: str, role: Role) -> None:
    """Bring a user in, or give a member another role."""
    client().do("PUT", _route(name, "/members"), body=MemberRequest(user=user, role=role))


@member.command("rm")
@click.argument("name")
@click.argument("user")
def remove(name: str, user: str) -> None:
    """Take a member out, with their tokens in its projects."""
    client().do("DELETE", _route(name, "/members"), {"user": user})


@member.command("ls")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
@click.argument("name")
def list_(name: str, format_: str) -> None:
    """List the members of an organisation."""
    found = client().call(OrganisationInfo, "GET", _route(name)).members
    show(found, format_, ["ID", "USER", "ROLE"], lambda m: [m.id, m.user, m.role])
