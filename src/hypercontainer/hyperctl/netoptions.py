# SPDX-License-Identifier: Apache-2.0
"""The flags of run and create that say how a pod is connected."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..model.egress import EgressSecret, parse_secret, policy
from ..model.network import NetworkRequest
from ..model.rates import parse_allow, parse_rate
from ..model.specs import HostEntry


def _host_entry(text: str) -> HostEntry:
    name, equals, ip = text.partition("=")  # Docker's newer way, where an IPv6 address needs no brackets
    if not equals:
        name, equals, ip = text.partition(":")
    if not name or not equals or not ip:
        raise InvalidArgument(f"invalid host {text!r}", hint="write NAME:IP, or NAME:host-gateway for this host")
    return HostEntry(ip=ip.strip("[]"), names=[name])


_KEYS = {"name": "name", "alias": "aliases", "ip": "ip", "ip6": "ip6", "mac-address": "mac"}


def _network(text: str) -> dict[str, Any]:
    """A network's name, or `name=NAME,alias=...,ip=...` as Docker has it.

    :raise InvalidArgument: an unknown key, or no name.
    """
    if "=" not in text:
        return {"name": "bridge" if text == "default" else text}
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value or key not in _KEYS:
            raise InvalidArgument(
                f"invalid network {text!r}: unknown {key!r}", hint=f"write {', '.join(f'{k}=...' for k in _KEYS)}"
            )
        if key == "alias":
            found.setdefault("aliases", []).append(value)
        else:
            found[_KEYS[key]] = value
    if "name" not in found:
        raise InvalidArgument(f"invalid network {text!r}: it has no name", hint="write name=NAME,...")
    return found


def _secret(text: str) -> EgressSecret:
    """`NAME@...` has its value from this program's environment, `NAME=FILE@...` from a file."""
    head, at, place = text.rpartition("@")
    name, _, path = head.partition("=")

    def value(name: str) -> bytes:
        if not path:
            if name not in os.environ:
                raise InvalidArgument(f"there is no variable {name} here", hint="set it, or write NAME=FILE@HOST")
            return os.fsencode(os.environ[name])
        try:
            return Path(path).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise InvalidArgument(f"cannot read the secret {path}: {error.strerror}") from error

    return parse_secret(f"{name}{at}{place}" if at else text, value)


def networking(o: dict[str, Any]) -> dict[str, Any]:
    """The fields of a specification that say how a pod is connected."""
    asked = [_network(n) for n in o["network"]]
    names = [str(n["name"]) for n in asked]
    own = {"ip": o["ip"], "ip6": o["ip6"], "mac": o["mac_address"], "aliases": list(o["network_alias"])}
    plain = len(names) == 1 and (names[0] == "none" or names[0].partition(":")[0] in ("user", "cni"))
    if any(own.values()) and (plain or len(names) > 1):
        raise InvalidArgument(
            "addresses and aliases need one network",
            hint="write them as --network name=NAME,ip=...,alias=..., or name one network",
        )
    if plain and len(asked[0]) > 1:
        raise InvalidArgument(f"network {names[0]} has no addresses and aliases to choose", hint="give its name alone")
    if any(own.values()):
        first = asked[0] if asked else {"name": "bridge"}
        given = {k: v for k, v in own.items() if v}
        if both := sorted(given.keys() & first.keys() - {"aliases"}):
            raise InvalidArgument(f"{both[0]} is given twice for network {first['name']}", hint="give it once")
        aliases = [*first.get("aliases", []), *own["aliases"]]
        asked = [{**first, **given, "aliases": aliases}]
    requests = [] if plain else [NetworkRequest(**n) for n in asked]
    return {
        "network": names[0] if plain else "",
        "networks": requests,
        "dns": list(o["dns"]),
        "dns_search": list(o["dns_search"]),
        "dns_options": list(o["dns_option"]),
        "hosts": [_host_entry(h) for h in o["add_host"]],
        "allow": [parse_allow(a) for a in o["allow"]],
        "egress": policy(o["egress"] or "", o["allow_host"], [_secret(s) for s in o["inject_secret"]]),
        "security_groups": list(o["security_group"]),
        "ingress_rate": parse_rate(o["ingress_rate"]),
        "egress_rate": parse_rate(o["egress_rate"]),
    }
