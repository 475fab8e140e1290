# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's user-mode network (slirp): outbound, and published ports.

Every pod is alone in a 10.0.2.0/24 of its own, which slirp translates; it
needs no privileges and nothing on the host.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable

from ..errors import InvalidArgument
from ..model.specs import PortMapping
from .backend import Link

ADDRESS, GATEWAY, NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"


def new_mac() -> str:
    """A random address in QEMU's range."""
    return "52:54:00:" + ":".join(f"{b:02x}" for b in secrets.token_bytes(3))


def mac_of(link: Link) -> str:
    """The one that it is to have, or any."""
    return link.mac or new_mac()


def check_ipv4(ports: Iterable[PortMapping]) -> None:
    """:raise InvalidArgument: one is to be published on an IPv6 address."""
    for port in ports:
        if ":" in port.host_ip:
            raise InvalidArgument(
                f"port {port.container_port} cannot be published on [{port.host_ip}] by the pod's network",
                hint="publish on an IPv4 address, or use a network of this host",
            )


def bindable(mapping: PortMapping) -> int:
    """The mapping's host port, or one that no socket has when it is 0.

    :raise OSError: when a program of this host has it, or the address is not this host's.
    """
    kind = socket.SOCK_STREAM if mapping.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in mapping.host_ip else socket.AF_INET
    with socket.socket(family, kind) as sock:
        if mapping.protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((mapping.host_ip or "0.0.0.0", mapping.host_port))
        number: int = sock.getsockname()[1]
        return number
