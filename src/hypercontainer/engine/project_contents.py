# SPDX-License-Identifier: Apache-2.0
"""What there is in a project."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..images.store import ImageStore
from ..model.network import DEFAULT_NETWORK
from ..model.principal import Principal
from .builder.builders import Builders
from .builder.machine import VOLUME
from .cron.crons import Crons
from .deployments.deployments import Deployments
from .fips import Fips
from .forks.snapshots import PodSnapshots
from .naming import Named, is_system
from .networks import Networks
from .principal import asked_by
from .registry import Registry
from .volume_snapshots import VolumeSnapshots
from .volumes import Volumes

_CLEARING = "hyperd"  # the principal that takes away what people did not make


@dataclass(frozen=True)
class ProjectContents:
    """Counted, and, what goes with a project that people have emptied, taken away."""

    registry: Registry
    snapshots: PodSnapshots
    volume_snapshots: VolumeSnapshots
    images: ImageStore
    networks: Networks
    volumes: Volumes
    builders: Builders
    crons: Crons
    fips: Fips
    deployments: Deployments

    def counted(self, project: str, *, everything: bool = False) -> list[str]:
        """For each kind how much of it a project, by its id, has: "3 containers". Its builder, default network and
        images' names go with it, and count only with `everything`.
        """
        registry = self.registry
        kinds: dict[str, Iterable[Named]] = {
            "containers": (c for c in registry.containers() if everything or not is_system(c)),
            "pods": (p for p in registry.pods() if not p.implicit),
            "volumes": (v for v in registry.volumes() if everything or v.name != VOLUME),
            "networks": (n for n in registry.networks() if everything or n.name != DEFAULT_NETWORK),
            "snapshots": self.snapshots.documents(),
            "volume snapshots": self.volume_snapshots.documents(),
            "security groups": registry.groups.all(),
            "deployments": self.deployments.records(),
            "cron jobs": self.crons.records(),
            "floating IPs": self.fips.records(),
        }  # fmt: skip
        counts = {kind: sum(r.tenant == project for r in records) for kind, records in kinds.items()}
        making = ["something that is being made"] if registry.quotas.is_making(project) else []
        return [*(f"{n} {kind if n > 1 else kind[:-1]}" for kind, n in counts.items() if n), *making]

    async def clear(self, project: str) -> None:
        """Idempotent. :raise HyperError: something of it cannot be removed; the project stays."""
        with asked_by(Principal(_CLEARING, project)):
            await self.builders.forget(project)
            if self.registry.find_volume(VOLUME):
                await self.volumes.remove(VOLUME)
            for network in [n for n in self.registry.networks() if n.tenant == project]:
                await self.networks.remove(network.id)
            await self.images.prune(everything=True)
