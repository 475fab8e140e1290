# SPDX-License-Identifier: Apache-2.0
"""passt (https://passt.top): user-mode network by the host's own sockets, without NAT and faster than QEMU's.

It is a process beside each machine, and ends with its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import Conflict, HyperError, Unavailable
from ..jail import helpers, seccomp
from ..jail.jail import Entry, Order, Started
from ..model.specs import PortMapping
from ..sys import process, tasks
from ..sys.process import command_line
from ..sys.users import pick
from .links import way_out
from .usermode import ADDRESS, GATEWAY, NAMESERVER


@dataclass(frozen=True)
class RunsAs:
    """As what a helper of a machine runs: what is allotted to that machine of this host."""

    user: int = 0  # number; 0: as the program itself chooses
    control_groups: tuple[Path, ...] = ()  # directories of groups that it is born in


RunsAsOf = Callable[[str, bool], RunsAs]  # by a pod's id, and whether it is kept from the host's loopback
_TIMEOUT = 10  # seconds until it must run
_WORDS_MAX = 1 << 16  # bytes of its complaints
_FILES = (Path("/etc/resolv.conf"),)  # whose name servers it asks
_OF_NAMESPACES = frozenset({"mount", "umount2", "pivot_root", "unshare"})
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
    return [
        binary,
        "--quiet",
        "--foreground",
        "--pid",
        "/proc/self/fd/1",
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
    args = arguments(binary, theirs.fileno(), ports, way_out(), host_loopback=host_loopback)
    user = runs_as.user or pick()
    with contextlib.ExitStack() as stack:
        ready, told = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, ready)
        errors = stack.enter_context(tempfile.TemporaryFile())
        try:
            if os.geteuid() == 0:
                os.fchown(told, user, user)  # it opens its output once more: its number comes there when it is ready
            order = _order(args, user, theirs.fileno(), told, errors.fileno())
            started = await helpers.jail().spawn(replace(order, control_groups=runs_as.control_groups))
        finally:
            os.close(told)
        if not await _begins(ready, started):
            errors.seek(0)
            raise _trouble(errors.read(_WORDS_MAX).decode(errors="replace"), args)


def _order(args: list[str], user: int, theirs: int, output: int, errors: int) -> Order:
    """It makes namespaces itself, where nothing is left to be seen, and has a filter of its own."""
    return Order(
        args=tuple(args),
        user=user,
        output=output,
        errors=errors,
        files=(*helpers.program(Path(args[0])), *(Entry(p) for p in _FILES if p.exists())),
        directories=("/tmp",),  # on which it mounts its root
        devices=helpers.DEVICES,
        descriptors=(theirs,),
        host_network=True,
        settings="read",
        nested=True,
        first_filter=seccomp.refusals(seccomp.REFUSED - _OF_NAMESPACES),
        environment={"PATH": os.environ.get("PATH", os.defpath)},
    )


async def _begins(ready: int, started: Started) -> bool:
    """Whether it runs; then somebody reaps it when it ends with its socket. Else it has ended.

    :raise Unavailable: neither comes.
    """
    loop = asyncio.get_running_loop()
    there = loop.create_future()
    loop.add_reader(ready, lambda: None if there.done() else there.set_result(None))
    try:
        await tasks.within(there, _TIMEOUT)
        runs = bool(os.read(ready, 16))
    except TimeoutError:
        process.kill(*started)
        raise Unavailable(
            f"passt did not start within {_TIMEOUT} s", hint="try again, or set user_network to slirp"
        ) from None
    except BaseException:
        process.kill(*started)
        raise
    finally:
        loop.remove_reader(ready)
        helpers.reap(started)
    return runs


def _trouble(said: str, args: list[str]) -> HyperError:
    lines = said.strip().splitlines()
    # Its log's trouble is not ours.
    words = next((x for x in reversed(lines) if not x.startswith("Failed to send")), command_line(args))
    if any(known in words.lower() for known in _PORT_TAKEN):
        return Conflict(f"passt cannot publish the ports: {words}", hint="choose another host port with -p")
    hint = "set user_network to slirp, or use --network none"
    return Unavailable(f"passt could not be started: {words}", hint=hint)
