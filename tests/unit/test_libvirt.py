# SPDX-License-Identifier: Apache-2.0
"""libvirt's driver without a libvirtd: what it writes, what it refuses, how it asks."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as XML

import pytest

from hypercontainer.errors import InvalidArgument, Unavailable
from hypercontainer.hypervisor.driver import CachedDisk, Disk, FormattedDisk, MachineConfig, TapNetwork, UserNetwork
from hypercontainer.hypervisor.facets import DiskHotplug
from hypercontainer.hypervisor.libvirt import binding, document, domain
from hypercontainer.hypervisor.libvirt.boot_place import BootPlace
from hypercontainer.hypervisor.libvirt.connection import Connection, fault
from hypercontainer.hypervisor.libvirt.document import Known, Owner, Shape
from hypercontainer.hypervisor.libvirt.driver import LibvirtDriver, OpenDriver, make
from hypercontainer.hypervisor.libvirt.machine import LibvirtMachine
from hypercontainer.hypervisor.qemu.machine_types import MICROVM, PC, Q35, MachineType
from hypercontainer.jail.jail import Started
from hypercontainer.model.specs import PortMapping

MAC = "52:54:00:12:34:56"
UUID = "6c5d1d2e-6a4e-4f0b-9c6e-0d8d3b1a2f3c"
PORT = PortMapping(container_port=80, host_port=8080, host_ip="127.0.0.1")
DEADLINE = 20.0  # seconds
needs_library = pytest.mark.skipif(not binding.version(), reason="it takes the package python3-libvirt")


def config(tmp_path: Path, **how: Any) -> MachineConfig:
    return MachineConfig(
        **{"name": "web,1", "directory": tmp_path / "a", "vcpus": 2, "memory": 128 << 20, "kernel": tmp_path / "k",
           "initramfs": tmp_path / "i", **how}
    )  # fmt: skip


def full(tmp_path: Path, **how: Any) -> MachineConfig:
    """With all that one may have."""
    disks = tuple(
        Disk(serial, tmp_path / serial, read_only=serial == "image", format=format_, cache=cache)
        for serial, format_, cache in (("image", "raw", ""), ("scratch", "qcow2", "off"), ("more", "vdi", "unsafe"))
    )
    networks = (TapNetwork(MAC, 0, "ht0"), UserNetwork(MAC, (PORT,)))
    return config(tmp_path, **{"disks": disks, "networks": networks, **how})


def shape(machine_type: MachineType = MICROVM, owner: Owner | None = None, accelerator: str = "tcg") -> Shape:
    return Shape(Known("hyper-a", UUID), accelerator, machine_type, Path("/k"), Path("/i"), owner)


def described(of: MachineConfig, how: Shape) -> XML.Element:
    return XML.fromstring(document.domain(of, how, {"HYPER_MACHINE": "/d"}))


def test_a_domain(tmp_path: Path) -> None:
    root = described(full(tmp_path), shape(owner=Owner(7, 8)))
    assert (root.get("type"), root.findtext("uuid"), root.findtext("memory")) == ("qemu", UUID, str(128 << 20))
    assert root.findtext("os/type") == "hvm" and root.find("os/type[@machine='microvm']") is not None
    about = root.find(f"metadata/{{{document.METADATA}}}machine")
    assert about is not None and about.attrib == {"name": "web,1", "directory": str(tmp_path / "a")}
    assert root.findtext("seclabel/label") == "+7:+8"
    assert {root.findtext(e) for e in ("on_poweroff", "on_reboot", "on_crash")} == {"destroy"}
    disks = root.findall("devices/disk")
    assert [d.findtext("serial") for d in disks] == ["image", "scratch", "more"]
    assert [d.find("readonly") is not None for d in disks] == [True, False, False]
    assert [(e.get("type"), e.get("cache")) for d in disks for e in d.findall("driver")] == [
        ("raw", None), ("qcow2", "none"), ("vdi", "unsafe"),
    ]  # fmt: skip
    assert [e.get("fdgroup") for d in disks for e in d.findall("source")] == ["image", "scratch", "more"]
    assert [e.get("dev") for e in root.iterfind("devices/interface/target")] == ["ht0"]
    assert [e.get("freePageReporting") for e in root.iterfind("devices/memballoon")] == ["on"]
    words = [e.get("value") for e in root.iter() if e.tag.endswith("}arg")]
    assert any("hostfwd=tcp:127.0.0.1:8080-:80" in str(w) for w in words)


def test_a_users_domain_opens_its_files(tmp_path: Path) -> None:
    root = described(full(tmp_path), shape())
    assert root.find("seclabel") is None
    assert not any(e.get("fdgroup") for e in root.iter("source"))


@pytest.mark.parametrize("kind", [Q35, PC])
def test_each_device_of_a_pci_bus_has_a_place_of_its_own(tmp_path: Path, kind: MachineType) -> None:
    root = described(full(tmp_path), shape(kind))
    places = [e.get("slot") for e in root.iterfind("devices//address[@type='pci']")]
    assert len(places) == len(set(places)) == 6


def test_disks_are_found_again(tmp_path: Path) -> None:
    text = document.domain(full(tmp_path, expandable=True), shape(), {})
    assert document.expandable(text) and not document.expandable(document.domain(full(tmp_path), shape(), {}))
    found = document.serials(text)
    assert [(s, target) for s, (_, target) in found.items()] == [("image", 0), ("scratch", 1), ("more", 2)]
    assert XML.fromstring(found["more"][0]).findtext("serial") == "more"


def test_names_of_many_disks(tmp_path: Path) -> None:
    many = tuple(Disk(f"d{n}", tmp_path / "d", read_only=True) for n in range(30))
    root = described(config(tmp_path, disks=many, expandable=True), shape())
    names = [e.get("dev") for e in root.iterfind("devices/disk/target")]
    assert (names[0], names[25], names[26], names[29]) == ("sda", "sdz", "sdaa", "sdad")


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
@pytest.mark.parametrize("kind", [MICROVM, Q35, PC])
@pytest.mark.parametrize("expandable", [False, True])
@pytest.mark.parametrize("owner", [None, Owner(7, 8)])
def test_libvirts_schema_takes_it(
    tmp_path: Path, accelerator: str, kind: MachineType, expandable: bool, owner: Owner | None
) -> None:
    if not shutil.which("virt-xml-validate") or not shutil.which("xmllint"):
        pytest.skip("it takes the packages libvirt-clients and libxml2-utils")
    path = tmp_path / "domain.xml"
    path.write_text(document.domain(full(tmp_path, expandable=expandable), shape(kind, owner, accelerator), {"A": "b"}))
    found = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True, timeout=DEADLINE)
    assert found.returncode == 0, found.stderr


def test_a_loop_that_fails_each_time_rests_between() -> None:
    class Ended(Exception):
        """In the place of the process's end."""

    class Module:
        libvirtError = OSError

        def virEventRunDefaultImpl(self) -> None:
            rests.append("failed")
            if len(rests) > 4:
                raise Ended
            raise OSError("no descriptors")

    rests: list[object] = []
    with pytest.raises(Ended):
        binding._run(Module(), rests.append)
    assert rests == ["failed", binding._AGAIN, "failed", binding._AGAIN, "failed"]


