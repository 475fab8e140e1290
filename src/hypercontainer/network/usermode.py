# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's user-mode network (slirp): outbound, and published ports.

Every pod is alone in a 10.0.2.0/24 of its own, which slirp translates; it
needs no privileges and nothing on the host.
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

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


def resolv_conf(host: Path = Path("/etc/resolv.conf")) -> bytes:
    """slirp's name server, with the host's search domains and options."""
    lines = [f"nameserver {NAMESERVER}"]
    try:
        text = host.read_text(errors="replace")
    except OSError:
        text = ""
    lines += [line.strip() for line in text.splitlines() if line.startswith(("search ", "options ", "domain "))]
    return ("\n".join(lines) + "\n").encode()


def hosts_file(hostname: str, address: str | None) -> bytes:
    """/etc/hosts as Docker writes it."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", "fe00::\tip6-localnet",
             "ff00::\tip6-mcastprefix", "ff02::1\tip6-allnodes", "ff02::2\tip6-allrouters"]  # fmt: skip
    lines.append(f"{(address or '127.0.1.1').partition('/')[0]}\t{hostname}")
    return ("\n".join(lines) + "\n").encode()
