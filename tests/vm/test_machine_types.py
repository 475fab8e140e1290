# SPDX-License-Identifier: Apache-2.0
"""Containers on QEMU's machine types with a PCI bus: what is asked for, and what is found by a trial."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypercontainer.hyperd.config import Config
from hypercontainer.hypervisor.qemu import machine_types
from hypercontainer.model.specs import Mount, Resources

from .conftest import Lab

# What tells the buses apart, processors, its network interface.
LOOK = "ls /sys/bus/pci/devices | wc -l; nproc; ip -4 addr show eth0 | grep -c 10.0.2.15"


@pytest.fixture(params=["q35", pytest.param("pc", marks=pytest.mark.slow)])
def machine_type(request: pytest.FixtureRequest, config: Config) -> str:
    """Use before `lab`."""
    config.machine_type = request.param
    config.factory = False
    name: str = request.param
    return name


def type_of(pid: int) -> str:
    """Of a QEMU that runs."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return line[line.index("-machine") + 1].partition(",")[0]


async def test_a_container_on_a_bus_of_pci(machine_type: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disks, its network, two processors; and in a jail of which every promise holds."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # the lab has one
    mounts = [Mount(type="volume", source="kept", target="/data")]
    looked = await lab.sh(f"{LOOK}; echo kept >/data/f", mounts=mounts, resources=Resources(cpus=2))
    devices, *found = looked.out.split()
    assert int(devices) > 4 and found == ["2", "1"]
    id_ = await lab.create("sleep", "1000", mounts=mounts, network="none")  # slirp would take the host's network
    await lab.engine.containers.start(id_)
    assert (await lab.exec(id_, "cat", "/data/f")).out == "kept\n"
    assert type_of(lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine.pid) == machine_type
    if os.geteuid() == 0:
        assert [c for c in await lab.engine.monitor.jail(id_) if c.status != "ok"] == []
    (status,) = [d for d in (await lab.engine.info()).drivers if d.name == "qemu"]
    assert status.reason.endswith(f"machine type {machine_type}: chosen in the configuration")


async def test_a_directory_of_the_host_on_a_bus_of_pci(machine_type: str, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("of this host\n")
    mounts = [Mount(type="bind", source=str(tmp_path), target="/x")]
    assert (await lab.run("cat", "/x/f", mounts=mounts, network="none")).out == "of this host\n"


@pytest.fixture
def no_microvm(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A QEMU as some distributions build it; use before `lab`."""
    config.factory = False
    there = machine_types.listed(config.qemu) - {"microvm"}
    monkeypatch.setattr(machine_types, "listed", lambda _: there)


@pytest.mark.skipif("HYPER_TEST_SLOWNESS" in os.environ, reason="a trial has half a minute, of which the lab takes all")
async def test_a_qemu_without_microvm(no_microvm: None, lab: Lab) -> None:
    id_ = await lab.create("sleep", "1000")
    await lab.engine.containers.start(id_)
    assert type_of(lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine.pid) == "q35"
    found = [c.found for c in await lab.engine.doctor() if c.name == "qemu"]
    why = "machine type q35: this QEMU has no machine type microvm; a probe guest booted with q35"
    assert len(found) == 1 and why in found[0]