# -- what it refuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("esx://host/", "neither QEMU nor Xen of this host"),
        ("qemu+ssh://host/system", "neither QEMU nor Xen of this host"),
        ("qemu+unix:///system?socket=/nowhere/libvirt-sock", "cannot be reached"),
    ],
)
@needs_library
async def test_where_it_starts_nothing(tmp_path: Path, uri: str, why: str) -> None:
    driver = LibvirtDriver(uri=uri, accelerator="tcg", cache=tmp_path, run=tmp_path)
    found = await driver.probe()
    assert why in found.trouble and "libvirt_uri" in found.hint
    assert await driver.try_again() == found
    with pytest.raises(Unavailable, match=why):
        await driver.launch(config(tmp_path))
    assert not (tmp_path / "a").exists()
    await driver.close()


async def test_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "library", lambda: None)
    driver = make(uri="", boot_timeout=1, accelerator="auto", cache=tmp_path, run=tmp_path)
    found = await driver.probe()
    assert (driver.version, found.trouble) == ("", "libvirt's Python module is not installed")
    assert "python3-libvirt" in found.hint
    assert await driver.try_again() == found
    with pytest.raises(Unavailable, match="not installed"):
        await driver.launch(config(tmp_path))
    await driver.close()


async def test_a_users_takes_the_users_own(tmp_path: Path) -> None:
    driver = OpenDriver(uri="qemu:///system", accelerator="tcg", cache=tmp_path, run=tmp_path)
    if driver.version:
        assert (await driver.probe()).trouble == "qemu:///system takes a hyperd of root's"
    assert {FormattedDisk, CachedDisk} <= driver.takes and TapNetwork not in driver.takes
    assert DiskHotplug in driver.facets and DiskHotplug not in LibvirtDriver.facets


