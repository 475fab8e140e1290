# SPDX-License-Identifier: Apache-2.0
"""Which backends a pod has: the one place that says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from ..model.network import CNI, USER_MODES, Network
from ..model.rates import UNBOUNDED, RateBounds
from ..model.status import Pod
from . import links, passt, tap
from .backend import Backend, NicKind, Records
from .backends.bridge import Bridge
from .backends.cni import Cni
from .backends.explicit import Explicit
from .backends.passt import Passt
from .backends.slirp import Slirp
from .cni import CONFIG
from .egress.gate import EgressSettings
from .fence import Fence
from .groups import GroupsOf


class Choice(Protocol):
    """The backends of one daemon."""

    def of(self, pod: Pod) -> tuple[Backend, ...]:
        """The pod's, in the order of its NICs; none for a pod without a network."""

    def named(self, network: str) -> Backend | None:
        """That of a pod in this network alone; None for `none`."""

    def pin(self, pod: Pod) -> None:
        """What `of` says now of the pod it says until `forget`, whatever changes on this host."""

    def user_network(self, pod: Pod) -> str:
        """What its user-mode network is, for the record of its machine; "" for a pod that has none.

        `of` goes by that record, whichever daemon wrote it.
        """

    def forget(self, pod_id: str) -> None:
        """`of` goes by what there is now again, after `pin`. Idempotent."""

    @property
    def all(self) -> tuple[Backend, ...]:
        """Every backend, each of which is asked to release a pod's things."""

    async def start(self) -> None:
        """At the daemon's start: keep what the running pods have; remove what belongs to none."""

    async def sweep(self) -> list[str]:
        """Remove what daemons that are gone have left on this host; gives its names.

        :raise Unavailable: it is not known what there is.
        """

    def wall(self) -> AbstractAsyncContextManager[bool]:
        """What runs as `users.pick_stranger` is kept from this host's loopback and its link while the block runs; False
        where that cannot be.
        """

    async def remove(self, network: Network) -> None:
        """What this host has of a network of its own that no pod is in. Idempotent."""

    async def stop(self) -> None:
        """At its end: leave what running pods need; with none, leave nothing."""


def finds_passt() -> bool:
    """Whether passt would run here: without an interface that leads out it does not start."""
    return passt.find_passt() is not None and links.way_out() != ""


class Backends:
    """Those of this host."""

    def __init__(
        self, records: Records, run: Path, user_network: str = "auto", *,
        finds_passt: Callable[[], bool] = finds_passt, cni_networks: Path = CONFIG,
        runs_as: passt.RunsAsOf = lambda _, __: passt.RunsAs(), egress: EgressSettings | None = None,
        groups: GroupsOf = lambda _: (), rates: RateBounds = UNBOUNDED,
    ) -> None:  # fmt: skip
        """`run` is the daemon's own directory, of which no other has things; `user_network` is auto, passt or slirp."""
        self._records = records
        self._user_network = user_network
        self._finds_passt = finds_passt
        self._fence = Fence(run)
        self._slirp, self._passt = Slirp(self._fence), Passt(self._fence, runs_as)
        self._bridge = Bridge(records, egress or EgressSettings(), groups, rates)
        self._cni = Cni(records, cni_networks)
        self._explicit = Explicit(self._user_of)
        self._pinned: dict[str, Slirp] = {}  # the user-mode network of pods that start or run

    def of(self, pod: Pod) -> tuple[Backend, ...]:
        found: list[Backend] = []
        if pod.attachments or _has_spares(pod):
            found.append(self._bridge)
        if pod.spec.network.startswith(CNI):
            found.append(self._cni)
        if pod.spec.interfaces:
            found.append(self._explicit)
        if not found and pod.spec.network in USER_MODES:
            found.append(self._user_of(pod))
        return tuple(found)

    def named(self, network: str) -> Backend | None:
        if network in USER_MODES:
            return self._user()
        if network in ("", "none"):
            return None
        return self._cni if network.startswith(CNI) else self._bridge

    def pin(self, pod: Pod) -> None:
        self._pinned[pod.id] = self._user()

    def forget(self, pod_id: str) -> None:
        self._pinned.pop(pod_id, None)

    def user_network(self, pod: Pod) -> str:
        kinds = {link.kind for backend in self.of(pod) for link in backend.links(pod)}
        return self._user_of(pod).program if kinds & {NicKind.USER, NicKind.STREAM} else ""

    def _user_of(self, pod: Pod) -> Slirp:
        recorded = {b.program: b for b in (self._slirp, self._passt)}.get(pod.vm.user_network if pod.vm else "")
        return recorded or self._pinned.get(pod.id) or self._user()

    def _user(self) -> Slirp:
        wanted = self._user_network == "passt" or (self._user_network == "auto" and self._finds_passt())
        return self._passt if wanted else self._slirp

    @property
    def all(self) -> tuple[Backend, ...]:
        return (self._bridge, self._cni, self._explicit, self._slirp, self._passt)

    async def start(self) -> None:
        await self._bridge.start()
        running = [p for p in self._records.pods() if p.vm]
        await self._fence.open({p.id for p in running if self._is_walled(p)})

    async def sweep(self) -> list[str]:
        return await self._fence.sweep()

    def wall(self) -> AbstractAsyncContextManager[bool]:
        return self._fence.around("a stranger's registry")

    async def remove(self, network: Network) -> None:
        await self._bridge.remove(network)

    async def stop(self) -> None:
        await self._fence.close()
        await self._bridge.stop()

    def _is_walled(self, pod: Pod) -> bool:
        user = [b for b in self.of(pod) if b is self._explicit or b.kind is not NicKind.TAP]
        return any(link.walled for b in user for link in b.links(pod))


def _has_spares(pod: Pod) -> bool:
    """Whether it runs, and has NICs for networks though it may have left all."""
    return pod.vm is not None and any(tap.number_of(pod.id, name) is not None for name in pod.vm.nics)
