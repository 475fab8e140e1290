# SPDX-License-Identifier: Apache-2.0
"""The Pods of projects in the cluster, for who asks."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from ...cluster.port import Cluster
from ...errors import InvalidArgument, Unsupported
from ...model.cluster import ClusterPod
from ...model.principal import NOWHERE
from ...model.tenancy import Project
from ..principal import current
from ..tenancy import rights
from ..tenants import Tenants

_LINES = 10_000  # of a log, at most
_TOGETHER = 8  # namespaces that are asked about at a time


class ClusterPods:
    """Of the project that one is in; for the administrator without one, of all."""

    def __init__(self, cluster: Cluster | None, tenants: Tenants) -> None:
        self._cluster, self._tenants = cluster, tenants

    @property
    def active(self) -> bool:
        """Whether there is a cluster."""
        return self._cluster is not None

    def _there(self) -> Cluster:
        if self._cluster is None:
            raise Unsupported("this hyperd has no cluster", hint="see `cluster` in docs/configuration.md")
        return self._cluster

    def _asked(self) -> Project | None:
        return self._tenants.project(current().tenant)

    async def all(self) -> list[ClusterPod]:
        """By project and name. :raise Unavailable: the cluster does not answer."""
        cluster = self._there()
        seen = self._seen()
        turn = asyncio.Semaphore(_TOGETHER)

        async def of(project: Project) -> list[ClusterPod]:
            async with turn:
                return [replace(p, project=project.name) for p in await cluster.pods(project.id)]

        return [pod for found in await asyncio.gather(*map(of, seen)) for pod in found]

    def _seen(self) -> list[Project]:
        if own := self._asked():
            return [own]
        return self._tenants.projects() if rights.is_administrator() and current().tenant != NOWHERE else []

    async def stop(self, name: str) -> None:
        """End a Pod; what owns it may make another. :raise NotFound: there is none."""
        await self._there().delete_pod(self._one().id, name)

    async def log(self, name: str, lines: int) -> str:
        """Its last lines. :raise NotFound: there is none."""
        return await self._there().log(self._one().id, name, min(lines, _LINES))

    def _one(self) -> Project:
        if found := self._asked():
            return found
        raise InvalidArgument("in which project is the Pod?", hint="name it by --project")