@needs_library
async def test_a_users_daemon_is_not_started_for_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name, path: "/usr/sbin/libvirtd" if name == "libvirtd" else None)
    driver = OpenDriver(uri="", accelerator="auto", cache=tmp_path, run=tmp_path)
    driver._uri = "qemu:///session"
    found = await driver.try_again()
    assert (found.reason, found.trouble) == ("the libvirtd of qemu:///session is started with the first machine", "")
    assert not list(tmp_path.iterdir())
    await driver.close()


def test_an_image_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"no image" + bytes(1000))
    start = domain.Start("", Known("a", UUID), [Disk("d", tmp_path / "d", read_only=True, format="qcow2")])
    with pytest.raises(InvalidArgument, match="not a qcow2 image"):
        start._create(None)
    start.disks = [Disk("d", tmp_path / "missing", read_only=True)]
    with pytest.raises(Unavailable, match="does not exist"):
        start._create(None)


# -- a connection, by the driver that libvirt has for tests --------------------------------


DOMAIN = """<domain type='test'><name>one</name><uuid>{}</uuid><memory>8192</memory>
<os><type>hvm</type></os></domain>"""


@needs_library
async def test_the_end_of_a_domain_is_told_once() -> None:
    connection = Connection("test:///default")
    await connection.ask("make one", lambda c: c.createXML(DOMAIN.format(UUID), 0))
    assert await connection.ask("look", lambda c: domain.runs(c, UUID))
    told, heard = [], asyncio.Event()
    connection.watch(UUID, lambda: (told.append(1), heard.set()))
    await connection.ask("end it", lambda c: domain.end(c, UUID))
    await asyncio.wait_for(heard.wait(), DEADLINE)
    await connection.ask("end it", lambda c: domain.end(c, UUID))
    assert told == [1]
    assert not await connection.ask("look", lambda c: domain.runs(c, UUID))
    await connection.close()
    await connection.close()


@needs_library
async def test_a_domain_as_vmware_would_have_it() -> None:
    """No driver writes such a document: docs/hypervisors.md says why. libvirt takes it, as far as that goes."""
    path = Path(__file__).parent / "esx-domain.xml"
    if shutil.which("virt-xml-validate") and shutil.which("xmllint"):
        found = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True, timeout=DEADLINE)
        assert found.returncode == 0, found.stderr
    connection, heard = Connection("test:///default"), asyncio.Event()
    text = path.read_text().replace("type='vmware'", "type='test'", 1)  # all that this one has
    await connection.ask("define one", lambda c: c.defineXML(text).create())
    connection.watch(UUID, heard.set)
    await connection.ask("let it stand", lambda c: domain.suspend(c, UUID))
    await connection.ask("let it go on", lambda c: domain.resume(c, UUID))
    assert await connection.ask("end it", lambda c: domain.end(c, UUID))
    await asyncio.wait_for(heard.wait(), DEADLINE)
    assert not await connection.ask("end it", lambda c: domain.end(c, UUID))
    await connection.close()


