# SPDX-License-Identifier: Apache-2.0
"""What every driver does: the core's eight methods, and each facet where it has it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.engine.builtins import run_builtin
from hypercontainer.errors import Conflict, DeadlineExceeded, GuestError, Unavailable, Unsupported
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.greet import wake
from hypercontainer.guest.session import GuestSession
from hypercontainer.hypervisor.driver import (
    KINDS,
    Disk,
    Driver,
    Machine,
    PciDevice,
    RbdDisk,
    Snapshot,
    SpareNetwork,
    StreamNetwork,
    TapNetwork,
    UserNetwork,
    VirtioFs,
)
from hypercontainer.hypervisor.facets import (
    Checkpoints,
    DiskErrors,
    DiskHotplug,
    DiskStall,
    Early,
    FileStream,
    NicAddition,
    NicHotplug,
    Pause,
    PortForwarding,
    Reconfigure,
    Save,
    Severs,
    Snapshots,
    Strays,
    Suspends,
    require,
)
from hypercontainer.model.pods import SHM_DEFAULT
from hypercontainer.protocol.constants import Builtin, GuestCode
from hypercontainer.protocol.messages import Interface

from .conftest import DEADLINE, MAC, MEMORY, Host, free_port, greet, user_network

_PATIENCE = 0.5  # seconds in which a guest that stands still does not answer
SAMPLES = {
    "disks": (
        Disk("d", Path("/nothing"), read_only=True),
        RbdDisk("r", "pool", "image", ("127.0.0.1:1",)),
    ),
    "networks": (UserNetwork(MAC), TapNetwork(MAC, 0), StreamNetwork(MAC, 0), SpareNetwork(MAC)),
    "share": (VirtioFs("share", 0),),
    "devices": (PciDevice("0000:77:00.0", Path("/nothing"), 7, ()),),
    "snapshot": (Snapshot(0, 0),),
}


# -- the core ------------------------------------------------------------------------


def methods(protocol: type) -> list[str]:
    return [n for n, m in vars(protocol).items() if callable(m) and not n.startswith("_")]


def test_the_core_is_small() -> None:
    assert len(methods(Driver) + methods(Machine)) <= 8


async def test_it_says_what_it_found(host: Host) -> None:
    found = await host.driver().probe()
    assert found.accelerator and found.reason and not found.trouble
    assert host.driver().version


async def test_a_guest_answers_over_a_byte_stream(host: Host) -> None:
    machine = await host.launch()
    assert (machine.driver, machine.pid > 0) == (host.driver().name, True)
    session = await greet(machine)
    assert session.hello is not None
    assert (await session.stats()).memory_total >= 0
    session.close()


async def test_one_connection_follows_another(host: Host) -> None:
    machine = await host.launch()
    session = await greet(machine)
    for _ in range(2):
        token = session.next_token
        session.close()
        session = await greet(machine, token)
    session.close()


async def test_killed_twice(host: Host) -> None:
    machine = await host.launch()
    waiting = asyncio.create_task(machine.wait())
    session = await greet(machine)
    assert not waiting.done()
    await asyncio.gather(machine.kill(), machine.kill())
    await asyncio.wait_for(waiting, DEADLINE)
    await asyncio.wait_for(session.closed.wait(), DEADLINE)
    session.close()
    await machine.kill()
    await asyncio.wait_for(machine.wait(), DEADLINE)
    with pytest.raises(Unavailable):
        machine.connect()


async def test_the_next_daemon_finds_it(host: Host) -> None:
    machine = await host.launch()
    session = await greet(machine)
    record = json.dumps({"handle": machine.handle, "token": session.next_token.hex()})
    session.close()
    machine.detach()
    machine.detach()
    known = json.loads(record)
    again = await host.driver().reattach(known["handle"])
    assert again is not None
    assert (again.driver, again.pid, again.accelerator) == (machine.driver, machine.pid, machine.accelerator)
    assert again.handle == machine.handle
    session = await greet(again, bytes.fromhex(known["token"]))
    session.close()
    await again.kill()
    await asyncio.wait_for(machine.wait(), DEADLINE)


async def test_the_next_daemon_does_not_find_what_has_ended(host: Host) -> None:
    machine = await host.launch()
    handle = json.loads(json.dumps(machine.handle))
    machine.detach()
    await machine.kill()
    assert await host.driver().reattach(handle) is None


async def test_one_machine_is_not_another(host: Host) -> None:
    first, second = await host.launch("a"), await host.launch("b")
    assert first.handle != second.handle
    await first.kill()
    found = await host.driver().reattach(second.handle)
    assert found is not None and found.pid == second.pid
    session = await greet(found)
    session.close()
    found.detach()


async def test_its_last_words(host: Host) -> None:
    machine = await host.broken()
    await asyncio.wait_for(machine.wait(), DEADLINE)
    assert host.words in machine.last_words()
    await machine.kill()
    assert host.words in machine.last_words()


async def test_what_it_does_not_take_is_refused_first(host: Host) -> None:
    driver = host.driver()
    refused = [(p, s) for p, samples in SAMPLES.items() for s in samples if type(s) not in driver.takes]
    for part, sample in refused:
        config = host.config(**{part: sample if part in ("share", "snapshot") else (sample,)})
        with pytest.raises(Unsupported, match=f"'{driver.name}' does not support {KINDS[type(sample)]}"):
            await driver.launch(config)
        assert not config.directory.exists()


# -- facets: it has one, or says that it has not ------------------------------------------


def has(thing: Driver | Machine, facet: type) -> bool:
    """Else it is refused by name."""
    if isinstance(thing, facet):
        assert require(thing, facet) is thing
        return True
    with pytest.raises(Unsupported, match=thing.driver if hasattr(thing, "driver") else thing.name):
        require(thing, facet)
    return False


async def test_pause(host: Host) -> None:
    machine = await host.launch()
    if not has(machine, Pause):
        return
    assert isinstance(machine, Pause)
    session = await greet(machine)
    await machine.pause()
    asked = asyncio.create_task(session.stats())
    assert not (await asyncio.wait({asked}, timeout=_PATIENCE))[0]
    if isinstance(machine, DiskStall):
        assert not await machine.stalled()
    await machine.resume()
    await asyncio.wait_for(asked, DEADLINE)
    session.close()


async def test_no_disk_has_failed(host: Host) -> None:
    machine = await host.launch(disks=(host.disk("one"),) if Disk in host.driver().takes else ())
    if isinstance(machine, DiskErrors):
        assert await machine.disk_errors() == {"one": 0}
        assert await machine.disk_errors() == {"one": 0}


async def test_disks_while_it_runs(host: Host) -> None:
    machine = await host.launch(expandable=True)
    if not has(machine, DiskHotplug):
        return
    assert isinstance(machine, DiskHotplug)
    session = await greet(machine)
    await machine.add_disk(host.disk("late"))
    await machine.remove_disk("late")
    await machine.remove_disk("late")
    await machine.add_disk(host.disk("late"))
    session.close()


async def test_messages_of_files_come_by_a_stream(host: Host) -> None:
    """The guest's kernel begins; when whoever answers goes, a second one can come."""
    machine = await host.launch(expandable=True)
    if not has(machine, FileStream):
        return
    assert isinstance(machine, FileStream)
    session = await greet(machine)

    await session.setup_pod("pod", [], {}, SHM_DEFAULT)

    async def mount(channel: str) -> None:
        await run_builtin(session, Builtin.SHARE, "share", channel)

    for _ in range(2):
        with await machine.open_files(mount) as stream:
            begun = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stream, 8), DEADLINE)
            assert begun[4:] in (b"", b"\x1a\0\0\0")  # FUSE_INIT; an object's kernel asks nothing
    session.close()


