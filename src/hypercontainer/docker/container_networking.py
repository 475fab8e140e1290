# SPDX-License-Identifier: Apache-2.0
"""NetworkMode, NetworkingConfig and what else of a request is about networks, as the engine has it."""

from __future__ import annotations

from typing import Any, Literal, cast

from ..errors import InvalidArgument, Unsupported
from ..model.egress import EgressPolicy, parse_secret, policy
from ..model.network import CNI, USER_MODES, NetworkRequest
from ..model.security_groups import GROUPS_MAX
from ..model.specs import HostEntry
from .container_bodies import Create, Endpoint

# Labels, or annotations: Docker has no fields for these.
_EGRESS, _ALLOW_HOST = "hypercontainer.egress", "hypercontainer.allow-host"
_INJECT_SECRET = "hypercontainer.inject-secret"  # its values are variables of the request
_SECURITY_GROUP = "hypercontainer.security-group"
DEFAULT = ("", "default", "bridge")  # the network that hyperd gives to who names none


def networking(body: Create) -> dict[str, Any]:
    """The fields of a specification that say how a container is connected.

    :raise InvalidArgument: what contradicts itself. :raise Unsupported: another one's network.
    """
    host = body.host_config
    mode = "none" if body.network_disabled else host.network_mode
    if mode == "host":
        raise Unsupported("NetworkMode host: a virtual machine has a network of its own; publish ports, and reach "
                          "this host by an ExtraHosts entry NAME:host-gateway")  # fmt: skip
    if mode.startswith("container:"):
        raise Unsupported(f"NetworkMode {mode}: a virtual machine has a network of its own; containers share one "
                          "in one pod (`hyperctl pod create`)")  # fmt: skip
    labels = {**host.annotations, **body.labels}
    return {
        **_networks(mode, body),
        "egress": _egress(labels, body.env),
        "security_groups": _groups(labels),
        "dns": host.dns,
        "dns_search": host.dns_search,
        "dns_options": host.dns_options,
        "hosts": [_host_entry(text) for text in host.extra_hosts],
        "links": [*host.links, *(x for e in body.networking_config.endpoints_config.values() for x in e.links)],
    }


def _networks(mode: str, body: Create) -> dict[str, Any]:
    endpoints = dict(body.networking_config.endpoints_config)
    plain = mode == "none" or mode in USER_MODES or mode.startswith(CNI)
    if plain:
        wanted = {k: e for k, e in endpoints.items() if k not in (mode, *DEFAULT)}
        if wanted or any(_says_something(e) for e in endpoints.values()):
            raise InvalidArgument(f"conflicting options: a container with NetworkMode {mode} is in no other network")
        return {"network": mode}
    if mode in DEFAULT and endpoints and not any(k in endpoints for k in DEFAULT):
        # Networks that are named take the place of the default one, as with Docker.
        mode = next(iter(endpoints))
    first = endpoints.pop(mode, None) or next((endpoints.pop(k) for k in DEFAULT if k in endpoints and mode in DEFAULT),
                                              Endpoint())  # fmt: skip
    mac = first.mac_address or body.mac_address
    if mode in DEFAULT and not endpoints and not mac and not _says_something(first):
        return {}  # the daemon's default, whichever that is
    requests = [request("bridge" if mode in DEFAULT else mode, first, mac)]
    others = sorted(endpoints.items(), key=lambda item: -item[1].gw_priority)
    return {"networks": [*requests, *(request(name, e, e.mac_address) for name, e in others)]}


def _egress(labels: dict[str, str], env: list[str]) -> EgressPolicy | None:
    """:raise InvalidArgument: a label is malformed, or names a variable that is not given."""
    mode = labels.get(_EGRESS, "")
    if mode not in ("", "open", "none"):
        raise InvalidArgument(f"invalid label {_EGRESS} {mode!r}", hint="write open or none")
    given = dict(entry.split("=", 1) for entry in env if "=" in entry)

    def value(name: str) -> bytes:
        if name not in given:
            raise InvalidArgument(f"label {_INJECT_SECRET}: the variable {name} has no value",
                                  hint=f"give it, by -e {name}: the container gets a placeholder")  # fmt: skip
        return given[name].encode()

    secrets = [parse_secret(text, value) for text in _words(labels, _INJECT_SECRET)]
    return policy(cast(Literal["", "open", "none"], mode), _words(labels, _ALLOW_HOST), secrets)


def _groups(labels: dict[str, str]) -> list[str]:
    """:raise InvalidArgument: there are too many."""
    found = list(dict.fromkeys(_words(labels, _SECURITY_GROUP)))
    if len(found) > GROUPS_MAX:
        raise InvalidArgument(f"label {_SECURITY_GROUP}: a pod is in {GROUPS_MAX} security groups at most")
    return found


def _words(labels: dict[str, str], name: str) -> list[str]:
    return [word.strip() for word in labels.get(name, "").split(",") if word.strip()]


def _says_something(endpoint: Endpoint) -> bool:
    return endpoint != Endpoint(gw_priority=endpoint.gw_priority)


def request(name: str, e: Endpoint, mac: str) -> NetworkRequest:
    ipam = e.ipam_config
    return NetworkRequest(name=name, ip=ipam.ipv4_address, ip6=ipam.ipv6_address, mac=mac, aliases=e.aliases)


def _host_entry(text: str) -> HostEntry:
    name, colon, ip = text.partition(":")
    if "=" in name:
        name, colon, ip = text.partition("=")
    if not name or not colon or not ip:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    return HostEntry(ip=ip.strip("[]"), names=[name])