@needs_library
async def test_what_ended_while_it_was_lost_is_told() -> None:
    connection = Connection("test:///default")
    heard = asyncio.Event()
    connection.watch(UUID, heard.set)  # nobody has it
    await asyncio.wait_for(heard.wait(), DEADLINE)
    await connection.close()


@needs_library
async def test_what_does_not_answer_is_given_up() -> None:
    connection, answer = Connection("test:///default"), threading.Event()
    try:
        with pytest.raises(Unavailable, match=r"libvirt \(test:///default\) took more than 0.2 s to wait"):
            await connection.ask("wait", lambda _: answer.wait(), 0.2)
        assert await connection.ask("say its version", lambda c: c.getLibVersion()) > 0
    finally:
        answer.set()
    await connection.close()


@needs_library
async def test_a_connection_that_is_lost_stays_while_a_call_uses_it() -> None:
    """The library frees it at once when it is closed."""
    connection, begun, lost = Connection("test:///default"), threading.Event(), threading.Event()

    def slowly(c: Any) -> int:
        begun.set()
        assert lost.wait(DEADLINE)
        return int(c.getLibVersion())

    asked = asyncio.create_task(connection.ask("answer slowly", slowly, DEADLINE))
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    line = connection._opened
    assert line is not None
    connection._lost(line)
    await asyncio.to_thread(line.end)
    lost.set()
    assert await asked > 0
    with pytest.raises(Unavailable, match="was lost"):
        await asyncio.to_thread(line.call, slowly)
    await connection.close()


