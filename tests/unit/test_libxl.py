# SPDX-License-Identifier: Apache-2.0
"""Xen by libvirt as far as it goes without Xen: what it writes, finds and refuses, and how a domain is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as XML

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable
from hypercontainer.hypervisor.driver import Disk, MachineConfig, TapNetwork
from hypercontainer.hypervisor.facets import HeldElsewhere
from hypercontainer.hypervisor.libvirt import binding, domain, libxl_document, libxl_driver, libxl_machine
from hypercontainer.hypervisor.libvirt.connection import Connection
from hypercontainer.hypervisor.libvirt.document import CHANNEL, Known
from hypercontainer.hypervisor.libvirt.driver import LibvirtDriver, make
from hypercontainer.hypervisor.libvirt.libxl_driver import LibxlDriver
from hypercontainer.hypervisor.libvirt.libxl_machine import LibxlMachine
from hypercontainer.hypervisor.xen import tools
from hypercontainer.jail.jail import Started
from hypercontainer.sys import deadlines, process

UUID = "6c5d1d2e-6a4e-4f0b-9c6e-0d8d3b1a2f3c"
NOWHERE = "xen+unix:///system?socket=/nowhere/libvirt-sock"
DEADLINE = 20.0  # seconds
needs_library = pytest.mark.skipif(not binding.version(), reason="it takes the package python3-libvirt")


def config(path: Path, **how: Any) -> MachineConfig:
    return MachineConfig(
        **{"name": "a", "directory": path / "a", "vcpus": 2, "memory": 128 << 20, "kernel": path / "k",
           "initramfs": path / "i", **how}
    )  # fmt: skip


def described(tmp_path: Path) -> str:
    disks = tuple(Disk(name, tmp_path / name, read_only=name == "image") for name in ("image", "scratch"))
    wanted = config(tmp_path, disks=disks, networks=(TapNetwork("52:54:00:00:00:07", 3, "ht0"),))
    return libxl_document.domain(wanted, Known("hyper-a", UUID), ["/dev/loop3", "/dev/loop4"], "/bin/true")


def test_a_machine_as_a_domain(tmp_path: Path) -> None:
    root = XML.fromstring(described(tmp_path))
    assert (root.get("type"), root.findtext("os/type"), root.findtext("memory")) == ("xen", "xenpvh", str(128 << 20))
    assert "hyper.channel=hvc:1" in (root.findtext("os/cmdline") or "")
    disks = root.findall("devices/disk")
    assert [e.get("dev") for d in disks for e in d.findall("source")] == ["/dev/loop3", "/dev/loop4"]
    assert [e.get("dev") for d in disks for e in d.findall("target")] == ["xvda", "xvdb"]
    assert [d.find("readonly") is not None for d in disks] == [True, False]
    assert [e.get("path") for e in root.iterfind("devices/channel/source")] == [str(tmp_path / "a" / CHANNEL)]
    assert [e.get("value") for e in root.iter() if e.tag.endswith("}arg")] == ["-uuid", UUID]


def test_libvirts_schema_takes_it(tmp_path: Path) -> None:
    if not shutil.which("virt-xml-validate") or not shutil.which("xmllint"):
        pytest.skip("it takes the packages libvirt-clients and libxml2-utils")
    path = tmp_path / "domain.xml"
    path.write_text(described(tmp_path))
    found = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True, timeout=DEADLINE)
    assert found.returncode == 0, found.stderr


def test_the_uri_says_which_driver_it_is(tmp_path: Path) -> None:
    how: dict[str, Any] = {"boot_timeout": 1, "accelerator": "auto", "cache": tmp_path, "run": tmp_path}
    assert isinstance(make(uri="xen:///system", **how), LibxlDriver)
    assert isinstance(make(uri=NOWHERE, **how), LibxlDriver)
    assert isinstance(make(uri="", **how), LibvirtDriver)
    assert isinstance(make(uri="esx://host/", **how), LibvirtDriver)


@needs_library
@pytest.mark.parametrize(
    ("uri", "dom0", "why"),
    [
        ("xen:///system", False, "this host is not the dom0 of a Xen hypervisor"),
        ("xen+ssh://other/system", True, "xen+ssh://other/system is no Xen of this host"),
        (NOWHERE, True, "cannot be reached"),
    ],
)
async def test_where_it_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, dom0: bool, why: str
) -> None:
    monkeypatch.setattr(tools, "is_dom0", lambda: dom0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    driver = LibxlDriver(uri=uri, boot_timeout=1)
    found = await driver.try_again()
    assert why in found.trouble and found.hint
    with pytest.raises(Unavailable, match=re.escape(why)):
        await driver.launch(config(tmp_path))
    assert not (tmp_path / "a").exists()
    await driver.close()


async def test_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "library", lambda: None)
    found = await LibxlDriver(uri="xen:///system", boot_timeout=1).probe()
    assert found.trouble == "libvirt's Python module is not installed" and "driver-xen" in found.hint


async def test_what_a_domain_cannot_be(tmp_path: Path) -> None:
    driver = LibxlDriver(uri=NOWHERE, boot_timeout=1)
    with pytest.raises(InvalidArgument, match="driver 'libvirt' has at most 64 processors"):
        await driver.launch(config(tmp_path, vcpus=65))


async def test_a_start_that_libxl_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt does not pass on why."""

    async def refuse(*_: object) -> None:
        raise Unavailable("libxenlight failed to create new domain 'a'")

    driver = LibxlDriver(uri=NOWHERE, boot_timeout=1)
    monkeypatch.setattr(driver._connection, "ask", refuse)
    with pytest.raises(Unavailable, match="failed to create new domain 'a': .*libxl-driver.log says why"):
        await driver._started(domain.Start("", Known("a", UUID)))


