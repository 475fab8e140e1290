# SPDX-License-Identifier: Apache-2.0
"""The networks of a compose file in one pod, which has one for all of its containers."""

from __future__ import annotations

from itertools import combinations

from ..errors import InvalidArgument
from . import composefile as f


class Isolation:
    """What the file keeps apart: kept where one network can, refused where that would open a service to the outside."""

    def __init__(self, compose: f.Compose, services: dict[str, f.Service]) -> None:
        """:raise InvalidArgument: some services must not reach the outside and others must, or a network is missing."""
        self._networks = {k: n or f.Network() for k, n in compose.networks.items()}
        self.told: list[str] = []
        self.network = ""
        within = {key: self._of(key, s) for key, s in services.items()}
        closed = [k for k, nets in within.items() if all(self._networks.get(n, f.Network()).internal for n in nets)]
        if closed and len(closed) < len(within):
            others = [k for k in within if k not in closed]
            raise InvalidArgument(
                f"the service {closed[0]!r} is in internal networks only, and {others[0]!r} is not: "
                f"in one pod {closed[0]!r} would reach the outside",
                hint="run them as containers, with `hyperctl network create --internal NAME` and run --network NAME",
            )
        if closed:
            self.network = "none"
        # Docker would look for an external network by its name.
        self.joined = (
            []
            if closed
            else [
                n.name or k
                for k, n in self._networks.items()
                if n.external and any(k in nets for nets in within.values())
            ]
        )
        apart = next(((a, b) for a, b in combinations(within, 2) if not within[a] & within[b]), None)
        if apart and not closed:
            self.told.append(
                f"networks: the wall between the services {apart[0]} and {apart[1]}, which share the pod's network,"
            )
        self.told += [
            f"networks.{k}.{field}"
            for k, n in self._networks.items()
            for field in ("driver_opts", "ipam")
            if getattr(n, field)
        ]

    def _of(self, key: str, s: f.Service) -> set[str]:
        if s.network_mode == "none":
            return set()
        if s.network_mode == "host" or s.network_mode.startswith("container:"):
            raise InvalidArgument(
                f"services.{key}.network_mode: a virtual machine has a network of its own "
                f"and cannot have {s.network_mode!r}",
                hint="leave it out, and publish ports",
            )
        if s.network_mode:  # service:NAME, bridge: the pod's is that already
            return {"default"}
        names = set(s.networks or ["default"])
        unknown = sorted(names - set(self._networks) - {"default"})
        if unknown:
            raise InvalidArgument(
                f"services.{key}: the network {unknown[0]!r} is not defined", hint="define it below `networks`"
            )
        return names
