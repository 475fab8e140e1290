# SPDX-License-Identifier: Apache-2.0
"""sg: security groups."""

from __future__ import annotations

from urllib.parse import quote

import click
from msgspec import UNSET

from ..errors import InvalidArgument
from ..model.security_groups import (
    GroupRule,
    Membership,
    SecurityGroup,
    SecurityGroupInfo,
    SecurityGroupSpec,
    SecurityGroupUpdate,
    format_rule,
    parse_rule,
)
from .context import client, for_each
from .output import show, show_details
from .standard import print_made

_RULE = click.option(
    "--rule", "rules", multiple=True, metavar="'in|out PROTOCOL [PORTS] [CIDR|@GROUP]'",
    help="What is let through: 'in tcp 80-90 10.0.0.0/8', 'in any @web', 'out udp 53'.",
)  # fmt: skip


@click.group()
def sg() -> None:
    """Security groups: by what pods are reached, and what they reach."""


def group_route(name: str, rest: str = "") -> str:
    """Of a security group, by its name or id."""
    return f"/security-groups/{quote(name, safe='')}{rest}"


@sg.command()
@_RULE
@click.option("--description", default="", help="What it is for.")
@click.argument("name")
def create(name: str, rules: tuple[str, ...], description: str) -> None:
    """Make a security group, and print its id.

    \b
    hyperctl sg create web --rule 'in tcp 80' --rule 'in tcp 443'
    hyperctl sg create database --rule 'in tcp 5432 @web'
    """
    spec = SecurityGroupSpec(name=name, description=description, rules=[parse_rule(r) for r in rules])
    print_made(client().call(SecurityGroup, "POST", "/security-groups", body=spec).id, "the security group")


@sg.command(name="ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("-f", "--format", "format_", default="", metavar="table|json|TEMPLATE", help="How to print.")
def list_(quiet: bool, format_: str) -> None:
    """List security groups, their rules, and the pods in them."""
    found = client().call(list[SecurityGroupInfo], "GET", "/security-groups")
    if quiet:
        for each in found:
            print(each.group.name)
        return
    show(
        found, format_, ["NAME", "RULES", "PODS", "DESCRIPTION"],
        lambda i: [
            i.group.name, ", ".join(map(format_rule, i.group.rules)) or "none", ", ".join(i.pods), i.group.description,
        ],
    )  # fmt: skip


sg.add_command(list_, "list")


@sg.command()
@click.option("-f", "--format", "format_", default="", metavar="json|TEMPLATE", help="How to print.")
@click.argument("name", nargs=-1, required=True)
def inspect(name: tuple[str, ...], format_: str) -> None:
    """Show all about security groups, as JSON."""
    c = client()
    show_details([c.call(SecurityGroupInfo, "GET", group_route(each)) for each in name], format_)


@sg.command()
@_RULE
@click.option("--add-rule", "added", multiple=True, metavar="RULE", help="One more.")
@click.option("--rm-rule", "removed", multiple=True, metavar="RULE", help="Without this one, as `sg ls` prints it.")
@click.option("--no-rules", is_flag=True, help="None: nothing reaches its pods by it.")
@click.option("--description", help="What it is for.")
@click.argument("name")
def update(
    name: str, rules: tuple[str, ...], added: tuple[str, ...], removed: tuple[str, ...], no_rules: bool,
    description: str | None,
) -> None:  # fmt: skip
    """Change a security group: its pods have it at once, and what is not allowed any more is cut.

    The rules of --rule take the place of all that it has.
    """
    if sum(map(bool, (rules, added or removed, no_rules))) > 1:
        raise InvalidArgument("--rule, --no-rules, and --add-rule with --rm-rule are three ways to say it",
                              hint="give one of them")  # fmt: skip
    c = client()
    wanted: list[GroupRule] | None = [parse_rule(r) for r in rules] if rules or no_rules else None
    if added or removed:
        wanted = _changed(c.call(SecurityGroupInfo, "GET", group_route(name)).group, added, removed)
    change = SecurityGroupUpdate(
        rules=UNSET if wanted is None else wanted, description=UNSET if description is None else description
    )
    c.call(SecurityGroupInfo, "POST", group_route(name, "/update"), body=change)


def _changed(group: SecurityGroup, added: tuple[str, ...], removed: tuple[str, ...]) -> list[GroupRule]:
    rules = list(group.rules)
    for text in removed:
        rule = parse_rule(text)
        if rule not in rules:
            raise InvalidArgument(f"security group {group.name} has no rule {text!r}", hint="see `hyperctl sg ls`")
        rules.remove(rule)
    return rules + [rule for rule in map(parse_rule, added) if rule not in rules]


@sg.command()
@click.argument("name", nargs=-1, required=True)
def rm(name: tuple[str, ...]) -> int:
    """Remove security groups that no pod is in."""
    c = client()
    return for_each(name, lambda each: c.do("DELETE", group_route(each)))


@sg.command()
@click.argument("name")
@click.argument("pod", nargs=-1, required=True)
def attach(name: str, pod: tuple[str, ...]) -> int:
    """Put pods, or containers with pods of their own, into the security group NAME; at once, if they run."""
    c = client()
    return for_each(pod, lambda each: c.do("POST", group_route(name, "/attach"), body=Membership(pod=each)))


@sg.command()
@click.argument("name")
@click.argument("pod", nargs=-1, required=True)
def detach(name: str, pod: tuple[str, ...]) -> int:
    """Take pods, or containers with pods of their own, out of the security group NAME; at once, if they run."""
    c = client()
    return for_each(pod, lambda each: c.do("POST", group_route(name, "/detach"), body=Membership(pod=each)))
