# SPDX-License-Identifier: Apache-2.0
"""A daemon's drivers, and where machines come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.engine.booted import BootedMachine
from hypercontainer.engine.paths import Paths
from hypercontainer.engine.sources import Order, Warm, first
from hypercontainer.errors import InvalidArgument, Unavailable
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.drivers import build_drivers
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.fake import FakeDriver, FakeHost
from hypercontainer.model.status import Pod

POD = Pod(id="p", name="web", created_at="", hostname="", vcpus=1, memory=1)


def test_by_name() -> None:
    host = FakeHost(lambda _: FakeGuest())
    one, two = FakeDriver(host, "one"), FakeDriver(host, "two")
    drivers = Drivers([one, two])
    assert drivers.default is drivers.get("") is drivers.get("one") is one
    assert Drivers([one, two], "two").default is two and list(drivers) == [one, two]
    with pytest.raises(InvalidArgument, match="there is no driver 'xen': this hyperd has one, two"):
        drivers.get("xen")
    with pytest.raises(InvalidArgument, match="there is no driver 'xen'"):
        Drivers([one], "xen")


def test_the_configuration_names_one(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    assert build_drivers(Config(), paths, None).default.name == "qemu"
    with pytest.raises(InvalidArgument, match="there is no driver 'vmware': this hyperd has qemu"):
        build_drivers(Config(driver="vmware"), paths, None)


class Source:
    """One that has a machine, or none."""

    def __init__(self, name: str, machine: BootedMachine | None, asked: list[str]) -> None:
        self.name, self._machine, self._asked = name, machine, asked

    async def obtain(self, order: Order) -> BootedMachine | None:
        self._asked.append(self.name)
        return self._machine


async def test_the_first_that_has_one() -> None:
    machine: Any = BootedMachine(*[SimpleNamespace()] * 4)  # type: ignore[arg-type]
    order, asked = Order(POD, [], SimpleNamespace()), list[str]()  # type: ignore[arg-type]
    sources = [Source("pool", None, asked), Source("clone", machine, asked), Source("cold", machine, asked)]
    assert await first(sources, order) is machine
    assert machine.source == "clone" and asked == ["pool", "clone"]
    with pytest.raises(Unavailable, match="no virtual machine for pod web"):
        await first(sources[:1], order)


async def test_one_that_waited_and_is_of_no_use_is_ended(tmp_path: Path) -> None:
    """The next source is asked then."""
    ended = []

    async def end() -> None:
        ended.append(True)

    def place(_: Any) -> Any:
        raise Unavailable("QEMU did not answer")

    clone = SimpleNamespace(end=end)
    factory = SimpleNamespace(take=lambda _: clone, place=place)
    network = SimpleNamespace(links=lambda _: [])
    setup: Any = SimpleNamespace(factory=factory, network=network, paths=None)
    order = Order(POD, [], SimpleNamespace())  # type: ignore[arg-type]
    assert await Warm(setup).obtain(order) is None
    assert ended == [True]