def test_what_libvirt_says_of_xen() -> None:
    class Asked:
        kinds = ("xen", "hvm", "xenpvh")

        def getCapabilities(self) -> str:
            guests = "".join(f"<guest><os_type>{kind}</os_type></guest>" for kind in self.kinds)
            return f"<capabilities>{guests}</capabilities>"

        def getVersion(self) -> int:
            return 4017000

    asked = Asked()
    assert libxl_driver._examine(asked) == "4.17.0"
    asked.kinds = ("xen",)
    with pytest.raises(Unavailable, match="no PVH domains"):
        libxl_driver._examine(asked)


# -- a domain that runs --------------------------------------------------------------------


@contextlib.contextmanager
def qemu(directory: Path, name: str = "hyper-a") -> Iterator[subprocess.Popen[bytes]]:
    """A process with the command line of a domain's QEMU."""
    channel = f"socket,id=libxl-channel1,path={directory}/{CHANNEL},server=on,wait=off"
    words = ["-chardev", channel, "-name", name, "-uuid", UUID]
    program = [sys.executable, "-c", "print(flush=True); input()", *words]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout and made.stdout.readline()  # its command line is there when it runs, not when it is begun
        yield made
        made.kill()


def stand_in(path: Path, monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """An xl that ends one process, and says of whom."""
    (path / "xl").write_text(f'#!/bin/sh\necho "$@" >>{path}/asked\nkill -9 {pid}\n')
    (path / "xl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    for module in (tools, libxl_machine):
        monkeypatch.setattr(module, "_LOGS", path)


def test_a_domain_that_no_record_knows(tmp_path: Path) -> None:
    driver = LibxlDriver(uri=NOWHERE, boot_timeout=1)
    with qemu(tmp_path / "pod") as process_:
        (left,) = driver.strays(tmp_path, set())
        assert left.pid == process_.pid and left.handle["name"] == "hyper-a" and left.handle["uuid"] == UUID
        assert not isinstance(left, HeldElsewhere)
        assert driver.strays(tmp_path, {tmp_path / "pod"}) == []
        assert driver.strays(tmp_path / "other", set()) == []


async def test_a_domain_is_ended_without_libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with qemu(tmp_path / "pod") as process_:
        stand_in(tmp_path, monkeypatch, process_.pid)
        for log in ("qemu-dm-hyper-a.log", "hyper-a.log"):
            (tmp_path / log).touch()
        connection = Connection(NOWHERE)
        started = Started(process_.pid, process.start_time(process_.pid))
        machine = LibxlMachine(connection, tmp_path / "pod", Known("hyper-a", UUID), started, 7, {"d": "dev:xvda"})
        again = LibxlMachine.of(connection, machine.handle)
        assert again.handle == machine.handle and again.names == {"d": "dev:xvda"} and again.alive
        await asyncio.wait_for(machine.kill(), DEADLINE)
        await asyncio.wait_for(machine.wait(), DEADLINE)
        assert (tmp_path / "asked").read_text() == "destroy hyper-a\n" and not machine.alive
        assert not list(tmp_path.glob("*.log"))
        await connection.close()


async def test_a_kill_ends_within_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libvirt ends a domain, but not its QEMU, and xl does not answer."""
    clock = asyncio.get_running_loop().time
    waited, late, until = list[float](), list[float](), list[float]()

    async def end(_: str, timeout: float) -> bool:
        waited.append(timeout)
        late.append(clock() + timeout)
        return True

    async def ends(by: float) -> bool:
        until.append(by)
        return False

    async def destroy(_: str, timeout: float) -> str:
        waited.append(timeout)
        return "it did not end"

    with qemu(tmp_path / "pod") as process_:
        connection = Connection(NOWHERE)
        started = Started(process_.pid, process.start_time(process_.pid))
        machine = LibxlMachine(connection, tmp_path / "pod", Known("hyper-a", UUID), started, 7)
        monkeypatch.setattr(connection, "end", end)
        monkeypatch.setattr(machine, "_ends", ends)
        monkeypatch.setattr(tools, "destroy", destroy)
        await machine.kill()
        assert until[0] <= late[0] and sum(waited) <= deadlines.DEATH
        await asyncio.wait_for(machine.wait(), DEADLINE)
        await connection.close()


async def test_a_disk_that_does_not_come_to_be_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its place counts as free, and libvirt has another disk there."""

    class Unopened:
        paths = ("/dev/loop9",)

        async def opened(self, domid: int, place: int) -> None:
            raise Unavailable(f"blkback of {domid} opened no {place}")

    asked = []

    async def ask(what: str, work: Any, timeout: float) -> None:
        asked.append((what, work.keywords.get("target")))

    connection = Connection(NOWHERE)
    monkeypatch.setattr(connection, "ask", ask)
    monkeypatch.setattr(libxl_machine, "loops", lambda *_: Unopened())
    machine = LibxlMachine(connection, tmp_path, Known("a", UUID), Started(1, 2), 7, {"d": "dev:xvda"})
    with pytest.raises(Unavailable, match="blkback of 7 opened no 1"):
        await machine.add_disk(Disk("late", tmp_path / "late", read_only=True))
    assert asked == [("add a disk", None), ("take a disk out", "xvdb")] and machine.names == {"d": "dev:xvda"}
