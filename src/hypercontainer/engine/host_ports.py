# SPDX-License-Identifier: Apache-2.0
"""Ports of this host: who has which, and which are being taken.

A pod's ports are its own from the moment in which its start asks for them, not
only when its machine runs: of two starts at once, one gets the port.
"""

from __future__ import annotations

import errno
import os

import msgspec

from ..errors import Conflict
from ..model.addresses import canonical, ip_version
from ..model.specs import PortMapping
from ..model.status import Pod, PodStatus
from ..network.owner import port_owner
from ..network.usermode import bindable
from . import naming
from .principal import current
from .registry import Registry

_TRIES = 20  # ports that the kernel calls free
_HINT = "choose another host port with -p"


def overlap(a: PortMapping, b: PortMapping) -> bool:
    """Whether both would have the same port of the same address."""
    if (a.host_port, a.protocol) != (b.host_port, b.protocol):
        return False
    versions = [{ip_version(p.host_ip)} if p.host_ip else {4, 6} for p in (a, b)]
    everywhere = any(p.host_ip in ("", "0.0.0.0", "::") for p in (a, b))
    return bool(versions[0] & versions[1]) and (everywhere or canonical(a.host_ip) == canonical(b.host_ip))


class HostPorts:
    """Given to pods, one after the other."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._claims: dict[str, list[PortMapping]] = {}  # by pod, of those that start

    def claim(self, pod: Pod, ports: list[PortMapping]) -> list[PortMapping]:
        """The ports with the numbers that the pod gets, its own until they are released.

        :raise Conflict: naming who has one; nothing is claimed then.
        """
        claimed: list[PortMapping] = []
        try:
            for port in ports:
                claimed.append(self._take(port))
                self._claims.setdefault(pod.id, []).append(claimed[-1])
        except BaseException:
            self.release(pod.id, claimed)
            raise
        return claimed

    def release(self, pod_id: str, ports: list[PortMapping] | None = None) -> None:
        """These, or all of the pod's. Idempotent."""
        left = [p for p in self._claims.pop(pod_id, []) if ports is not None and p not in ports]
        if left:
            self._claims[pod_id] = left

    def _take(self, port: PortMapping) -> PortMapping:
        """:raise Conflict: naming who has it."""
        where = f"{_host(port)}:{port.host_port}/{port.protocol}"
        for _ in range(1 if port.host_port else _TRIES):
            if port.host_port and (owner := self.user(port)):
                raise Conflict(f"cannot publish {where}: Address already in use{owner.rstrip()}", hint=_HINT)
            try:
                found = msgspec.structs.replace(port, host_port=bindable(port))
            except OSError as error:
                told = error.errno == errno.EADDRINUSE and not current().tenant  # a project is not told what runs here
                owner = port_owner(port.host_port, port.protocol) if told else ""
                reason = os.strerror(error.errno or 0) + (f" by {owner}" if owner else "")
                raise Conflict(f"cannot publish {where}: {reason}", hint=_HINT) from error
            if not self.user(found):  # the kernel knows nothing of ports that only rules lead to pods
                return found
        raise Conflict(f"no free port on {_host(port)} for {port.container_port}/{port.protocol}", hint=_HINT)

    def user(self, port: PortMapping) -> str:
        """` by pod web`, or a space where that is another tenant's; "" when none has it."""
        for other in self._registry.pods():
            keeps = other.vm or other.status is PodStatus.SUSPENDED
            having = (other.ports if keeps else []) + self._claims.get(other.id, [])
            if any(overlap(p, port) for p in having):
                return f" by pod {other.name}" if naming.is_seen(other) else " "
        if any((b.host_port, b.protocol) == (port.host_port, port.protocol) for b in self._registry.balanced()):
            return " by a deployment"
        return ""


def _host(port: PortMapping) -> str:
    return f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or "0.0.0.0"
