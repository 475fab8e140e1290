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


def free_port(mapping: PortMapping) -> int:
    """A port of the host's address that no socket has.

    :raise Conflict: when there is none.
    """
    kind = socket.SOCK_STREAM if mapping.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in mapping.host_ip else socket.AF_INET
    try:
        with socket.socket(family, kind) as sock:
            sock.bind((mapping.host_ip or "0.0.0.0", 0))
            number: int = sock.getsockname()[1]
            return number
    except OSError as error:
        raise Conflict(f"no free port on {mapping.host_ip or '0.0.0.0'}: {error.strerror}",
                       hint="publish on an address of this host") from error  # fmt: skip
