# SPDX-License-Identifier: Apache-2.0
"""Whether KVM works is asked of a guest that is there in this process only, by a clock that jumps over every wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.errors import Unavailable
from hypercontainer.hypervisor.console import Console
from hypercontainer.hypervisor.driver import MachineConfig, Probe
from hypercontainer.hypervisor.probe import LIMIT, PATIENCE, SILENCE, Prober
from hypercontainer.hypervisor.qemu import command
from hypercontainer.protocol.constants import FIRST_TOKEN
from tests.engine.clock import VirtualLoop


class Guest:
    """What a machine's guest does, as a coroutine that gets the machine."""

    accelerator = "kvm"
    pid = pid_started = 0

    def __init__(self, life: Callable[[Guest], Awaitable[None]]) -> None:
        self.heard = 0
        self.killed = False
        self._ours, self._its = socket.socketpair()
        self._ours.setblocking(False)
        self._life = asyncio.ensure_future(life(self))

    def connect(self) -> socket.socket:
        return self._ours

    def answer(self) -> None:
        self._its.send(FIRST_TOKEN)

    def die(self) -> None:
        self._its.recv(len(FIRST_TOKEN))  # else it is a reset
        self._its.close()

    def last_words(self) -> str:
        return "qemu: no"

    async def kill(self) -> None:
        self.killed = True
        self._life.cancel()
        self._its.close()


class Host:
    """A host's KVM, and the daemons that try it one after another."""

    def __init__(self, path: Path, life: Callable[[Guest], Awaitable[None]]) -> None:
        self.life = life
        self.guests: list[Guest] = []
        self.configs: list[MachineConfig] = []
        self._path = path
        (path / "kvm").touch()
        (path / "vmlinux").touch()

    def daemon(self) -> Prober:
        prober = Prober(self._path, self._launch, self._path / "kvm")  # type: ignore[arg-type]
        kernel = self._path / "vmlinux"
        prober.config = MachineConfig("probe", self._path / "probe", 1, 128 << 20, kernel, kernel)
        return prober

    async def _launch(self, config: MachineConfig, accelerator: str) -> Guest:
        assert accelerator == "kvm"
        config.directory.mkdir()
        self.configs.append(config)
        self.guests.append(Guest(self.life))
        return self.guests[-1]

    def clean(self) -> bool:
        return all(g.killed for g in self.guests) and not (self._path / "probe").exists()


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


def now() -> float:
    return asyncio.get_running_loop().time()


async def quick(guest: Guest) -> None:
    guest.heard += 100
    await asyncio.sleep(0.3)
    guest.answer()


async def hangs(guest: Guest) -> None:
    guest.heard += 100


async def dies(guest: Guest) -> None:
    await asyncio.sleep(0.1)
    guest.die()


def slow(seconds: float) -> Callable[[Guest], Awaitable[None]]:
    """Says something twice a second, and is up in so many seconds."""

    async def life(guest: Guest) -> None:
        for _ in range(int(seconds * 2)):
            await asyncio.sleep(0.5)
            guest.heard += 80
        guest.answer()

    return life