async def test_a_spare_nic_is_plugged_in_and_pulled_out(host: Host) -> None:
    takes = SpareNetwork in host.driver().takes
    spare = SpareNetwork("52:54:00:12:34:57", "spare")
    first = host.networks() if takes else ()
    machine = await host.launch(networks=(*first, spare) if takes else ())
    if not has(machine, NicHotplug):
        return
    assert isinstance(machine, NicHotplug) and takes
    session, nic = await greet(machine), len(first)
    await machine.pull_out(nic)  # of what leads nowhere
    for _ in range(2):
        assert not await machine.plugged(nic)
        with host.tap() as (tap, held):
            await machine.plug_in(nic, tap)
        again = await host.driver().reattach(json.loads(json.dumps(machine.handle)))
        assert isinstance(again, NicHotplug) and await again.plugged(nic) and held()
        found = Interface(f"eth{nic}", ("10.8.1.2/24",), mac="52:54:00:12:36:01")
        await asyncio.wait_for(configured(session, found), DEADLINE)
        again.detach()
        await machine.pull_out(nic)
        await machine.pull_out(nic)
        assert not held()
    assert (await session.stats()).memory_total >= 0
    session.close()


async def test_further_nics_come_while_it_runs(host: Host) -> None:
    """As many as the machine has slots for; each is a spare one from then on."""
    takes = SpareNetwork in host.driver().takes
    spare = SpareNetwork("52:54:00:12:34:57", "spare")
    machine = await host.launch(networks=(*host.networks(), spare) if takes else ())
    if not isinstance(machine, NicAddition):
        return
    assert isinstance(machine, NicHotplug)
    session = await greet(machine)
    numbers = range(2, 2 + host.slots)
    for number in numbers:
        for _ in range(2):  # as a daemon does that died before it wrote it down
            await machine.add_nic(number, f"52:54:00:12:35:{number:02x}")
    with pytest.raises(Unsupported):
        await machine.add_nic(2 + host.slots, "52:54:00:12:35:ff")
    for number in numbers:
        found = Interface(f"eth{number}", (f"10.8.{number}.2/24",), mac=f"52:54:00:12:36:{number:02x}")
        await asyncio.wait_for(configured(session, found), DEADLINE)
    if host.slots:
        with host.tap() as (tap, held):
            await machine.plug_in(2, tap)
        assert await machine.plugged(2) and held()
        await machine.pull_out(2)
        assert not held()
    session.close()


