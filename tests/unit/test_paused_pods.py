# SPDX-License-Identifier: Apache-2.0
"""A paused pod whose machine does not wake up is ended all the same, and keeps no other from its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypercontainer.engine.events import Events
from hypercontainer.engine.pods import Pods
from hypercontainer.errors import Unavailable
from hypercontainer.model.status import Pod, PodStatus


class Machines:
    """Of two paused pods; that of the first stands still."""

    def __init__(self) -> None:
        self.pods = {
            n: Pod(id=n, name=n, created_at="", hostname=n, vcpus=1, memory=1, status=PodStatus.PAUSED)
            for n in ("still", "well")
        }
        self.runtimes: dict[str, Any] = {n: SimpleNamespace(machine=self._machine(n)) for n in self.pods}
        self.ended: list[str] = []

    @staticmethod
    def _machine(name: str) -> Any:
        async def resume() -> None:
            if name == "still":
                raise Unavailable("QEMU did not answer 'cont'")

        return SimpleNamespace(pause=resume, resume=resume)

    def life(self, id_: str) -> Any:
        return SimpleNamespace(starting=None, runtime=self.runtimes[id_])

    def runtime(self, id_: str) -> Any:
        return self.runtimes[id_]

    def update(self, id_: str, **changes: Any) -> Pod:
        self.pods[id_] = Pod(id=id_, name=id_, created_at="", hostname=id_, vcpus=1, memory=1, **changes)
        return self.pods[id_]

    async def down(self, id_: str) -> None:
        self.ended.append(id_)


def pods_of(machines: Any) -> Pods:
    registry: Any = SimpleNamespace(
        pod=machines.pods.__getitem__, pods=lambda: list(machines.pods.values()), members=lambda _: []
    )
    unused: Any = SimpleNamespace()
    return Pods(
        paths=unused,
        registry=registry,
        images=unused,
        containers=unused,
        machines=machines,
        networks=unused,
        volumes=unused,
        secrets=unused,
        events=Events(),
    )


async def test_the_daemon_ends_though_one_does_not_wake_up() -> None:
    machines = Machines()
    await pods_of(machines).wake()
    assert machines.pods["well"].status is PodStatus.RUNNING


async def test_one_that_does_not_wake_up_is_stopped() -> None:
    machines = Machines()
    assert await pods_of(machines).stop("still")
    assert machines.ended == ["still"]
