# SPDX-License-Identifier: Apache-2.0
"""passt (https://passt.top): user-mode network by the host's own sockets, without NAT and faster than QEMU's.

It is a process beside each machine, and ends with its socket.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import Conflict, Unavailable
from ..model.specs import PortMapping
from ..sys import tasks
from ..sys.process import child, command_line
from .links import way_out
from .usermode import ADDRESS, GATEWAY, NAMESERVER


@dataclass(frozen=True)
class RunsAs:
    """As what a helper of a machine runs: what is allotted to that machine of this host."""

    user: int = 0  # number; 0: as the program itself chooses
    control_groups: tuple[Path, ...] = ()  # directories of groups that it is born in


RunsAsOf = Callable[[str, bool], RunsAs]  # by a pod's id, and whether it is kept from the host's loopback
_TIMEOUT = 10  # seconds until it must run
_PORT_TAKEN = ("bind", "port", "address already in use")  # of its complaints about one


def find_passt() -> str | None:
    """The program's path, None where it is not installed."""
    return shutil.which("passt")


def _spec(port: PortMapping) -> str:
    place = f"{port.host_ip}/" if port.host_ip and port.host_ip != "0.0.0.0" else ""
    return f"{place}{port.host_port}:{port.container_port}"


def arguments(
    binary: str,
    fd: int,
    ports: tuple[PortMapping, ...],
    interface: str = "",
    user: int = 0,
    *,
    host_loopback: bool = False,
) -> list[str]:
    """The command line; the guest's addresses are those of QEMU's own network.

    `interface` is one of the host's to take as its own, where no default route says which.
    """
    address, _, prefix = ADDRESS.partition("/")
    forwards = [word for p in ports for word in ("-t" if p.protocol == "tcp" else "-u", _spec(p))]
    walls = [] if host_loopback else ["--no-map-gw"]
    template = ["--interface", interface] if interface else []
    identity = ["--runas", f"{user}:{user}"] if user else []
    return [
        binary,
        "--quiet",
        "--fd",
        str(fd),
        "--ipv4-only",
        "--address",
        address,
        "--netmask",
        prefix,
        "--gateway",
        GATEWAY,
        "--dns-forward",
        NAMESERVER,
        "--no-dhcp",
        "--mtu",
        "1500",
        *template,
        *identity,
        *walls,
        *forwards,
    ]


async def start(ports: tuple[PortMapping, ...], runs_as: RunsAs, *, host_loopback: bool) -> socket.socket:
    """Start it; the socket for the hypervisor. It raises as `serve` does."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            await serve(ports, theirs, runs_as, host_loopback=host_loopback)
        except BaseException:
            ours.close()
            raise
    return ours


async def serve(
    ports: tuple[PortMapping, ...], theirs: socket.socket, runs_as: RunsAs, *, host_loopback: bool
) -> None:  # fmt: skip
    """Start it on a socket whose far end the hypervisor has.

    :raise Conflict: when a port is taken. :raise Unavailable: when it does not run, with its words.
    """
    binary = find_passt()
    if not binary:
        raise Unavailable("passt is not installed", hint="install the package passt, or set user_network to slirp")
    user = 0 if os.geteuid() else runs_as.user
    args = arguments(binary, theirs.fileno(), ports, way_out(), user, host_loopback=host_loopback)
    # It goes to the background when it is ready.
    async with child(
        *args, control_groups=runs_as.control_groups, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = await tasks.within(process.communicate(), _TIMEOUT)
        except TimeoutError:
            raise Unavailable(
                f"passt did not start within {_TIMEOUT} s", hint="try again, or set user_network to slirp"
            ) from None
    if process.returncode:
        lines = (err or out).decode(errors="replace").strip().splitlines()
        words = next(
            (x for x in reversed(lines) if not x.startswith("Failed to send")), command_line(args)
        )  # its log's trouble
        if any(known in words.lower() for known in _PORT_TAKEN):
            raise Conflict(f"passt cannot publish the ports: {words}", hint="choose another host port with -p")
        raise Unavailable(
            f"passt could not be started: {words}", hint="set user_network to slirp, or use --network none"
        )
