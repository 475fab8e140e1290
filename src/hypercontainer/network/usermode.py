# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's user-mode network (slirp): outbound, and published ports.

Every pod is alone in a 10.0.2.0/24 of its own, which slirp translates; it
needs no privileges and nothing on the host.
"""

from __future__ import annotations

import secrets
import socket

from ..errors import Conflict
from ..model.specs import PortMapping

ADDRESS, GATEWAY, NAMESERVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"


def new_mac() -> str:
    """A random address in QEMU's range."""
    return "52:54:00:" + ":".join(f"{b:02x}" for b in secrets.token_bytes(3))


def free_port(mapping: PortMapping) -> PortMapping:
    """The mapping with a host port that is free, when it named none.

    :raise Conflict: when there is none.
    """
    if mapping.host_port:
        return mapping
    kind = socket.SOCK_STREAM if mapping.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.bind((mapping.host_ip or "0.0.0.0", 0))
            number = sock.getsockname()[1]
    except OSError as error:
        raise Conflict(f"no free port on {mapping.host_ip or '0.0.0.0'}: {error.strerror}") from error
    return PortMapping(container_port=mapping.container_port, host_port=number, host_ip=mapping.host_ip, protocol=mapping.protocol)
