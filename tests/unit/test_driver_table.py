# SPDX-License-Identifier: Apache-2.0
"""What each driver can do, what is said of what it lacks, and which of them `auto` takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hypercontainer.engine.paths import Paths
from hypercontainer.errors import InvalidArgument, Unsupported
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.drivers import build_drivers
from hypercontainer.hypervisor import abilities
from hypercontainer.hypervisor.driver import Disk, Driver, FormattedDisk, Probe, Snapshot, TapNetwork, UserNetwork
from hypercontainer.hypervisor.drivers import Drivers
from hypercontainer.hypervisor.facets import DiskHotplug, Pause
from hypercontainer.hypervisor.fake import FakeDriver, FakeHost
from hypercontainer.hypervisor.firecracker.driver import CloningDriver, FirecrackerDriver
from hypercontainer.hypervisor.libvirt.driver import LibvirtDriver, OpenDriver
from hypercontainer.hypervisor.libvirt.libxl_driver import LibxlDriver
from hypercontainer.hypervisor.qemu.driver import QemuDriver
from hypercontainer.hypervisor.xen.driver import XenDriver

PAGE = Path(__file__).parents[2] / "docs" / "hypervisors.md"


def shipped(tmp_path: Path) -> Drivers:
    return build_drivers(Config(), Paths(tmp_path, tmp_path), None)


def fakes(*names: str, lacks: frozenset[type] = frozenset(), trouble: str = "") -> list[Driver]:
    """`lacks` and `trouble` are the first one's."""
    made: list[Driver] = []
    for index, name in enumerate(names):
        driver = FakeDriver(FakeHost(lambda _: FakeGuest()), name)
        if index == 0:
            driver.takes -= lacks
            if trouble:

                async def probe() -> Probe:
                    return Probe("", "", trouble)

                driver.probe = probe  # type: ignore[method-assign]
        made.append(driver)
    return made


@pytest.mark.parametrize("name", ["firecracker", "libvirt", "xen"])
@pytest.mark.parametrize("what", abilities.WORDS)
def test_what_a_driver_lacks_is_refused_with_one_that_has_it(tmp_path: Path, what: type, name: str) -> None:
    drivers = shipped(tmp_path)
    qemu, other = drivers.get("qemu"), drivers.get(name)
    assert abilities.has(qemu, what)
    drivers.check(qemu, [what])
    if abilities.has(other, what):
        drivers.check(other, [what])
        return
    with pytest.raises(Unsupported) as refused:
        drivers.check(other, [Disk, what])
    assert re.fullmatch(
        rf"the driver '{name}' does not support [a-z].*: the driver 'qemu' does: use --driver qemu",
        str(refused.value),
    )


def test_what_they_can() -> None:
    able = ["networks", "directories", "disk-hotplug", "pause"]
    saving = [*able, "templates", "pool", "snapshots", "suspend"]
    assert abilities.words(FirecrackerDriver) == able  # type: ignore[arg-type]
    assert abilities.words(CloningDriver) == saving  # type: ignore[arg-type]
    for xen in (XenDriver, LibxlDriver):
        words = abilities.words(xen)  # type: ignore[arg-type]
        assert words == ["networks", "disk-hotplug", "network-hotplug", "pause"]
    root = ["networks", "user-network", "image-formats", "cache-modes", "pause", "full-disk-wait"]
    assert abilities.words(LibvirtDriver) == root  # type: ignore[arg-type]
    user = ["user-network", "image-formats", "cache-modes", "disk-hotplug", "pause", "full-disk-wait"]
    assert abilities.words(OpenDriver) == user  # type: ignore[arg-type]
    assert abilities.words(QemuDriver) == list(abilities.WORDS.values())  # type: ignore[arg-type]


def test_the_page_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `([a-z-]+)`", PAGE.read_text(), re.M)
    assert sorted(rows) == sorted(abilities.WORDS.values())


def test_the_page_names_tests_that_there_are() -> None:
    rows = [re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line) for line in PAGE.read_text().splitlines()
            if re.match(r"\| (`[a-z-]+` )?\| ", line)]  # fmt: skip
    assert len([row for row in rows if row]) > len(abilities.WORDS)
    for path, test in (named for row in rows for named in row):
        text = (PAGE.parents[1] / path).read_text()
        assert not test or re.search(rf"^(async )?def {test}\(", text, re.M), f"{path} has no {test}"


def test_nobody_has_it() -> None:
    drivers = Drivers(fakes("one", "two"))
    with pytest.raises(Unsupported) as refused:
        drivers.check(drivers.default, [Snapshot])
    assert str(refused.value) == "the driver 'one' does not support machines from a template"


async def test_auto_takes_the_first_that_works_and_has_it_all() -> None:
    drivers = Drivers(fakes("one", "two"), "auto")
    driver, why = await drivers.choose("", [Disk, TapNetwork])
    assert (driver.name, why) == ("one", "auto: the first of one, two that works and has what it asks for")
    assert drivers.default.name == "one" and "auto" in drivers


async def test_auto_passes_by_what_lacks_something() -> None:
    drivers = Drivers(fakes("one", "two", lacks=frozenset({FormattedDisk})))
    driver, why = await drivers.choose("auto", [Disk, FormattedDisk])
    assert driver.name == "two" and why.endswith("; one does not support disk images of the formats qcow2 and vdi")
    assert (await drivers.choose("auto", [Disk]))[0].name == "one"


async def test_auto_passes_by_what_does_not_work() -> None:
    drivers = Drivers(fakes("one", "two", trouble="no KVM"))
    driver, why = await drivers.choose("auto", [Disk])
    assert driver.name == "two" and why.endswith("; one does not work: no KVM")


async def test_auto_finds_none() -> None:
    drivers = Drivers(fakes("one", trouble="no KVM"))
    with pytest.raises(Unsupported, match="no driver can run this: one does not work: no KVM"):
        await drivers.choose("auto", [Disk])
    with pytest.raises(Unsupported, match="no driver can run this: one does not support .* template"):
        await drivers.choose("auto", [Snapshot])


async def test_who_names_one_has_that_one_or_none() -> None:
    drivers = Drivers(fakes("one", "two", lacks=frozenset({UserNetwork}), trouble="no KVM"))
    assert (await drivers.choose("two", [UserNetwork]))[1] == "it was asked for"
    assert (await drivers.choose("", [Disk]))[1] == "it is the default"
    with pytest.raises(Unsupported, match="'one' does not support .*: the driver 'two' does: use --driver two"):
        await drivers.choose("one", [UserNetwork])
    with pytest.raises(InvalidArgument, match="there is no driver 'three'"):
        await drivers.choose("three", [])


def test_what_auto_prefers(tmp_path: Path) -> None:
    def order(**how: str) -> list[str]:
        return [d.name for d in build_drivers(Config(**how), Paths(tmp_path, tmp_path), None)]  # type: ignore[arg-type]

    assert order() == order(driver="auto") == order(prefer="density") == ["qemu", "firecracker", "xen", "libvirt"]
    assert order(driver="auto", prefer="density") == ["firecracker", "qemu", "xen", "libvirt"]


def test_a_bare_machine_has_no_facets() -> None:
    bare = FakeDriver(FakeHost(lambda _: FakeGuest()), bare=True)
    assert not abilities.has(bare, Pause) and abilities.has(fakes("one")[0], DiskHotplug)