async def configured(agent: Agent, interface: Interface) -> None:
    """By a guest that finds it sooner or later."""
    while True:
        try:
            return await agent.set_interface(interface)
        except GuestError as error:
            assert error.guest_code == GuestCode.NOT_FOUND
            await asyncio.sleep(0.05)


async def test_ports_while_it_runs(host: Host) -> None:
    takes = UserNetwork in host.driver().takes
    machine = await host.launch(networks=user_network() if takes else ())
    if not has(machine, PortForwarding):
        return
    assert isinstance(machine, PortForwarding) and takes
    port = free_port()
    await machine.add_port(port)
    with pytest.raises(Conflict):
        await machine.add_port(port)
    with pytest.raises(Conflict):
        await host.launch("b", networks=user_network(port))
    await machine.remove_port(port)
    await machine.add_port(port)


async def test_a_machine_that_waited(host: Host) -> None:
    publishes, has_disks = (kind in host.driver().takes for kind in (UserNetwork, Disk))
    machine = await host.launch(
        "pool",
        disks=(host.disk("image"), host.disk("scratch")) if has_disks else (),
        networks=user_network() if publishes else (),
    )
    if not has(machine, Reconfigure):
        return
    assert isinstance(machine, Reconfigure)
    session = await greet(machine)
    other = host.parent / "pod"
    (host.parent / "pool").rename(other)
    port = free_port()
    (host.place / "mine").write_bytes(bytes(1 << 20))
    mine = [Disk("scratch", host.place / "mine", read_only=False)] if has_disks else []
    await machine.reconfigure(other, mine, [port] if publishes else [])
    assert not mine or host.has_open(machine, mine[0].path)
    token = session.next_token
    session.close()
    if publishes:
        with pytest.raises(Conflict):
            await host.launch("b", networks=user_network(port))
    again = await host.driver().reattach(json.loads(json.dumps(machine.handle)))
    assert again is not None
    (await greet(again, token)).close()
    again.detach()


async def test_a_template(host: Host) -> None:
    driver = host.driver()
    if not has(driver, Snapshots):
        assert Snapshot not in driver.takes
        return
    assert isinstance(driver, Snapshots) and Snapshot in driver.takes
    assert await driver.fingerprint(host.config()) != await driver.fingerprint(host.config(memory=2 * MEMORY))
    memory, state = os.memfd_create("memory"), os.memfd_create("state")
    try:
        os.ftruncate(memory, MEMORY)
        machine = await host.launch("make", memory_file=memory)
        assert isinstance(machine, Save)
        session = await greet(machine)
        session.close()
        await machine.save(state)
        await machine.kill()
        for name in ("c1", "c2"):
            clone = await host.launch(name, snapshot=Snapshot(memory, state))
            (await greet(clone, session.next_token, inherited=True)).close()
    finally:
        os.close(memory)
        os.close(state)


class _Instant:
    """Asks whether the guest answers, each time that it is asked for something."""

    def __init__(self, agent: GuestSession) -> None:
        self._agent = agent
        self.seen: list[bool] = []
        self.token = b""  # of who connects to what was saved

    async def _look(self, limit: float) -> None:
        try:
            await asyncio.wait_for(self._agent.stats(), limit)
        except TimeoutError:
            self.seen.append(False)
        else:
            self.seen.append(True)

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        await self._look(DEADLINE)  # a slow one answers in the end
        yield

    async def at_rest(self) -> None:
        self.token = self._agent.next_token
        await self._look(_PATIENCE)


async def _another(session: GuestSession, machine: Machine) -> GuestSession:
    """Another connection, in the place of one that broke."""
    session.drop()
    found = await session.renew(machine.connect, machine.wait)
    assert found is not None
    return found


