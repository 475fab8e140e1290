# SPDX-License-Identifier: Apache-2.0
"""Security groups: what the pods in them may be reached by, and what they may reach."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from ..errors import InvalidArgument
from .addresses import check_cidr
from .base import Model
from .principal import Tenant

RULES_MAX = 100  # of a group
GROUPS_MAX = 16  # of a pod
PortNumber = Annotated[int, Meta(ge=0, le=65535)]
Text = Annotated[str, Meta(max_length=200)]


class GroupRule(Model, frozen=True, kw_only=True):
    """What is let through. Neither `cidr` nor `group` is everybody, of IPv4 and IPv6."""

    direction: Literal["in", "out"] = "in"
    protocol: Literal["any", "tcp", "udp", "icmp"] = "any"  # icmp is ICMPv6, too
    first_port: PortNumber = 0  # the pod's own, of `in`; 0: every port
    last_port: PortNumber = 0  # 0: the first
    cidr: str = ""
    group: str = ""  # pods in the security group of this name, which may be its own

    def __post_init__(self) -> None:
        """:raise InvalidArgument: it does not hold together. :raise InvalidAddress: naming it."""
        if self.cidr and self.group:
            raise InvalidArgument("a rule is for a network or for a group", hint="make two rules")
        if self.cidr:
            check_cidr(self.cidr, "network of a rule")
        if (self.first_port or self.last_port) and self.protocol not in ("tcp", "udp"):
            raise InvalidArgument(f"a rule for {self.protocol} has no ports", hint="ports are for tcp and udp")
        if self.last_port and not 0 < self.first_port <= self.last_port:
            raise InvalidArgument(f"invalid ports {self.first_port}-{self.last_port}", hint="write FIRST-LAST")


Rules = Annotated[list[GroupRule], Meta(max_length=RULES_MAX)]


class SecurityGroupSpec(Model, frozen=True, kw_only=True):
    """A group to make."""

    name: str
    description: Text = ""
    rules: Rules = field(default_factory=list)


class SecurityGroupUpdate(Model, frozen=True, kw_only=True):
    """What of it is to be another; `rules` are all that it has then."""

    description: Text | UnsetType = UNSET
    rules: Rules | UnsetType = UNSET


class SecurityGroup(Model, frozen=True, kw_only=True):
    """A group, as it is kept."""

    id: str
    name: str
    created_at: str
    description: str = ""
    rules: list[GroupRule] = field(default_factory=list)
    owner: str = ""
    tenant: Tenant = UNSET


class SecurityGroupInfo(Model, frozen=True, kw_only=True):
    """A group with the pods that are in it, by their names."""

    group: SecurityGroup
    pods: list[str]


class Membership(Model, frozen=True, kw_only=True):
    """A pod, or a container which has a pod of its own, that is to be in a group, or not any more."""

    pod: str


def parse_rule(text: str) -> GroupRule:
    """`in tcp 80-90 10.0.0.0/8`: a direction, a protocol, perhaps ports, perhaps a network or `@GROUP`.

    :raise InvalidArgument: it is none.
    """
    words, form = text.split(), "write such as 'in tcp 80-90 10.0.0.0/8', 'in any @web' or 'out udp 53'"
    if len(words) not in (2, 3, 4) or words[0] not in ("in", "out") or words[1] not in ("any", "tcp", "udp", "icmp"):
        raise InvalidArgument(f"invalid rule {text!r}", hint=form)
    rest = words[2:]
    ports = rest.pop(0) if rest and rest[0].replace("-", "", 1).isdecimal() else ""
    remote = rest.pop(0) if rest else ""
    first, _, last = ports.partition("-")
    if rest or (ports and not (first and int(first) <= 65535 and int(last or 0) <= 65535)):
        raise InvalidArgument(f"invalid rule {text!r}", hint=form)
    who = {"group": remote[1:]} if remote.startswith("@") else {"cidr": remote}
    return GroupRule(
        direction="out" if words[0] == "out" else "in", protocol=_PROTOCOLS[words[1]],
        first_port=int(first or 0), last_port=int(last or 0), **who,
    )  # fmt: skip


_PROTOCOLS: dict[str, Literal["any", "tcp", "udp", "icmp"]] = {
    "any": "any", "tcp": "tcp", "udp": "udp", "icmp": "icmp",
}  # fmt: skip


def format_rule(rule: GroupRule) -> str:
    """As `parse_rule` reads it."""
    ports = str(rule.first_port) if rule.first_port else ""
    if rule.last_port > rule.first_port:
        ports += f"-{rule.last_port}"
    remote = f"@{rule.group}" if rule.group else rule.cidr
    return " ".join(filter(None, [rule.direction, rule.protocol, ports, remote]))
