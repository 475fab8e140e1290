# SPDX-License-Identifier: Apache-2.0
"""user: people, whom organisations have as members."""

from __future__ import annotations

from urllib.parse import quote

import click

from ..errors import InvalidArgument
from ..model.tenancy import UserInfo, UserRequest
from .context import client, for_each
from .output import show, show_details


@click.group()
def user() -> None:
    """Users: people, whom organisations have as members."""


def _route(name: str) -> str:
    return f"/users/{quote(name, safe='')}"


@user.command()
@click.option("--email", default="", help="Address.")
@click.option("--certificate", default="", metavar="COMMON-NAME", help="In the client's certificate that they show.")
@click.option("--login", default="", metavar="VALUE", help="What the identity provider says of them (`oidc`).")
@click.argument("name")
def create(name: str, email: str, certificate: str, login: str) -> None:
    """Make a user, and print the id."""
    request = UserRequest(name=name, email=email, certificate=certificate, login=login)
    print(client().call(UserInfo, "POST", "/users", body=request).id)


@user.command()
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def ls(quiet: bool, format_: str) -> None:
    """List users."""
    found = client().call(list[UserInfo], "GET", "/users")
    if quiet:
        print(*(u.name for u in found), sep="\n", end="\n" if found else "")
        return
    show(
        found, format_, ["ID", "NAME", "EMAIL", "CERTIFICATE", "LOGIN", "ORGANISATIONS"],
        lambda u: [u.id, u.name, u.email, u.certificate, u.login, ",".join(u.organisations)],
    )  # fmt: skip


@user.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format_: str) -> None:
    """Show all about users, as JSON."""
    c = client()
    show_details([c.call(UserInfo, "GET", _route(name)) for name in names], format_)


@user.command()
@click.option("--email", help="Address.")
@click.option("--certificate", metavar="COMMON-NAME", help="In the client's certificate that they show.")
@click.option("--login", metavar="VALUE", help="What the identity provider says of them (`oidc`).")
@click.argument("name")
def update(name: str, email: str | None, certificate: str | None, login: str | None) -> None:
    """Change by what a user is known; "" takes it away.

    With another --login who was logged in by the one before is logged out.
    """
    given = {"email": email, "certificate": certificate, "login": login}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise InvalidArgument("nothing is to change", hint="give --email, --certificate or --login")
    client().call(UserInfo, "POST", f"{_route(name)}/update", body=changes)
    print(name)


@user.command()
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> int:
    """Remove users, with their memberships and tokens."""
    c = client()
    return for_each(names, lambda name: c.do("DELETE", _route(name)))
