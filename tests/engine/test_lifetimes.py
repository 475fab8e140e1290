# SPDX-License-Identifier: Apache-2.0
"""How long pods live, and when they are suspended by themselves, over fakes."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from hypercontainer.engine.forks import doorbell
from hypercontainer.engine.forks.doorbell import Doorbells, answer, is_for
from hypercontainer.errors import InvalidState, NotFound, Unsupported
from hypercontainer.hypervisor.fake_saving import SavingDriver
from hypercontainer.model.lifetimes import Lifetime
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.specs import ExecSpec, PortMapping
from hypercontainer.model.status import Pod
from hypercontainer.network.backend import Link, NicKind
from hypercontainer.network.tap import HEADER

from .stage import Stage
from .test_snapshots import saving  # noqa: F401


def test_one_whose_time_is_over_is_stopped(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", ttl=30)
        await s.run("gone", "sleep", "1000", ttl=30, auto_remove=True)
        await s.run("c", "sleep", "1000")
        await asyncio.sleep(20)
        assert {s.status(n) for n in ("a", "gone", "c")} == {"running"}
        await s.close(keep_running=True)
        await asyncio.sleep(15)  # it counts from its start, whoever runs
        await s.open()
        await asyncio.sleep(20)
        assert s.status("a") == "exited" and s.status("c") == "running"
        with pytest.raises(NotFound):
            s.engine.registry.container("gone")
        await s.call(s.engine.containers.start("a"))
        await asyncio.sleep(5)
        assert s.status("a") == "running"

    saving(scenario)


def test_one_that_is_suspended_ends_in_its_time(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", ttl=60)
        await s.call(s.engine.suspensions.suspend("a"))
        await asyncio.sleep(70)
        assert s.status("a") == "exited"

    saving(scenario)


def test_its_time_is_another_one_from_now_on(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", ttl=30)
        await s.run("b", "sleep", "1000")
        await asyncio.sleep(20)
        found = s.engine.lifetimes.change("a", Lifetime(ttl=60))
        assert (found.ttl, found.ttl_action) == (60, "stop") and s.engine.registry.container("a").spec.ttl == 60
        assert found.ends_at == next(p.ends_at for p in s.engine.pods.all() if p.name == "a")
        s.engine.lifetimes.change("b", Lifetime(ttl=100))
        await asyncio.sleep(50)
        assert s.status("a") == "running", "it is counted from then"
        await asyncio.sleep(20)
        assert s.status("a") == "exited" and s.status("b") == "running"
        assert next(p.ends_at for p in s.engine.pods.all() if p.name == "a") == ""
        s.engine.lifetimes.change("b", Lifetime(ttl=1))
        await asyncio.sleep(2)
        assert s.status("b") == "exited", "one that looks seldom is told"
        await s.call(s.engine.containers.start("b"))
        s.engine.lifetimes.change("b", Lifetime(ttl=0))
        await asyncio.sleep(100)
        assert s.status("b") == "running"

    saving(scenario)


def test_one_whose_time_is_over_stands_still_where_that_is_asked(saving: Any) -> None:  # noqa: F811
    """It does not go on by itself; when it does, its time begins anew, whoever runs by then."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", ttl=30, ttl_action="suspend")
        await asyncio.sleep(40)
        assert s.status("a") == "suspended"
        await asyncio.sleep(100)
        await s.close()
        await s.open()
        await asyncio.sleep(100)
        assert s.status("a") == "suspended"
        await s.call(s.engine.suspensions.resume("a"))
        await asyncio.sleep(20)
        assert s.status("a") == "running"
        await asyncio.sleep(20)
        assert s.status("a") == "suspended"

    saving(scenario)


def test_one_that_cannot_be_suspended_is_paused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", ttl=30, ttl_action="suspend")
        await asyncio.sleep(100)
        assert s.status("a") == "paused"
        await s.call(s.engine.containers.unpause("a"))
        await asyncio.sleep(20)
        assert s.status("a") == "running"
        await asyncio.sleep(20)
        assert s.status("a") == "paused"
        with pytest.raises(Unsupported):
            s.engine.lifetimes.change("a", Lifetime(idle_timeout=5))

    act(scenario)