async def test_a_machine_that_runs_is_saved(host: Host) -> None:
    """It goes on, with its connection or another; what starts from the saved one, more than once, answers by the same
    token as that.
    """
    driver = host.driver()
    if not isinstance(driver, Checkpoints):
        return
    assert Snapshot in driver.takes
    memory, state = os.memfd_create("memory"), os.memfd_create("state")
    try:
        os.ftruncate(memory, MEMORY)
        machine = await host.launch("source")
        session = await greet(machine)
        instant = _Instant(session)
        saved = await driver.checkpoint(machine, Snapshot(memory, state), instant)
        assert instant.seen == [True, False]
        if isinstance(machine, Severs):
            assert await machine.severed()
            session = await _another(session, machine)
            assert not await machine.severed()
        assert (await session.stats()).memory_total > 0
        for name in ("f1", "f2"):
            fork = await host.launch(name, snapshot=saved, balloon=True)
            again = await wake(fork.connect, fork.wait, instant.token)
            assert again is not None
            assert (await again.stats()).memory_total > 0
            again.close()
        session.close()
    finally:
        os.close(memory)
        os.close(state)


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


async def test_a_machine_is_put_away_and_goes_on(host: Host, tmp_path: Path) -> None:
    """Its end is none for its guest, which answers by the same token to a machine of the same shape."""
    driver = host.driver()
    if not isinstance(driver, Suspends):
        return
    machine = await host.launch("source")
    session = await greet(machine)
    before = (await session.stats()).memory_total
    source, target = os.pipe()
    reading = asyncio.create_task(asyncio.to_thread(_read_all, source))
    await driver.put_away(machine, target)
    os.close(target)
    file = tmp_path / "machine"
    file.write_bytes(await reading)
    await machine.kill()
    with open(file, "rb") as stream:
        again = await driver.launch_from(host.config("again", balloon=True), stream.fileno())
    try:
        found = await wake(again.connect, again.wait, session.next_token, alone=True)
        assert found is not None
        assert (await found.stats()).memory_total == before
        found.close()
    finally:
        await again.kill()
    session.close()


async def test_a_machine_that_is_launched_before_what_it_goes_on_from_is_there(host: Host) -> None:
    """Its directory has another name when it goes on, and it has another disk."""
    driver = host.driver()
    if not isinstance(driver, Checkpoints) or not has(driver, Early):
        return
    memory, state = os.memfd_create("memory"), os.memfd_create("state")
    try:
        os.ftruncate(memory, MEMORY)
        files = Snapshot(memory, state, live=True)
        first, second = host.disk("first"), host.disk("second")
        source = await host.launch("source", disks=(first,))
        session = await greet(source)
        early = await host.launch("early", disks=(first,), snapshot=files, early=True, balloon=True)
        await driver.checkpoint(source, files, _Instant(session))
        session.close()
        (host.parent / "early").rename(host.parent / "late")
        assert isinstance(early, Early)
        await early.begin(host.parent / "late", [replace(second, serial=first.serial)])
        again = await wake(early.connect, early.wait, session.next_token)
        assert again is not None
        assert (await again.stats()).memory_total > 0
        assert host.has_open(early, second.path)
        again.close()
    finally:
        os.close(memory)
        os.close(state)


async def test_machines_of_no_record(host: Host) -> None:
    driver = host.driver()
    if not has(driver, Strays):
        return
    assert isinstance(driver, Strays)
    one, two = await host.launch("one"), await host.launch("two")
    await host.launch("three")
    one.detach()
    found = driver.strays(host.parent, {host.parent / "two", host.parent / "three"})
    assert [m.pid for m in found] == [one.pid]
    assert len(driver.strays(host.parent, set())) == 3
    assert driver.strays(host.place, set()) == []
    await found[0].kill()
    await asyncio.wait_for(one.wait(), DEADLINE)
    assert {m.pid for m in driver.strays(host.parent, set())} == {m.pid for m in host.launched} - {one.pid}
    assert await driver.reattach(two.handle) is not None  # type: ignore[attr-defined]


async def test_a_machine_whose_directory_vanished(host: Host) -> None:
    """Whoever is to be kept is, also when a cleaner of temporary files came by; others go."""
    driver = host.driver()
    if not isinstance(driver, Strays):
        return
    one, two = await host.launch("one"), await host.launch("two")
    for name in ("one", "two"):
        shutil.rmtree(host.parent / name, ignore_errors=True)
    assert [m.pid for m in driver.strays(host.parent, {host.parent / "two"})] == [one.pid]
    assert {m.pid for m in driver.strays(host.parent, set())} == {one.pid, two.pid}


async def test_a_guest_that_stands_still_is_no_dead_one(host: Host) -> None:
    machine = await host.launch()
    if not isinstance(machine, Pause):
        return
    (await greet(machine)).close()
    await machine.pause()
    again = await host.driver().reattach(machine.handle)
    assert again is not None
    with pytest.raises((DeadlineExceeded, Unavailable)):
        await greet(again, timeout=_PATIENCE)
    await again.kill()
