# SPDX-License-Identifier: Apache-2.0
"""Published ports as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from ..errors import InvalidArgument
from .addresses import ip_version
from .specs import ContainerSpec, PortMapping

_PORT = re.compile(
    r"^(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<host>[0-9-]*):)?(?P<container>[0-9-]+)(?:/(?P<proto>[a-zA-Z]+))?\Z",
    re.ASCII,
)


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
    """Docker's `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`.

    IPv6 is in [ ], HOST and CONTAINER may be ranges, HOST 0 is a free port.

    :raise InvalidArgument: when it is malformed.
    """
    match = _PORT.match(spec)
    if match and match["ip"] is not None and match["host"] is None and re.fullmatch(r"[0-9-]*", match["ip"]):
        ip, host = "", match["ip"]  # one colon: it parts host and container port
    elif match:
        ip, host = (match["ip"] or "").strip("[]"), match["host"] or ""
    proto = (match["proto"] or "tcp").lower() if match else ""
    if match is None or proto not in ("tcp", "udp"):
        raise InvalidArgument(
            f"invalid published port {spec!r}", hint="write [IP:][HOST:]CONTAINER[/tcp|udp], such as 8080:80"
        )
    if ip and not ip_version(ip):
        raise InvalidArgument(f"invalid address {ip!r} in {spec!r}", hint="give an address of this host, IPv6 in [ ]")
    containers = _range(match["container"], spec)
    hosts = _range(host, spec) if host.strip("0") else [0] * len(containers)
    if len(hosts) != len(containers):
        raise InvalidArgument(
            f"the port ranges of {spec!r} differ in length", hint="give both the same number of ports"
        )
    protocol: Literal["tcp", "udp"] = "udp" if proto == "udp" else "tcp"
    return [
        PortMapping(container_port=c, host_port=h, host_ip=ip, protocol=protocol)
        for h, c in zip(hosts, containers, strict=True)
    ]


def parse_exposed(text: str) -> list[str]:
    """`80`, `8000-8010/udp` as `80/tcp` and the like, one for each port.

    :raise InvalidArgument: when it is malformed.
    """
    ports, _, proto = text.partition("/")
    proto = proto.lower() or "tcp"
    if proto not in ("tcp", "udp") or not re.fullmatch("[0-9]{1,5}(-[0-9]{1,5})?", ports):
        raise InvalidArgument(
            f"invalid port {text[:40]!r} to expose", hint="write PORT[-PORT][/tcp|udp], such as 80 or 8000-8010/udp"
        )
    return [f"{port}/{proto}" for port in _range(ports, text)]


def published(spec: ContainerSpec, exposed_by_image: Iterable[str]) -> list[PortMapping]:
    """The ports of a request; with `publish_all` what is exposed too, each on a port that the daemon chooses.

    :raise InvalidArgument: an image's port that is none.
    """
    if not spec.publish_all:
        return spec.ports
    taken = {(p.container_port, p.protocol) for p in spec.ports}
    names = dict.fromkeys(name for text in [*exposed_by_image, *spec.expose] for name in parse_exposed(text))
    parted = [(int(name.partition("/")[0]), name.endswith("udp")) for name in names]
    further = [PortMapping(container_port=number, protocol="udp" if udp else "tcp") for number, udp in parted]
    return [*spec.ports, *(p for p in further if (p.container_port, p.protocol) not in taken)]
