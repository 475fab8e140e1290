# SPDX-License-Identifier: Apache-2.0
"""token: by what others use this daemon."""

from __future__ import annotations

import click

from ..model.principal import SCOPES, Scope
from ..model.tokens import LIFE, NewToken, TokenInfo, TokenRequest
from ..model.units import parse_duration
from .context import client, for_each
from .output import show


@click.group()
def token() -> None:
    """Tokens by which others use this daemon.

    \b
    read     see what there is
    operate  change pods, containers, images, volumes and networks
    audit    usage and what happened, neither output nor environments
    manage   tokens, members and projects
    admin    all of that, the daemon itself, and all organisations
    host     have hyperd use its host for it: paths, bridges, logs; comes with no other
    """


@token.command()
@click.option(
    "-s", "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, default=("operate",), show_default=True,
    help="What its holder may do; may be repeated.",
)  # fmt: skip
@click.option("--expires", default=f"{LIFE / 3600:g}h", show_default=True, help="How long it is good for; 0: for ever.")
@click.option("--user", default="", metavar="NAME", help="A member's; it can do no more than they.")
@click.argument("name")
def create(name: str, scopes: tuple[Scope, ...], expires: str, user: str) -> None:
    """Make a token, and print it: it is shown this once.

    Its holder says HYPER_HOST=tcp://ADDRESS:PORT HYPER_TOKEN=TOKEN. With `hyperctl --project NAME` it is one of the
    project, and for nothing else.
    """
    request = TokenRequest(name=name, scopes=list(scopes), life=parse_duration(expires), user=user)
    print(client().call(NewToken, "POST", "/tokens", body=request).secret)


@token.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
def ls(quiet: bool, format_: str) -> None:
    """List tokens, without their secrets."""
    found = client().call(list[TokenInfo], "GET", "/tokens")
    if quiet:
        print(*(t.id for t in found), sep="\n", end="\n" if found else "")
        return

    def cells(t: TokenInfo) -> list[str]:
        used = _moment(t.last_used_at)
        made, whose = _moment(t.created_at), t.user or "-"
        return [t.id, t.name, ",".join(t.scopes), made, _until(t), used, t.owner or "hyperd", whose]

    show(found, format_, ["ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "OWNER", "USER"], cells)


def _until(found: TokenInfo) -> str:
    if found.expired:
        return "expired"
    return _moment(found.expires_at)


def _moment(stamp: str) -> str:
    return f"{stamp[:19]}Z" if stamp else "never"


@token.command()
@click.argument("tokens", nargs=-1, required=True)
def revoke(tokens: tuple[str, ...]) -> int:
    """Revoke tokens, by name or id; what is open with them is closed."""
    c = client()
    return for_each(tokens, lambda name: c.do("DELETE", f"/tokens/{name}"))
