# SPDX-License-Identifier: Apache-2.0
"""A PCI device of the host in a container's machine: `python -m tests.lab --iommu tests/lab/test_passthrough.py`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import Conflict, HyperError, Unavailable
from hypercontainer.hyperd.config import Config
from hypercontainer.jail import report
from hypercontainer.sys.pci import DRIVER, PciBus
from tests.vm.conftest import DEADLINE, Lab

ADDRESS, MAC = "0000:00:11.0", "52:54:00:00:00:11"  # tests/lab/__main__.py
DEVICE = Path("/sys/bus/pci/devices") / ADDRESS
# Interfaces of the guest are asked by their hardware's address, since their names are the kernel's.
FIND = f"i=$(cd /sys/class/net; grep -l {MAC} */address); i=${{i%/address}}"
JOIN = f"{FIND}; ip addr add 10.9.0.2/24 dev $i; ip link set $i up; ping -c 3 -w 20 10.9.0.1"


def bind(driver: str) -> None:
    """As docs/hypervisors.md says."""
    (DEVICE / "driver_override").write_text(f"{driver}\n")
    if (DEVICE / "driver").exists():
        (DEVICE / "driver/unbind").write_text(ADDRESS)
    Path("/sys/bus/pci/drivers_probe").write_text(ADDRESS)


@pytest.fixture
def config(root: Path, run_dir: Path) -> Iterator[Config]:
    if not (DEVICE / "iommu_group").exists():
        pytest.skip("it takes the lab with an IOMMU: python -m tests.lab --iommu tests/lab/test_passthrough.py")
    subprocess.run(["modprobe", DRIVER], check=True)
    bind(DRIVER)
    peer = next(p.parent.name for p in Path("/sys/class/net").glob("*/address") if p.read_text()[-3:-1] == "10")
    subprocess.run(["ip", "address", "replace", "10.9.0.1/24", "dev", peer], check=True)
    subprocess.run(["ip", "link", "set", peer, "up"], check=True)
    yield Config(root=str(root), run=str(run_dir), accelerator="kvm", network="none", boot_timeout=DEADLINE)


async def test_a_network_interface_of_the_host(lab: Lab) -> None:
    """It works by DMA behind the IOMMU; the jail shows what it has; a second pod is refused; it is free afterwards."""
    id_ = await lab.create("sleep", "1000", devices=[ADDRESS], privileged=True)
    await lab.engine.containers.start(id_)
    done = await lab.exec(id_, "sh", "-c", JOIN)
    assert ", 0% packet loss" in done.out, done.out + done.err
    pod = lab.engine.registry.pod(lab.engine.registry.container(id_).pod)
    assert pod.vm and list(pod.vm.devices) == [ADDRESS]
    assert pod.vm.machine_type == "q35: it has a bus for PCI devices, and microvm has none"
    runtime = lab.engine.containers.runtime(lab.engine.registry.container(id_))
    seen = report.Seen(Path(f"/proc/{pod.vm.pid}"), grants=runtime.machine.grants)  # type: ignore[attr-defined]
    assert [c for c in report.examine(seen, root=True) if c.status != "ok"] == []
    second = await lab.create("true", devices=[f"/dev/vfio/{pod.vm.devices[ADDRESS]}"])
    with pytest.raises(Conflict, match=f"the PCI device {ADDRESS} is in use by the running pod {pod.name}"):
        await lab.engine.containers.start(second)
    await lab.engine.containers.stop(id_, timeout=0)
    again = await lab.run("sh", "-c", JOIN, devices=[ADDRESS], privileged=True)
    assert ", 0% packet loss" in again.out, again.out + again.err


async def test_one_that_the_host_uses(lab: Lab) -> None:
    bind("virtio-pci")
    with pytest.raises(Unavailable, match=f"the PCI device {ADDRESS} is the driver virtio-pci's, and not vfio-pci's"):
        await lab.run("true", devices=[ADDRESS])


def test_what_there_is_on_this_host(config: Config) -> None:
    (found,) = PciBus().find(ADDRESS)
    assert PciBus().find(f"/dev/vfio/{found.group}") == [found]
    with pytest.raises(HyperError, match="has no PCI device 0000:77:00.0"):
        PciBus().find("0000:77:00.0")
