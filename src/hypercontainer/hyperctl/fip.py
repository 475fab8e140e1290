# SPDX-License-Identifier: Apache-2.0
"""fip: floating addresses."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from ..model.fips import FipInfo, FipName, FipRequest, FipTarget
from .context import client, for_each
from .output import show, show_details

_FIP = click.argument("fip", nargs=-1, required=True)


@click.group()
def fip() -> None:
    """Floating addresses, by which a container is reached that may be another one tomorrow."""


def fip_route(key: str, rest: str = "") -> str:
    """Of a floating address, by its address, name or id."""
    return f"/fips/{quote(key, safe='')}{rest}"


@fip.command()
@click.option("--name", default="", help="What to call it.")
@click.option("-6", "--ipv6", is_flag=True, help="One of IPv6.")
@click.option("--address", default="", help="This one, if it is free.")
@click.argument("count", type=click.IntRange(1, 256), default=1)
def allocate(count: int, name: str, ipv6: bool, address: str) -> None:
    """Allocate floating addresses, one where no COUNT is said, and print them."""
    if count > 1 and (name or address):
        raise click.UsageError("--name and --address are of one address")
    request = FipRequest(name=name, version=6 if ipv6 else 4, address=address)
    c = client()
    for _ in range(count):
        print(c.call(FipInfo, "POST", "/fips", body=request).address)


@fip.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only addresses.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, format_: str) -> None:
    """List floating addresses, and which container or pod has each."""
    found = client().call(list[FipInfo], "GET", "/fips")
    if quiet:
        for each in found:
            print(each.address)
        return
    show(found, format_, ["ADDRESS", "NAME", "POD"], lambda f: [f.address, f.name, f.pod])


fip.add_command(list_, "list")


@fip.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@_FIP
def inspect(fip: tuple[str, ...], format_: str) -> None:
    """Show all about floating addresses, as JSON."""
    c = client()
    show_details([c.call(FipInfo, "GET", fip_route(each)) for each in fip], format_)


@fip.command()
@click.argument("fip")
@click.argument("container")
def attach(fip: str, container: str) -> None:
    """Give a floating address to a container or pod: all its ports, at once and whenever it runs."""
    client().call(FipInfo, "POST", fip_route(fip, "/attach"), body=FipTarget(pod=container))


def _each(fips: tuple[str, ...], method: str, rest: str = "") -> Any:
    c = client()
    return for_each(fips, lambda key: c.do(method, fip_route(key, rest)))


@fip.command()
@_FIP
def detach(fip: tuple[str, ...]) -> Any:
    """Take floating addresses from what has them; connections by them are cut."""
    return _each(fip, "POST", "/detach")


@fip.command()
@_FIP
def release(fip: tuple[str, ...]) -> Any:
    """Release floating addresses: whoever allocates next may get them."""
    return _each(fip, "DELETE")


@fip.command()
@click.argument("fip")
@click.argument("name")
def name(fip: str, name: str) -> None:
    """Give a floating address another name."""
    client().call(FipInfo, "POST", fip_route(fip, "/name"), body=FipName(name=name))
