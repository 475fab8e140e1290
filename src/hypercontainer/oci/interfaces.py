# SPDX-License-Identifier: Apache-2.0
"""What a network namespace of this host has, as network interfaces of a virtual machine."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from ..errors import NotFound, Unavailable

_TIMEOUT = 10.0  # seconds for `ip`


def interfaces_of(namespace: str) -> list[dict[str, Any]]:
    """Each of the namespace but loopback, with its addresses, as an InterfaceSpec of hyperd's; `namespace` is a path.

    :raise NotFound: there is no such namespace. :raise Unavailable: it cannot be looked at.
    """
    if not os.path.exists(namespace):
        raise NotFound(f"there is no network namespace {namespace}")
    gateways = {("", 4): "", ("", 6): ""}
    for version in (4, 6):
        for route in _ip(namespace, f"-{version}", "route", "show", "default"):
            gateways.setdefault((route.get("dev", ""), version), route.get("gateway", ""))
    return [
        {
            "namespace": namespace, "device": link["ifname"], "mac": link["address"], "mtu": link["mtu"],
            "addresses": [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link"],
            "gateway": gateways.get((link["ifname"], 4), ""), "gateway6": gateways.get((link["ifname"], 6), ""),
        }
        for link in _ip(namespace, "addr", "show")
        if link.get("link_type") == "ether" and "UP" in link["flags"]
    ]  # fmt: skip


def _ip(namespace: str, *args: str) -> list[dict[str, Any]]:
    command = ["nsenter", f"--net={namespace}", "ip", "-json", *args]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{' '.join(command)}: {error}", hint="are util-linux and iproute2 installed?") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    return found