def test_one_that_has_nothing_to_do_is_suspended(saving: Any) -> None:  # noqa: F811
    """Not while somebody is attached, follows its log, or runs something in it; what is asked of it lets it go on."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", idle_timeout=20)
        fan_out = s.engine.containers.supervisor(s.engine.registry.container("a")).fan_out
        reader = fan_out.attach()
        await asyncio.sleep(60)
        assert s.status("a") == "running"
        reader.close()
        await asyncio.sleep(15)
        assert s.status("a") == "running"
        await asyncio.sleep(15)
        assert s.status("a") == "suspended"
        await s.call(s.engine.containers.rouse("a"))
        exec_ = s.engine.execs.create("a", ExecSpec(command=["sleep", "1000"]))
        await s.call(s.engine.execs.start(exec_))
        await asyncio.sleep(60)
        assert s.status("a") == "running"
        await s.call(s.engine.execs.signal(exec_.id, "KILL"))
        await asyncio.sleep(30)
        assert s.status("a") == "suspended"
        await s.call(s.engine.archives.stat("a", "/"))
        assert s.status("a") == "running"
        await asyncio.sleep(30)
        await s.close()
        await s.open()
        assert s.status("a") == "suspended"
        await s.call(s.engine.containers.start("a"))
        assert s.status("a") == "running"

    saving(scenario)


def test_copies_and_connections_keep_it_awake(saving: Any) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", idle_timeout=20)

        async def copy() -> str:
            async with s.engine.archives._agent("a"):
                await asyncio.sleep(60)
                return s.status("a")

        assert await s.call(copy()) == "running"
        await asyncio.sleep(30)
        assert s.status("a") == "suspended"

    saving(scenario)


def test_who_comes_meanwhile_waits(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", idle_timeout=20)
        put_away, begun = SavingDriver.put_away, asyncio.Event()

        async def slowly(self: Any, machine: Any, stream: int) -> None:
            begun.set()
            await asyncio.sleep(0.5)
            await put_away(self, machine, stream)

        monkeypatch.setattr(SavingDriver, "put_away", slowly)
        await begun.wait()
        assert s.status("a") == "running"
        await s.call(s.engine.containers.rouse("a"))
        exec_ = s.engine.execs.create("a", ExecSpec(command=["sleep", "1000"]))
        await s.call(s.engine.execs.start(exec_))
        await asyncio.sleep(10)
        assert s.status("a") == "running" and not exec_.ended.is_set()

    saving(scenario)


def test_one_that_is_silent_holds_up_no_other(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", idle_timeout=10)
        await s.run("b", "sleep", "1000", ttl=30)
        agent = s.engine.containers.runtime(s.engine.registry.container("a")).agent

        async def silent() -> Any:
            await asyncio.sleep(1000)

        monkeypatch.setattr(agent, "stats", silent)
        await asyncio.sleep(50)
        assert s.status("a") == "running" and s.status("b") == "exited"

    saving(scenario)


def test_rings_for_what_cannot_go_on(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", idle_timeout=20)
        await s.call(s.engine.suspensions.suspend("a"))
        tried: list[float] = []

        async def wake(pod: Any) -> bool:
            tried.append(asyncio.get_running_loop().time())
            raise InvalidState("it does not fit this host any more")

        monkeypatch.setattr(s.engine.suspensions, "wake", wake)
        lifetimes = s.engine.lifetimes
        for _ in range(100):
            lifetimes._begin(s.engine.registry.pod("a"), lifetimes.rouse)
            await asyncio.sleep(0.1)
        assert 1 < len(tried) < 5

    saving(scenario)


@pytest.mark.parametrize("ttl", [0, 1000])
def test_one_that_is_suspended_and_is_not_to_go_on_by_itself_any_more(saving: Any, ttl: float) -> None:  # noqa: F811
    """Nothing hears packets for it, whether its time is still looked at or not."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", idle_timeout=20, ttl=ttl)
        await s.call(s.engine.suspensions.suspend("a"))
        await asyncio.sleep(10)
        lifetimes = s.engine.lifetimes
        assert list(lifetimes._doorbells._hung) == [s.engine.registry.pod("a").id]
        lifetimes.change("a", Lifetime(idle_timeout=0))
        await asyncio.sleep(10)
        assert not lifetimes._doorbells._hung

    saving(scenario)


