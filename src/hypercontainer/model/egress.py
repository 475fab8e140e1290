# SPDX-License-Identifier: Apache-2.0
"""A pod's egress policy: the hosts, by name, that it may reach, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, field

from ..errors import InvalidArgument
from .addresses import InvalidAddress, ip_version
from .base import Model

PORTS = (80, 443)  # of a host of which no port is given
HOSTS_MAX = 1000
# RFC 1123, with underscores, which names of services have; a name has 253 letters at most.
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME_MAX = 253
_WILD = "*."


def canonical_name(text: str) -> str:
    """A host's name in small letters, without the last dot; "" for what is none, an address among them."""
    name = text.lower().removesuffix(".")
    fits = text.isascii() and len(name) <= _NAME_MAX and _NAME.fullmatch(name)
    last = name.rpartition(".")[2]
    # What ends in a number an address's parser may take (`0x7f.1`, `10.1`), whatever a resolver makes of it.
    is_number = last.isdecimal() or re.fullmatch("0x[0-9a-f]*", last)
    return name if fits and not is_number else ""


class EgressHost(Model, frozen=True, kw_only=True):
    """A host that a pod may reach; `*.example.com` is every name below example.com."""

    host: str
    port: Annotated[int, Meta(ge=0, le=65535)] = 0  # 0: 80 and 443

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming it."""
        name = self.host.removeprefix(_WILD)
        if ip_version(self.host.strip("[]")):
            raise InvalidAddress(
                f"invalid host {self.host!r}: it is an address", hint="allow it by --allow CIDR[:PORT]"
            )
        if not name or canonical_name(name) != name:
            raise InvalidAddress(
                f"invalid host {self.host!r}",
                hint="write a name in small ASCII letters (xn--... for others), or *.NAME for all below it",
            )

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port,) if self.port else PORTS

    def covers(self, name: str) -> bool:
        """Whether a canonical name is meant, whatever the port."""
        if self.host.startswith(_WILD):
            return name.endswith(self.host[1:]) and len(name) > len(self.host[1:])
        return name == self.host

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class EgressPolicy(Model, frozen=True, kw_only=True):
    """All that a pod may reach beside the addresses of its `allow`: these hosts, by TLS or HTTP."""

    hosts: Annotated[list[EgressHost], Meta(max_length=HOSTS_MAX)] = field(default_factory=list)

    def names(self, name: str) -> bool:
        """Whether a canonical name may be known to the pod."""
        return any(host.covers(name) for host in self.hosts)

    def allows(self, name: str, port: int) -> bool:
        """Whether the pod may speak with a port of a host; the name is canonical."""
        return any(host.covers(name) and port in host.ports for host in self.hosts)


def parse_host(text: str) -> EgressHost:
    """`api.example.com`, `*.example.com:8443`; letters may be large, and a last dot is none.

    :raise InvalidArgument: it is no host.
    """
    name, colon, port = text.rpartition(":") if ":" in text and not ip_version(text.strip("[]")) else (text, "", "")
    if colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InvalidArgument(f"invalid host {text!r}: {port!r} is no port", hint="write HOST[:PORT]")
    return EgressHost(host=name.lower().removesuffix("."), port=int(port or 0))


def policy(mode: Literal["", "open", "none"], hosts: Iterable[str]) -> EgressPolicy | None:
    """What `--egress` and `--allow-host` say together; None: no policy.

    :raise InvalidArgument: they contradict each other, or one is no host.
    """
    found = [parse_host(text) for text in hosts]
    if mode == "open" and found:
        raise InvalidArgument("egress is open, and hosts are named", hint="leave out one of them")
    return EgressPolicy(hosts=found) if found or mode == "none" else None
