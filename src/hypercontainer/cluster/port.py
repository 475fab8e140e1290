# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..model.cluster import ClusterPod, LedgerPart
from ..model.quotas import Quota

PAGE = 1000  # entries that are asked for at a time


@dataclass(frozen=True)
class Wanted:
    """A project's namespace as it is to be."""

    project: str  # id
    name: str
    organisation: str  # name
    quota: Quota
    editors: tuple[str, ...] = ()  # users as the cluster knows them
    viewers: tuple[str, ...] = ()
    privileged: bool = True  # whether its policy has them
    runtime_class: str = ""  # that its policy asks for; "" is any
    closed: bool = False  # nothing is started in it


class Cluster(Protocol):
    """The API server.

    Each method raises `Unavailable` where it does not answer within its time, and `PermissionDenied` where it refuses.
    """

    async def namespaces(self) -> Mapping[str, str]:
        """Of projects, by their ids: the digest of what they were made from."""

    async def put(self, wanted: Wanted) -> None:
        """Make a project's namespace, or change it to that; idempotent."""

    async def remove(self, project: str) -> None:
        """Remove a project's namespace, and wait until it is gone; idempotent.

        :raise Unavailable: it is still there after a minute.
        """

    async def pods(self, project: str) -> list[ClusterPod]:
        """Those of a project's namespace, by their names."""

    async def delete_pod(self, project: str, name: str) -> None:
        """Let it end within its own grace. :raise NotFound: there is none."""

    async def log(self, project: str, name: str, lines: int) -> str:
        """The last lines of its first container. :raise NotFound: there is none."""


class Ledgers(Protocol):
    """The hyperds of the nodes."""

    async def addresses(self) -> Mapping[str, str]:
        """Of the nodes by their names. :raise Unavailable: the cluster does not tell."""

    async def read(self, address: str, after: int) -> LedgerPart:
        """Entries after that number, `PAGE` at most. :raise HyperError: that hyperd does not answer, or refuses."""


@dataclass(frozen=True)
class Ports:
    """Of one cluster."""

    cluster: Cluster | None  # None: only ledgers are collected
    ledgers: Ledgers