def test_who_floods_a_doorbell_does_not_hold_up_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, rung = iter([bytes(HEADER) + _ME + _OTHER + b"\x08\x00" + bytes(40)] * 5000), []

    def read(fd: int, size: int) -> bytes:
        if (frame := next(frames, None)) is None:
            raise BlockingIOError
        return frame

    monkeypatch.setattr(doorbell.os, "read", read)
    doorbell._look(-1, _LINK, lambda: rung.append(1))
    assert 0 < len(rung) < 100


async def test_a_tap_that_is_gone_is_heard_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with open("/proc/self/mem", "rb") as gone:  # its first page cannot be read
        doorbell._look(gone.fileno(), _LINK, lambda: None)
    assert "is gone" in caplog.text


async def test_ports_that_a_pod_publishes_no_more_are_free() -> None:
    class Network:
        def links(self, pod: Any) -> list[Link]:
            return []

    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    bells = Doorbells(Network(), lambda _: False)  # type: ignore[arg-type]
    port = PortMapping(container_port=80, host_port=number, host_ip="127.0.0.1")
    pod = Pod(id="a", name="a", created_at="", hostname="", vcpus=1, memory=0, spec=PodSpec(), ports=[port])
    for _ in range(2):
        await bells.hang(pod, lambda: True, lambda: None)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", number)).close()
    await bells.hang(replace(pod, ports=[]), lambda: True, lambda: None)
    socket.create_server(("127.0.0.1", number)).close()
    await bells.only(set())


async def test_connections_that_wait_for_it_are_so_many() -> None:
    bells, closed = Doorbells(None, lambda _: False), []  # type: ignore[arg-type]

    class Writer:
        def close(self) -> None:
            closed.append(1)

    port = PortMapping(container_port=80, host_port=8080)
    for _ in range(300):
        bells._arrived("a", port, lambda: None, None, Writer())  # type: ignore[arg-type]
    assert len(bells._held) == 256 and len(closed) == 44
    await bells.end()
    assert not bells._held


def test_what_cannot_be_suspended_has_no_idle_timeout(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(Unsupported, match="does not support suspending pods"):
            await s.create("a", idle_timeout=10)

    act(scenario)


_LINK = Link(NicKind.TAP, ("10.1.0.2/24", "fd00::2/64"), mac="02:00:00:00:00:01", tap="t")
_ME, _ALL = bytes.fromhex("020000000001"), b"\xff" * 6
_OTHER = bytes.fromhex("020000000009")


def _arp(target: str) -> bytes:
    addresses = _OTHER + ip_address("10.1.0.1").packed + bytes(6) + ip_address(target).packed
    return _ALL + _OTHER + bytes.fromhex("0806" + "0001080006040001") + addresses


def _solicitation(target: str) -> bytes:
    header = b"\x60\0\0\0\0\x18\x3a\xff" + bytes(32)
    return (
        bytes.fromhex("3333ff000002")
        + _OTHER
        + b"\x86\xdd"
        + header
        + b"\x87\0\0\0\0\0\0\0"
        + ip_address(target).packed
    )


@pytest.mark.parametrize(
    ("frame", "rings"),
    [
        (_ME + _OTHER + b"\x08\x00" + bytes(40), True),
        (_OTHER + _ME + b"\x08\x00" + bytes(40), False),
        (_ALL + _OTHER + b"\x08\x00" + bytes(40), False),
        (_arp("10.1.0.2"), True),
        (_arp("10.1.0.3"), False),
        (_solicitation("fd00::2"), True),
        (_solicitation("fd00::3"), False),
        (b"", False),
        (_ME, False),
    ],
)
def test_what_is_a_packet_for_it(frame: bytes, rings: bool) -> None:
    assert is_for(frame, _LINK) is rings


def test_who_asks_for_its_address_is_answered() -> None:
    said = answer(_arp("10.1.0.2"), _LINK)
    assert said[:14] == _OTHER + _ME + b"\x08\x06" and said[20:22] == b"\x00\x02"
    assert said[22:32] == _ME + ip_address("10.1.0.2").packed
    assert said[32:42] == _OTHER + ip_address("10.1.0.1").packed
