# SPDX-License-Identifier: Apache-2.0
"""What a plugin of CNI is handed: the host's networks and programs, its own directories, and no other file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..jail import helpers, seccomp
from ..jail.jail import Entry, Order

# Programs that plugins start, iptables, nft and ip among them, and what these look up.
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt/cni", "/etc/alternatives", "/etc/ld.so.cache",
             "/etc/protocols", "/etc/services", "/etc/resolv.conf", "/etc/iproute2")  # fmt: skip
# Namespaces, by their names; what plugins keep, and the lock of iptables.
_DIRECTORIES = ("/run/netns", "/run/cni", "/var/lib/cni")
_LOCK = Path("/run/xtables.lock")
_BUS, _SYSFS = Path("/run/dbus"), Path("/sys")  # of firewalld, for `firewall`; of devices, for `host-device`
_NET_ADMIN, _NET_RAW, _SYS_ADMIN = 12, 13, 21  # linux/capability.h; the last is for setns(2)


def order(binary: Path, plugin: Mapping[str, Any], environment: Mapping[str, str]) -> Order:
    """It may do with networks what root may, and reads programs, its directories and what its configuration names."""
    places = [*map(Path, _DIRECTORIES), *_named(plugin, "dataDir")]
    if helpers.jail().confines:
        for place in places:
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        _LOCK.touch(mode=0o600)
    seen = [Path(p) for p in _PROGRAMS]
    seen += [binary.parent, *_named(plugin, "resolvConf")]
    seen += [_BUS] if plugin.get("type") == "firewall" else []
    seen += [_SYSFS] if plugin.get("type") == "host-device" else []
    files = (
        *(Entry(p) for p in dict.fromkeys(seen) if p.exists()),
        *(Entry(p, writable=True) for p in dict.fromkeys((*places, _LOCK)) if p.exists()),
    )
    return replace(
        helpers.order(binary, own_user=os.geteuid(), environment=environment),
        files=files,
        host_network=True,
        capabilities=frozenset({_NET_ADMIN, _NET_RAW, _SYS_ADMIN}) if os.geteuid() == 0 else frozenset(),
        settings="write",  # of the networks: forwarding, say
        first_filter=seccomp.refusals(seccomp.REFUSED - {"setns"}),
    )


def _named(plugin: Mapping[str, Any], key: str) -> Iterator[Path]:
    """Paths under such a key, of the plugin or of the one that gives it addresses."""
    for part in (plugin, plugin.get("ipam") or {}):
        if isinstance(value := part.get(key), str) and value.startswith("/"):
            yield Path(value)
