# SPDX-License-Identifier: Apache-2.0
"""Pods that are put on the disk and go on, over fakes: what is kept, what is refused, and what is left."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from hypercontainer.engine import bring_up
from hypercontainer.engine.forks import suspending
from hypercontainer.engine.restore import restore
from hypercontainer.errors import Conflict, InvalidState, NoSpace, NotFound, Unavailable, Unsupported
from hypercontainer.hypervisor.fake_saving import SavingDriver
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.specs import ExecSpec, Mount, PortMapping

from .scenes import plan, spec
from .stage import IMAGE, Stage


@pytest.fixture
def saving(act: Any) -> Callable[[Any], None]:
    """Play a scenario on a host whose driver saves machines."""
    return lambda scenario: act(scenario, factory=True)


async def suspend(s: Stage, key: str = "a") -> None:
    await s.call(s.engine.suspensions.suspend(key))


async def resume(s: Stage, key: str = "a") -> None:
    await s.call(s.engine.suspensions.resume(key))


def events(s: Stage) -> list[str]:
    return [e.action for e in s.engine.events.past() if e.action in ("suspend", "resume", "die", "start", "pause")]


def test_it_is_the_same_pod(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        ports = [PortMapping(container_port=80)]
        id_ = await s.run("a", "sleep", "1000", mounts=[Mount(target="/d", source="vol")], ports=ports)
        before = s.engine.registry.container(id_)
        await suspend(s)
        assert s.status("a") == "suspended" and s.engine.registry.pod(id_).status == "suspended"
        assert not s.host.machines and s.engine.registry.pod(id_).vm is None
        assert (s.paths.suspended(id_) / "memory").stat().st_size
        await resume(s)
        after = s.engine.registry.container(id_)
        assert after == before and events(s) == ["start", "suspend", "resume"]
        assert not s.paths.suspended(id_).exists()
        guest = s.guest(s.machine("a"))
        assert guest.severed == 0 and all(c.frozen is None for c in guest.containers.values())
        await s.call(s.engine.containers.stop("a", 0))
        assert s.status("a") == "exited"

    saving(scenario)


def test_what_a_machine_had_is_given_back_though_its_directory_stays(saving: Any) -> None:
    """As on a disk that fails."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        vm = s.engine.registry.pod("a").vm
        assert vm and vm.allotment in s.groups.groups
        with mock.patch.object(bring_up, "removed", side_effect=OSError(errno.EIO, "it fails")):
            await suspend(s)
        assert s.status("a") == "suspended" and vm.allotment not in s.groups.groups
        shutil.rmtree(vm.directory)
        await resume(s)
        assert s.status("a") == "running"

    saving(scenario)


def test_streams_and_execs_go_on(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "cat", stdin=True)
        exec_ = s.engine.execs.create("a", ExecSpec(command=["cat"], stdin=True))
        await s.call(s.engine.execs.start(exec_))
        reader = exec_.fan_out.attach()
        await suspend(s)
        assert not exec_.ended.is_set() and exec_.handle
        await resume(s)
        await exec_.handle.write_stdin(b"still here")
        exec_.handle.close_stdin()
        await s.call(_end_of(exec_))
        assert b"".join([data async for _, data in reader]) == b"still here" and exec_.exit_code == 0

    saving(scenario)


async def _end_of(exec_: Any) -> None:
    await exec_.ended.wait()