@needs_library
async def test_what_could_not_be_ended_is_ended_later(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection("test:///default")
    await connection.ask("make one", lambda c: c.createXML(DOMAIN.format(UUID), 0))
    end, failed, heard = domain.end, threading.Event(), asyncio.Event()

    def fails_once(c: Any, uuid: str) -> bool:
        if not failed.is_set():
            failed.set()
            raise Unavailable("not now")
        return end(c, uuid)

    monkeypatch.setattr(domain, "end", fails_once)
    connection.watch(UUID, heard.set)
    await connection.end(UUID)
    assert failed.is_set() and not heard.is_set()
    await asyncio.wait_for(heard.wait(), DEADLINE)
    await connection.close()


@needs_library
async def test_one_that_cannot_be_ended_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, other = Connection("test:///default"), UUID.replace("6c5d", "7c5d")
    await connection.ask("make one", lambda c: c.createXML(DOMAIN.format(UUID), 0))
    end, refused, heard = domain.end, set[str](), asyncio.Event()

    def fails(c: Any, uuid: str) -> bool:
        if uuid == other or uuid not in refused:
            refused.add(uuid)
            raise Unavailable("not now")
        return end(c, uuid)

    monkeypatch.setattr(domain, "end", fails)
    connection.watch(UUID, heard.set)
    await connection.end(other)
    await connection.end(UUID)
    await asyncio.wait_for(heard.wait(), DEADLINE)
    assert refused == {UUID, other}
    await connection.close()


@needs_library
@pytest.mark.parametrize("when", ["_connected", "_catch_up"])
async def test_a_connection_that_is_lost_while_it_is_opened(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no connection, and the next question opens another."""
    connection = Connection("test:///default")
    step = getattr(connection, when)

    async def and_lost(*args: Any) -> Any:
        done = await step(*args)
        connection._lost(done or args[0])
        return done

    monkeypatch.setattr(connection, when, and_lost)
    with pytest.raises(Unavailable, match="was lost"):
        await connection.ask("say its version", lambda c: c.getLibVersion())
    assert connection._opened is None
    monkeypatch.setattr(connection, when, step)
    assert await connection.ask("say its version", lambda c: c.getLibVersion()) > 0
    await connection.close()


@needs_library
async def test_what_is_not_told_at_once_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that nobody heard of, where the first attempt to look for it fails."""
    connection, heard, tried = Connection("test:///default"), asyncio.Event(), asyncio.Event()
    catch_up = connection._catch_up

    async def fails_once(line: Any) -> None:
        if not tried.is_set():
            tried.set()
            raise Unavailable("not now")
        await catch_up(line)

    monkeypatch.setattr(connection, "_catch_up", fails_once)
    connection.watch(UUID, heard.set)
    await asyncio.wait_for(heard.wait(), DEADLINE)
    assert tried.is_set()
    await connection.close()


async def test_a_machine_that_had_no_domain_yet_is_ended_without_libvirt(tmp_path: Path) -> None:
    connection = Connection("nothing:///here")
    await LibvirtMachine(connection, tmp_path, Known("", ""), Started((1 << 22) - 1, 1), "").kill()
    assert connection._owed == {} and connection._returning is None
    await connection.close()


@needs_library
async def test_its_own_words() -> None:
    connection = Connection("test:///default")
    with pytest.raises(Unavailable, match="cannot start one: .*XML"):
        await connection.ask("start one", lambda c: c.createXML("<nothing/>", 0))
    await connection.close()


@needs_library
async def test_what_a_killed_daemon_was_about_to_start_goes(tmp_path: Path) -> None:
    connection = Connection("test:///default")
    told = "<metadata><h:machine xmlns:h='{}' name='a' directory='{}'/></metadata><memory>"
    for number, directory in enumerate((tmp_path / "pods" / "a", Path("/elsewhere/pods/a"))):
        text = DOMAIN.replace("<name>one", f"<name>d{number}").replace("<uuid>{}</uuid>", "")
        text = text.replace("<memory>", told.format(document.METADATA, directory))
        await connection.ask("define one", lambda c, text=text: c.defineXML(text))
    await connection.ask("look", lambda c: domain.sweep(c, tmp_path))
    left = await connection.ask("list", lambda c: {d.name() for d in c.listAllDomains()})
    assert "d1" in left and "d0" not in left
    await connection.close()


def test_its_words_are_one_line() -> None:
    assert fault(Exception("internal error: it ended: a\n  b\n\n")) == "it ended: a; b"


# -- what it boots ------------------------------------------------------------------------


def test_boot_files_for_all(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"one")
    (tmp_path / "vmlinux").chmod(0o600)
    place = BootPlace(tmp_path / "run", tmp_path)
    copy = place.copy(tmp_path / "vmlinux")
    assert copy.read_bytes() == b"one" and copy.stat().st_mode & 0o777 == 0o444
    assert copy.parent.stat().st_mode & 0o777 == 0o711
    before = copy.stat().st_ino
    assert place.copy(tmp_path / "vmlinux") == copy and copy.stat().st_ino == before
    replaced = tmp_path / "new"
    replaced.write_bytes(b"another")
    os.replace(replaced, tmp_path / "vmlinux")
    assert place.copy(tmp_path / "vmlinux").read_bytes() == b"another"
    assert BootPlace(tmp_path / "other", tmp_path).copy(tmp_path / "vmlinux").parent != copy.parent
    place.remove()
    place.remove()
    assert not copy.parent.exists()


def test_machines_that_start_at_once_share_a_boot_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread copies the same file, from its begin to its end, while one is about to give its copy its name."""
    (tmp_path / "vmlinux").write_bytes(b"one")
    place, chmod, others = BootPlace(tmp_path / "run", tmp_path), Path.chmod, list[Path]()

    def late(path: Path, mode: int) -> None:
        if mode == 0o444 and not others:
            others.append(path)
            others[0] = place.copy(tmp_path / "vmlinux")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", late)
    copy = place.copy(tmp_path / "vmlinux")
    assert others == [copy] and copy.read_bytes() == b"one" and list(copy.parent.iterdir()) == [copy]
