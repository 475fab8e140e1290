# SPDX-License-Identifier: Apache-2.0
"""Who has a port of this host: for the message that refuses it (proc(5), /proc/net/tcp)."""

from __future__ import annotations

import contextlib
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN; UDP sockets have 07


def port_owner(port: int, protocol: str) -> str:
    """`nginx (pid 12)`, "" when nobody or only the kernel knows."""
    inodes = set()
    for table in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and (protocol == "udp" or fields[3] == _LISTEN):
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if any(_target(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _target(fd: Path) -> str:
    """What a descriptor is; "" when it was closed meanwhile, as the one that listed our own is."""
    try:
        return str(fd.readlink())
    except OSError:
        return ""
