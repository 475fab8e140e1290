# SPDX-License-Identifier: Apache-2.0
"""Rates and destinations as people write them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..errors import InvalidArgument
from .network import Egress


@dataclass(frozen=True)
class RateBounds:
    """What the administrator lets each NIC in a network of this host send and receive, in bits per second; 0: all."""

    egress: int = 0
    ingress: int = 0


UNBOUNDED = RateBounds()


def bounded(asked: int, most: int) -> int:
    """The lower rate; 0 is none of either."""
    return min(asked, most) if asked and most else asked or most


def parse_rate(text: str) -> int:
    """Bits per second: `10m` is 10,000,000."""
    match = re.fullmatch(r"([0-9.]+)([kmg]?)(?:bit)?", text.lower())
    if text and not match:
        raise InvalidArgument(f"invalid rate {text!r}", hint="write a number and k, m or g, such as 10m")
    return int(float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[match[2]]) if match else 0


def parse_allow(text: str) -> Egress:
    """`10.0.0.0/8`, `10.0.0.1:443`, `[fd00::/8]:53`."""
    match = re.fullmatch(
        r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+)|(?P<bare>[0-9a-fA-F:]+:[0-9a-fA-F:/]*))(?::(?P<port>[0-9]+))?",
        text,
    )
    try:
        cidr = str(
            ipaddress.ip_network((match["six"] or match["four"] or match["bare"]) if match else "", strict=False)
        )
    except ValueError:
        raise InvalidArgument(f"invalid destination {text!r}", hint="write CIDR[:PORT]; IPv6 in [ ]") from None
    return Egress(cidr=cidr, port=int(match["port"] or 0) if match else 0)
