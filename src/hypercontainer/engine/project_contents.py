# SPDX-License-Identifier: Apache-2.0
"""What there is in a project."""

from __future__ import annotations

from collections.abc import Iterable

from .forks.snapshots import PodSnapshots
from .naming import Named
from .registry import Registry


def counted(registry: Registry, snapshots: PodSnapshots, project: str) -> list[str]:
    """For each kind how much of it a project, by its id, has: "3 containers"."""
    kinds: dict[str, Iterable[Named]] = {
        "containers": registry.containers(), "pods": [p for p in registry.pods() if not p.implicit],
        "volumes": registry.volumes(), "networks": registry.networks(), "snapshots": snapshots.saved(),
    }  # fmt: skip
    counts = {kind: sum(r.tenant == project for r in records) for kind, records in kinds.items()}
    return [f"{n} {kind if n > 1 else kind[:-1]}" for kind, n in counts.items() if n]
