# SPDX-License-Identifier: Apache-2.0
"""What clients say of networks."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import msgspec

from ..errors import InvalidArgument, NotFound, Unsupported
from ..model.network import NetworkSpec
from . import container_fields as fields
from .container_bodies import Endpoint
from .container_request import converted, without_nulls

_MTU = "com.docker.network.driver.mtu"
_DRIVERS = "bridge", "host", "ipvlan", "macvlan", "null", "overlay"  # Docker's own
# What Docker's own driver has and a bridge of ours does, or is, anyway.
_AS_IT_IS = {
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    "com.docker.network.bridge.gateway_mode_ipv4": "nat",
    "com.docker.network.bridge.gateway_mode_ipv6": "nat",
}


class Subnet(msgspec.Struct, kw_only=True, rename="pascal"):
    """Addresses of one IP version."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(msgspec.Struct, kw_only=True, rename="pascal"):
    """Where addresses come from."""

    driver: str = ""
    config: list[Subnet] | None = None
    options: dict[str, str] | None = None


class CreateNetwork(msgspec.Struct, kw_only=True, rename="pascal"):
    """A network; what has no meaning here is refused, unless it says what is so anyway."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    check_duplicate: bool | None = None
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, str] | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Connect(msgspec.Struct, kw_only=True, rename="pascal"):
    """Who comes into a network, and as what."""

    container: str
    endpoint_config: Endpoint | None = None


class Disconnect(msgspec.Struct, kw_only=True, rename="pascal"):
    """Who leaves it."""

    container: str
    force: bool = False


def read_connect(raw: dict[str, Any]) -> Connect:
    """The document, when every field of it is one that is taken.

    :raise InvalidArgument: a field has another type. :raise Unsupported: one asks for what is not there.
    """
    given = without_nulls(raw)
    body = converted(given, Connect)
    fields.check("EndpointConfig", given.get("EndpointConfig", {}), fields.ENDPOINT)
    return body


def specification(asked: CreateNetwork) -> NetworkSpec:
    """As the engine takes it.

    :raise InvalidArgument: malformed. :raise NotFound: nobody has such a driver. :raise Unsupported: it has what
    networks here do not have, which is named.
    """
    if not asked.name:
        raise InvalidArgument("the network has no name")
    if asked.driver not in ("", "default", *_DRIVERS):
        raise NotFound(f'plugin "{asked.driver}" not found',
                       hint="HyperContainer has the driver bridge")  # fmt: skip
    for what in _missing(asked):
        raise Unsupported(f"HyperContainer has no {what}")
    subnets = (asked.ipam.config if asked.ipam else None) or []
    ranges = [s.ip_range for s in subnets if s.ip_range]
    for each in subnets:
        if (each.gateway or each.ip_range) and not each.subnet:
            raise InvalidArgument("invalid network config: an address range or a gateway needs its subnet")
    return NetworkSpec(
        name=asked.name,
        subnets=[_network_of(s.subnet) for s in subnets if s.subnet],
        gateways=[s.gateway for s in subnets if s.gateway],
        ip_range=ranges[0] if ranges else "",
        internal=asked.internal,
        ipv6=bool(asked.enable_ipv6),
        mtu=_mtu(asked.options or {}),
        labels=asked.labels or {},
    )


def _network_of(subnet: str) -> str:
    """Docker takes one with bits of a host, and leaves them away."""
    try:
        return str(ip_network(subnet, strict=False))
    except ValueError:
        wrong = f"invalid subnet {subnet}: invalid CIDR block notation"
        raise InvalidArgument(f"invalid network config:\n{wrong}") from None


def _missing(asked: CreateNetwork) -> Iterator[str]:
    if asked.driver not in ("", "bridge", "default"):
        yield f"network driver {asked.driver!r}: use bridge"
    if asked.scope not in ("", "local") or asked.ingress:
        yield "networks of a swarm: a cluster is Kubernetes' concern"
    if asked.config_only or (asked.config_from or {}).get("Network"):
        yield "networks that are configurations of others"
    if asked.enable_ipv4 is False:
        yield "networks without IPv4"
    ipam = asked.ipam or Ipam()
    if ipam.driver not in ("", "default"):
        yield f"IPAM driver {ipam.driver!r}: use default"
    if ipam.options:
        yield f"IPAM option {next(iter(ipam.options))}"
    if any(s.auxiliary_addresses for s in ipam.config or []):
        yield "auxiliary addresses of networks"
    for key, value in (asked.options or {}).items():
        if key != _MTU and _AS_IT_IS.get(key) != value:
            yield f"network option {key}={value}"


def _mtu(options: dict[str, Any]) -> int:
    text = options.get(_MTU, "0")
    if not text.isdecimal():
        raise InvalidArgument(f"network option {_MTU}={text}: not a whole number")
    return int(text)
