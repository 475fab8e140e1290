# SPDX-License-Identifier: Apache-2.0
"""passt (https://passt.top): user-mode network by the host's own sockets, without NAT and faster than QEMU's.

It is a process beside each machine, and ends with its socket.
"""

from __future__ import annotations

import shutil
import socket
import subprocess

from ..errors import Conflict
from ..model.specs import PortMapping
from ..sys.process import command_line
from .usermode import ADDRESS, GATEWAY, NAMESERVER

_TIMEOUT = 10  # seconds until it must run


def find_passt() -> str | None:
    """The program's path, None where it is not installed."""
    return shutil.which("passt")


def _spec(port: PortMapping) -> str:
    place = f"{port.host_ip}/" if port.host_ip and port.host_ip != "0.0.0.0" else ""
    return f"{place}{port.host_port}:{port.container_port}"


def arguments(binary: str, fd: int, ports: tuple[PortMapping, ...]) -> list[str]:
    """The command line; the guest's addresses are those of QEMU's own network."""
    address, _, prefix = ADDRESS.partition("/")
    forwards = [word for p in ports for word in ("-t" if p.protocol == "tcp" else "-u", _spec(p))]
    return [binary, "--quiet", "--fd", str(fd), "--ipv4-only", "--address", address, "--netmask", prefix, "--gateway", GATEWAY,
            "--dns-forward", NAMESERVER, "--no-dhcp", "--mtu", "1500", *forwards]  # fmt: skip


def start(binary: str, ports: tuple[PortMapping, ...]) -> socket.socket:
    """Start it; the socket for the hypervisor.

    :raise Conflict: when it does not run, with its words: a port is taken, or the host has no network.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            serve(binary, ports, theirs)
        except BaseException:
            ours.close()
            raise
    return ours


def serve(binary: str, ports: tuple[PortMapping, ...], theirs: socket.socket) -> None:
    """Start it on a socket whose far end the hypervisor has; as `start` raises."""
    args = arguments(binary, theirs.fileno(), ports)
    # It goes to the background when it is ready.
    done = subprocess.run(args, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise Conflict(f"passt could not be started: {words[-1] if words else command_line(args)}",
                       hint="choose another host port, or set user_network to slirp")  # fmt: skip