def test_another_daemon_finds_it(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await s.call(s.engine.pods.create(plan(spec("b"), spec("c"))))
        await s.call(s.engine.pods.start("pod"))
        await suspend(s)
        await suspend(s, "pod")
        await s.close()
        assert not s.host.machines
        await s.open()
        assert {s.status(n) for n in "abc"} == {"suspended"}
        with pytest.raises(InvalidState, match="pod a is suspended"):
            s.engine.execs.create("a", ExecSpec(command=["true"]))
        await resume(s)
        await s.call(s.engine.pods.start("pod"))
        assert {s.status(n) for n in "abc"} == {"running"}
        await s.call(s.engine.pods.stop("pod"))
        assert {s.status(n) for n in "bc"} == {"exited"}

    saving(scenario)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("end", ["stop", "kill", "rm", "start", "restart"])
def test_how_one_ends_or_begins(saving: Any, end: str, restarted: bool) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")
        await suspend(s)
        if restarted:
            await s.close()
            await s.open()
        c = s.engine.containers
        verbs = {"stop": c.stop("a"), "kill": c.kill("a", "KILL"), "rm": c.remove("a", force=True),
                 "start": c.start("a"), "restart": c.restart("a")}  # fmt: skip
        verb = verbs.pop(end)
        for other in verbs.values():
            other.close()
        await s.call(verb)
        await asyncio.sleep(5)
        if end == "rm":
            with pytest.raises(NotFound):
                s.engine.registry.container("a")
        else:
            assert s.status("a") == ("running" if end in ("start", "restart") else "exited")
        assert not s.paths.suspended(id_).exists()

    saving(scenario)


def test_a_container_of_a_pod_is_started(saving: Any) -> None:
    """All of the pod goes on, and one that had ended runs."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan(spec("b"), spec("c"), spec("d"))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.containers.stop("d", 0))
        for name in ("b", "d"):
            await suspend(s, "pod")
            assert await s.call(s.engine.containers.start(name))
            assert {s.status(n) for n in ("b", "c", name)} == {"running"}

    saving(scenario)


def test_what_is_said_of_one(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        with pytest.raises(InvalidState, match="is not suspended"):
            await resume(s)
        await suspend(s)
        for verb in (s.engine.suspensions.suspend("a"), s.engine.monitor.stats("a"), s.engine.containers.pause("a"),
                     s.engine.containers.kill("a", "TERM"), s.engine.archives.stat("a", "/")):  # fmt: skip
            with pytest.raises(InvalidState, match="pod a is suspended"):
                await s.call(verb)
        with pytest.raises(Conflict, match="container a is suspended"):
            await s.call(s.engine.containers.remove("a"))
        assert s.status("a") == "suspended"

    saving(scenario)


def test_its_ports_and_volumes_stay_its_own(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        mounts, ports = [Mount(target="/d", source="vol")], [PortMapping(container_port=80, host_port=8080)]
        await s.run("a", "sleep", "1000", mounts=mounts, ports=ports)
        await suspend(s)
        for restarted in (False, True):
            if restarted:
                await s.close()
                await s.open()
            for name, how in (("b", {"mounts": mounts}), ("c", {"ports": ports})):
                with pytest.raises(Conflict, match="in use by"):
                    await s.run(name, "sleep", "1000", **how)
                await s.call(s.engine.containers.remove(name))
        await resume(s)
        assert s.engine.registry.container("a").ports[0].host_port == 8080

    saving(scenario)


def test_one_that_cannot_go_on_stays(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")
        await suspend(s)
        with monkeypatch.context() as patch:
            patch.setattr(SavingDriver, "version", "2")
            with pytest.raises(InvalidState, match="does not fit this host any more"):
                await resume(s)
        memory = s.paths.suspended(id_) / "memory"
        kept = memory.read_bytes()
        memory.write_bytes(kept + b"x")
        with pytest.raises(Unavailable, match="memory of pod a is damaged"):
            await resume(s)
        assert s.status("a") == "suspended" and not s.host.machines
        memory.write_bytes(kept)
        await resume(s)
        assert s.status("a") == "running"

    saving(scenario)


def test_one_whose_files_are_gone_has_ended(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")
        await suspend(s)
        await s.close()
        (s.paths.suspended(id_) / "memory").unlink()
        await s.open()
        assert s.status("a") == "exited" and not s.paths.suspended(id_).exists()
        await s.call(s.engine.containers.start("a"))

    saving(scenario)


def test_it_is_found_without_the_database(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", mounts=[Mount(target="/d", source="vol")])
        await suspend(s)
        await s.close()
        s.paths.database.write_bytes(b"x" * 8192)
        restore(s.paths, lambda _: False)
        await s.open()
        assert s.status("a") == "suspended"
        await resume(s)
        assert s.status("a") == "running"

    saving(scenario)


def test_a_full_disk_leaves_it_running(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")

        async def full(*_: Any) -> None:
            raise NoSpace("the disk is full")

        monkeypatch.setattr(s.engine.suspensions._suspending, "_keep", full)
        with pytest.raises(NoSpace):
            await suspend(s)
        guest = s.guest(s.machine("a"))
        assert s.status("a") == "running" and all(c.frozen is None for c in guest.containers.values())
        assert not s.paths.suspended(id_).exists()
        await s.call(s.engine.monitor.stats("a"))

    saving(scenario)


def test_a_machine_that_dies_while_it_is_suspended(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")

        async def put_away(self: Any, machine: Any, stream: int) -> None:
            machine.hardware.die()
            await asyncio.sleep(1)
            raise Unavailable("QEMU's monitor cannot be reached")

        monkeypatch.setattr(SavingDriver, "put_away", put_away)
        with pytest.raises(Unavailable, match="^the virtual machine of a has ended"):
            await suspend(s)
        await asyncio.sleep(10)
        assert s.status("a") == "exited"

    saving(scenario)


def test_a_stop_while_it_is_suspended_is_heard_by_its_program(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after a grace in which it is frozen, by SIGKILL."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "graceful", "1")
        put_away, begun = SavingDriver.put_away, asyncio.Event()

        async def slowly(self: Any, machine: Any, stream: int) -> None:
            begun.set()
            await asyncio.sleep(30)
            await put_away(self, machine, stream)

        monkeypatch.setattr(SavingDriver, "put_away", slowly)
        suspending = asyncio.ensure_future(suspend(s))
        await begun.wait()
        await s.call(s.engine.containers.stop("a", 10))
        await asyncio.gather(suspending, return_exceptions=True)
        state = s.engine.registry.container("a").state
        assert (state.status, state.exit_code) == ("exited", 0)

    saving(scenario)


def test_a_hypervisor_that_never_ends_what_it_writes(saving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspending, "_LEAST", 0.1)
    kept: list[int] = []

    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "sleep", "1000")
        put_away = SavingDriver.put_away

        async def keeps(self: Any, machine: Any, stream: int) -> None:
            kept.append(os.dup(stream))
            await put_away(self, machine, stream)

        monkeypatch.setattr(SavingDriver, "put_away", keeps)
        with pytest.raises(Unavailable, match="not written to the disk in time"):
            await suspend(s)
        assert s.status("a") == "running" and not s.paths.suspended(id_).exists()
        guest = s.guest(s.machine("a"))
        assert all(c.frozen is None for c in guest.containers.values())

    try:
        saving(scenario)
    finally:
        for fd in kept:
            os.close(fd)


def test_its_volumes_stay_its_own_though_nothing_runs_in_it(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        mounts = [Mount(target="/d", source="vol")]
        made = plan(spec("b", mounts=mounts))
        await s.call(s.engine.pods.create(replace(made, spec=replace(made.spec, exit_policy="continue"))))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.containers.stop("b", 0))
        await suspend(s, "pod")
        began = asyncio.get_running_loop().time()
        with pytest.raises(Conflict, match="in use by the suspended pod pod"):
            await s.run("c", "sleep", "1000", mounts=mounts)
        assert asyncio.get_running_loop().time() - began < 5
        await resume(s, "pod")

    saving(scenario)


def test_two_resume_it_at_once(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        await suspend(s)
        await asyncio.gather(resume(s), s.call(s.engine.containers.start("a")))
        assert s.status("a") == "running" and len(s.host.machines) == 1

    saving(scenario)


def test_what_has_no_saving_driver_is_refused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000")
        with pytest.raises(Unsupported, match="does not support suspending pods"):
            await suspend(s)

    act(scenario)


def test_a_pod_with_an_image_as_a_volume_is_refused(saving: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", mounts=[Mount(target="/m", type="image", source=IMAGE)])
        with pytest.raises(Unsupported, match=r"pod a has an image as a volume \(sha256:\w+\), which is not saved"):
            await suspend(s)
        assert s.status("a") == "running" and events(s) == ["start"]
        assert not os.path.exists(s.paths.suspended(s.engine.registry.pod("a").id))

    saving(scenario)


def test_networks_are_not_joined_and_left_meanwhile(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not go on with others than it was saved with."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"])))
        id_ = await s.run("a", "sleep", "1000")
        put_away = SavingDriver.put_away
        before = s.engine.registry.pod(id_).attachments

        async def meanwhile(self: Any, machine: Any, stream: int) -> None:
            with pytest.raises(InvalidState, match="pod a is being suspended"):
                await s.engine.connect("a", NetworkRequest(name="net"))
            s.engine.registry.put_pod(replace(s.engine.registry.pod(id_), attachments=[]))  # it was leaving before
            await put_away(self, machine, stream)

        with monkeypatch.context() as patch:
            patch.setattr(SavingDriver, "put_away", meanwhile)
            with pytest.raises(Unsupported, match="has joined or left networks"):
                await suspend(s)
        assert s.status("a") == "running"
        s.engine.registry.put_pod(replace(s.engine.registry.pod(id_), attachments=before))
        await suspend(s)
        await resume(s)

    act(scenario, network="bridge", factory=True)


def test_networks_are_joined_and_left_when_it_runs(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.networks.create(NetworkSpec(name="net", subnets=["10.77.0.0/24"])))
        await s.run("a", "sleep", "1000")
        address = s.engine.registry.pod("a").attachments[0].ip
        await suspend(s)
        with pytest.raises(InvalidState, match="pod a is suspended"):
            await s.call(s.engine.connect("a", NetworkRequest(name="net")))
        await resume(s)
        assert s.engine.registry.pod("a").attachments[0].ip == address
        await s.call(s.engine.connect("a", NetworkRequest(name="net")))

    act(scenario, network="bridge", factory=True)
