# SPDX-License-Identifier: Apache-2.0
"""Published ports as people write them."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from ..errors import InvalidArgument
from .specs import PortMapping

_PORT = re.compile(r"^(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<host>[0-9-]*):)?(?P<container>[0-9-]+)(?:/(?P<proto>[a-z]+))?$")


def _range(text: str, spec: str) -> list[int]:
    low, _, high = text.partition("-")
    try:
        first, last = int(low), int(high or low)
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last <= 65535:
        raise InvalidArgument(f"invalid port {text!r} in {spec!r}", hint="ports are 1 to 65535")
    return list(range(first, last + 1))


def parse_publish(spec: str) -> list[PortMapping]:
    """Docker's `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`; HOST and CONTAINER may be ranges.

    :raise InvalidArgument: when it is malformed.
    """
    match = _PORT.match(spec)
    if match and match["ip"] is not None and match["host"] is None and re.fullmatch(r"[0-9-]*", match["ip"]):
        ip, host = "", match["ip"]  # one colon: it parts host and container port
    elif match:
        ip, host = (match["ip"] or "").strip("[]"), match["host"] or ""
    if not match or match["proto"] not in (None, "tcp", "udp"):
        raise InvalidArgument(f"invalid published port {spec!r}", hint="write [IP:][HOST:]CONTAINER[/tcp|udp], such as 8080:80")
    if ip:
        try:
            ipaddress.IPv4Address(ip)
        except ValueError:
            raise InvalidArgument(f"invalid address {ip!r} in {spec!r}", hint="give an IPv4 address of this host") from None
    containers = _range(match["container"], spec)
    hosts = _range(host, spec) if host else [0] * len(containers)
    if len(hosts) != len(containers):
        raise InvalidArgument(f"the port ranges of {spec!r} differ in length", hint="give both the same number of ports")
    protocol: Literal["tcp", "udp"] = "udp" if match["proto"] == "udp" else "tcp"
    return [PortMapping(container_port=c, host_port=h, host_ip=ip, protocol=protocol) for h, c in zip(hosts, containers, strict=True)]