def test_a_guest_that_boots_is_believed_and_remembered(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host(tmp_path, quick)
        assert await host.daemon().choose("7.2") == ("kvm", "a probe guest booted with KVM")
        host.life = hangs
        assert (await host.daemon().choose("7.2"))[0] == "kvm"
        assert len(host.guests) == 1 and host.clean()
        assert host.configs[0].talkative and "quiet" not in command.kernel_command_line("kvm", talkative=True)
        assert (await host.daemon().choose("8.0"))[0] == "tcg"  # another QEMU is another question

    run(work())


def test_a_slow_guest_is_waited_for_while_others_are_emulated(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host(tmp_path, slow(20))
        daemon, begun = host.daemon(), now()
        name, why = await daemon.choose("7.2")
        assert name == "tcg" and "still being tried" in why
        assert PATIENCE <= now() - begun < PATIENCE + 1
        waited = now()
        assert (await daemon.choose("7.2"))[0] == "tcg" and now() - waited < 0.5  # no start waits a second time
        assert (await daemon.probe("7.2"))[0] == "kvm"
        assert now() - begun < LIMIT and len(host.guests) == 1
        assert (await daemon.choose("7.2"))[0] == "kvm"
        assert (await host.daemon().choose("7.2"))[0] == "kvm"

    run(work())


@pytest.mark.parametrize(
    ("life", "seconds", "why"),
    [(hangs, SILENCE, "said nothing for 15 s"), (slow(LIMIT + 10), LIMIT, "did not boot within 30 s")],
)
def test_a_guest_that_does_not_boot(
    tmp_path: Path, life: Callable[[Guest], Awaitable[None]], seconds: float, why: str
) -> None:
    async def work() -> None:
        host, begun = Host(tmp_path, life), now()
        name, found = await host.daemon().probe("7.2")
        assert name == "tcg" and why in found
        assert seconds <= now() - begun < seconds + 1 and host.clean()

    run(work())


def test_a_qemu_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        host, begun = Host(tmp_path, dies), now()
        assert await host.daemon().choose("7.2") == ("tcg", "/dev/kvm opens, but a probe guest ended early: qemu: no")
        assert now() - begun < 1 and host.clean()

    run(work())


def test_a_no_delays_nothing_and_is_asked_again(tmp_path: Path) -> None:
    """By the next daemon, and whenever somebody wants to know."""

    async def work() -> None:
        host = Host(tmp_path, hangs)
        assert (await host.daemon().probe("7.2"))[0] == "tcg"
        host.life = quick
        daemon, begun = host.daemon(), now()
        assert (await daemon.choose("7.2"))[0] == "tcg" and now() - begun < 0.5
        assert len(host.guests) == 1
        assert (await daemon.probe("7.2"))[0] == "kvm"
        assert (await daemon.choose("7.2"))[0] == "kvm"
        assert (await host.daemon().choose("7.2"))[0] == "kvm"
        host.life = dies
        assert (await daemon.probe("7.2"))[0] == "tcg"
        assert (await daemon.choose("7.2"))[0] == "tcg"

    run(work())


def test_a_daemon_that_ends_takes_the_trial_with_it(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host(tmp_path, hangs)
        daemon = host.daemon()
        assert (await daemon.choose("7.2"))[0] == "tcg"
        assert not host.clean()
        await daemon.close()
        assert host.clean() and not (tmp_path / "accelerator.json").exists()

    run(work())


def test_without_a_device_nothing_is_tried_or_remembered(tmp_path: Path) -> None:
    async def work() -> None:
        host = Host(tmp_path, quick)
        (tmp_path / "kvm").unlink()
        daemon = host.daemon()
        assert await daemon.choose("7.2") == await daemon.probe("7.2") == ("tcg", "there is no /dev/kvm")
        (tmp_path / "kvm").touch()
        assert (await daemon.choose("7.2"))[0] == "kvm"

    run(work())


def test_an_answer_that_cannot_be_written_down_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        host = Host(tmp_path, quick)
        assert (await host.daemon().choose("7.2"))[0] == "kvm"

    monkeypatch.setattr("hypercontainer.hypervisor.probe.write_atomically", full)
    run(work())


def test_a_qemu_that_cannot_be_started(tmp_path: Path) -> None:
    async def refuse(config: MachineConfig, accelerator: str) -> Guest:
        raise Unavailable("qemu is not installed")

    async def work() -> None:
        daemon = Host(tmp_path, quick).daemon()
        daemon._launch = refuse  # type: ignore[assignment]
        assert await daemon.choose("7.2") == ("tcg", "KVM could not be tried: qemu is not installed")

    run(work())


class Factory:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.drained: list[bool] = []

    async def drain(self, *, templates: bool) -> None:
        self.drained.append(templates)


class Driver:
    """Has one answer, and another one when it is to try again."""

    def __init__(self, first: str, then: str) -> None:
        self._answer, self._then = first, then

    async def probe(self) -> Probe:
        return Probe(self._answer, "")

    async def try_again(self) -> Probe:
        self._answer = self._then
        return await self.probe()

    async def close(self) -> None: ...


@pytest.mark.parametrize(("first", "then", "drained"), [("tcg", "kvm", [True]), ("tcg", "tcg", []), ("kvm", "kvm", [])])
async def test_what_was_made_for_the_other_accelerator_goes(first: str, then: str, drained: list[bool]) -> None:
    engine = SimpleNamespace(drivers=[Driver(first, then)], factory=Factory())
    await Engine.try_again(engine)  # type: ignore[arg-type]
    assert engine.factory.drained == drained


async def test_a_console_counts_what_it_heard(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "console"))
        listening.listen()
        console = Console()
        console.open(tmp_path / "console")
        writer, _ = listening.accept()
        with writer:
            for text in (b"Linux version 6.1\n", b"x" * 5000):
                writer.sendall(text)
                console.tail()
        assert console.heard == 5018
        console.close()
