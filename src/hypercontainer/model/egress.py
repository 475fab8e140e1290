# SPDX-License-Identifier: Apache-2.0
"""A pod's egress policy: the hosts, by name, that it may reach, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

from msgspec import Meta, field

from ..errors import InvalidArgument
from .addresses import InvalidAddress, ip_version
from .base import Model

PORTS = (80, 443)  # of a host of which no port is given
HOSTS_MAX = 1000
SECRETS_MAX = 32
SECRET_MAX = 8192  # bytes
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


class EgressSecret(Model, frozen=True, kw_only=True):
    """A secret that goes to one host, in headers of requests by TLS; the pod has a placeholder for it."""

    name: str  # of the variable that has the placeholder
    host: str  # no wildcard
    port: Annotated[int, Meta(ge=1, le=65535)] = 443
    header: str = ""  # the only one that it goes in; "": any
    placeholder: str = ""  # the daemon's to make
    value: bytes = b""  # of a request; in no record

    def __post_init__(self) -> None:
        """:raise InvalidAddress: naming what is wrong."""
        EgressHost(host=self.host)
        if self.host.startswith(_WILD):
            raise InvalidAddress(f"invalid host {self.host!r} of a secret", hint="a secret goes to one host")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,127}", self.name, re.ASCII):
            raise InvalidAddress(f"invalid name of a secret {self.name!r}", hint="give a variable's name")
        if self.header and not re.fullmatch("[A-Za-z0-9-]{1,64}", self.header, re.ASCII):
            raise InvalidAddress(f"invalid header {self.header!r} of a secret", hint="give a header's name")
        printable = len(self.value) <= SECRET_MAX and all(0x20 <= c < 0x7F for c in self.value)
        if not printable or self.value.strip() != self.value:
            hint = f"give up to {SECRET_MAX} printable ASCII letters, no line's end, and no space at either end"
            raise InvalidAddress(f"the value of the secret {self.name!r} cannot be in a header", hint=hint)


class EgressPolicy(Model, frozen=True, kw_only=True):
    """All that a pod may reach beside the addresses of its `allow`: these hosts, by TLS or HTTP."""

    hosts: Annotated[list[EgressHost], Meta(max_length=HOSTS_MAX)] = field(default_factory=list)
    secrets: Annotated[list[EgressSecret], Meta(max_length=SECRETS_MAX)] = field(default_factory=list)
    authority: str = ""  # PEM: the certificate of the CA whose TLS the pod meets at the secrets' hosts; the daemon's

    def __post_init__(self) -> None:
        """:raise InvalidAddress: two secrets have a name, by which they are kept."""
        if len({secret.name for secret in self.secrets}) < len(self.secrets):
            raise InvalidAddress("a secret is named twice", hint="give each a name of its own")

    def ports(self) -> set[int]:
        """Those by which it may speak to some host."""
        return {port for host in self.hosts for port in host.ports} | {secret.port for secret in self.secrets}

    def names(self, name: str) -> bool:
        """Whether a canonical name may be known to the pod."""
        return any(host.covers(name) for host in self.hosts) or any(name == secret.host for secret in self.secrets)

    def allows(self, name: str, port: int) -> bool:
        """Whether the pod may speak with a port of a host; the name is canonical."""
        return any(host.covers(name) and port in host.ports for host in self.hosts) or self.swaps(name, port)

    def swaps(self, name: str, port: int) -> bool:
        """Whether a secret goes there."""
        return any((name, port) == (secret.host, secret.port) for secret in self.secrets)


class EgressChange(Model, frozen=True, kw_only=True):
    """Another policy for a pod; its secrets stay, and the hosts that they go to."""

    open: bool = False  # no policy at all
    hosts: Annotated[list[EgressHost], Meta(max_length=HOSTS_MAX)] = field(default_factory=list)

    def __post_init__(self) -> None:
        """:raise InvalidAddress: it contradicts itself."""
        if self.open and self.hosts:
            raise InvalidAddress("egress is open, and hosts are named", hint="leave out one of them")


def parse_host(text: str) -> EgressHost:
    """`api.example.com`, `*.example.com:8443`; letters may be large, and a last dot is none.

    :raise InvalidArgument: it is no host.
    """
    name, colon, port = text.rpartition(":") if ":" in text and not ip_version(text.strip("[]")) else (text, "", "")
    if colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InvalidArgument(f"invalid host {text!r}: {port!r} is no port", hint="write HOST[:PORT]")
    return EgressHost(host=name.lower().removesuffix("."), port=int(port or 0))


def policy(
    mode: Literal["", "open", "none"], hosts: Iterable[str], secrets: Sequence[EgressSecret] = ()
) -> EgressPolicy | None:
    """What `--egress`, `--allow-host` and `--inject-secret` say together; None: no policy.

    :raise InvalidArgument: they contradict each other, or one is no host.
    """
    found = [parse_host(text) for text in hosts]
    if mode == "open" and (found or secrets):
        raise InvalidArgument("egress is open, and hosts are named", hint="leave out one of them")
    return EgressPolicy(hosts=found, secrets=list(secrets)) if found or secrets or mode == "none" else None


def parse_secret(text: str, value: Callable[[str], bytes]) -> EgressSecret:
    """`NAME@HOST[:PORT][:HEADER]`; a port is of digits. `value` gives what NAME stands for.

    :raise InvalidArgument: it is none.
    """
    name, at, place = text.partition("@")
    host, *rest = place.split(":")
    port = int(rest.pop(0)) if rest and rest[0].isascii() and rest[0].isdecimal() and len(rest[0]) < 6 else 443
    if not at or not name or len(rest) > 1 or not 0 < port < 1 << 16:
        raise InvalidArgument(f"invalid secret {text!r}", hint="write NAME@HOST[:PORT][:HEADER]")
    named = parse_host(host)
    return EgressSecret(name=name, host=named.host, port=port, header=rest[0] if rest else "", value=value(name))
