# SPDX-License-Identifier: Apache-2.0
"""What comes while something else is under way: machines that end, starts that are given up, verbs in line."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from hypercontainer.engine import container_runs
from hypercontainer.engine import execs as execs_
from hypercontainer.engine.sandbox import Sandbox
from hypercontainer.errors import Conflict, DeadlineExceeded, HyperError, InvalidArgument, InvalidState
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.specs import ExecSpec, HealthCheck, InjectedFile, Mount, PortMapping, RestartPolicy
from hypercontainer.protocol.constants import Type

from .scenes import plan, spec
from .stage import Stage


def begin(s: Stage, work: Any) -> asyncio.Task[Any]:
    assert s.daemon
    task = s.daemon.call(work)
    task.add_done_callback(lambda t: t.cancelled() or t.exception())
    return task


async def pod(s: Stage, *containers: Any, start: bool = True, **how: Any) -> None:
    await s.call(s.engine.pods.create(plan(*(containers or (spec("a"),)), **how)))
    if start:
        await s.call(s.engine.pods.start("pod"))


# -- machines ------------------------------------------------------------------------


def test_a_machine_that_nobody_uses_ends_by_itself(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("a", "true"), spec=PodSpec(exit_policy="continue"))
        await s.call(s.engine.containers.wait("a"))
        s.machine("pod").die("Kernel panic")
        await asyncio.sleep(5)
        found = s.engine.registry.pod("pod")
        assert (found.status, found.error) == ("exited", "the virtual machine ended unexpectedly") and found.vm is None
        await s.call(s.engine.pods.start("pod"))
        assert len(s.host.machines) == 1

    act(scenario)


def test_a_start_just_when_its_machine_ends_gets_another(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("a"), spec("b"))
        await s.call(s.engine.containers.stop("b", 0))
        first = s.machine("pod").pid
        s.machine("pod").die()
        for _ in range(20):  # in each of the turns of the loop in which the end becomes known
            task = begin(s, s.engine.containers.start("b"))
            await asyncio.sleep(0)
            if task.done():
                break
        await asyncio.sleep(30)
        await s.call(s.engine.containers.start("b"))
        assert s.status("b") == "running" and s.machine("pod").pid != first

    act(scenario)


def test_a_machine_that_ends_while_its_connection_is_opened_again(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", restart=RestartPolicy(name="always"))
        machine = s.machine("a")
        machine.hang_up()
        await asyncio.sleep(0.01)
        machine.die()
        await asyncio.sleep(60)
        assert s.status("a") == "running" and s.machine("a").pid != machine.pid  # its policy started it again

    act(scenario)


def test_a_pause_whose_machine_ends_meanwhile(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s)
        pausing = begin(s, s.engine.pods.pause("pod"))
        for _ in range(3):
            await asyncio.sleep(0)
        s.machine("pod").die()
        await asyncio.wait([pausing], timeout=60)
        assert isinstance(pausing.exception(), HyperError)
        await asyncio.sleep(5)
        assert s.engine.registry.pod("pod").status == "exited"

    act(scenario)


def test_a_boot_that_cannot_be_recorded_leaves_no_machine(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.create("a")

        def fails(self: Sandbox) -> None:
            raise InvalidState("no")

        with monkeypatch.context() as broken:
            broken.setattr(Sandbox, "_record_boot", fails)
            with pytest.raises(InvalidState, match="no"):
                await s.call(s.engine.containers.start("a"))
        await asyncio.sleep(5)
        assert not s.host.machines and s.status("a") == "exited"
        await s.call(s.engine.containers.start("a"))

    act(scenario)


# -- containers in line for one guest ---------------------------------------------------


def test_those_who_wait_in_line_for_a_guest_hear_of_its_end(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s)
        for name in ("b", "c", "d"):
            await s.create(name, pod="pod")
        s.silent.add(Type.CONTAINER_CREATE)
        starts = [begin(s, s.engine.containers.start(n)) for n in ("b", "c", "d")]
        await asyncio.sleep(1)
        starts[1].cancel()  # it has not come to it yet
        await asyncio.wait([starts[1]], timeout=10)
        assert starts[1].done() and not starts[0].done()
        s.silent.clear()
        await s.call(s.engine.pods.stop("pod", 0))
        await asyncio.wait(starts, timeout=10)
        assert all(t.done() and (t.cancelled() or isinstance(t.exception(), HyperError)) for t in starts)
        await s.call(s.engine.pods.start("pod"))
        assert {s.status(n) for n in ("a", "b", "c", "d")} == {"running"}

    act(scenario)


def test_one_of_two_who_wait_for_a_boot_gives_up(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, spec("a"), spec("b"), start=False)
        s.silent.add(Type.HELLO)
        starts = [begin(s, s.engine.containers.start(n)) for n in ("a", "b")]
        await asyncio.sleep(1)
        starts[0].cancel()
        await asyncio.wait([starts[0]], timeout=10)
        s.silent.clear()
        await asyncio.wait(starts, timeout=60)
        if starts[1].exception():  # nothing answered the first time
            await s.call(s.engine.containers.start("b"))
        assert s.status("b") == "running" and s.status("a") == "exited"

    act(scenario)


def test_one_of_two_who_start_a_container_gives_up(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.create("a")
        starts = [begin(s, s.engine.containers.start("a")) for _ in range(2)]
        await asyncio.sleep(0.01)
        starts[0].cancel()
        await asyncio.wait(starts, timeout=60)
        assert starts[1].result() is not None and s.status("a") == "running"

    act(scenario)


def test_a_member_is_removed_by_force_while_its_files_are_copied(act: Any) -> None:
    """The machine is the pod's: the copy comes to its end first."""

    async def scenario(s: Stage) -> None:
        await pod(s, start=False)
        held = asyncio.Event()

        async def slow() -> Any:
            yield b"\0" * 512
            await held.wait()

        copy = begin(s, s.engine.archives.write("a", "/srv", slow()))
        await asyncio.sleep(5)
        removal = begin(s, s.engine.containers.remove("a", force=True))
        await asyncio.sleep(5)
        assert not removal.done()
        held.set()
        await asyncio.wait([copy, removal], timeout=60)
        assert copy.exception() is None and removal.exception() is None
        assert [c.name for c in s.engine.registry.containers()] == []

    act(scenario)


def test_two_of_one_name_at_once(act: Any) -> None:
    mounts = [Mount(target="/x", source="vol")]

    async def scenario(s: Stage) -> None:
        async with s.engine.volumes._alone("vol"):  # somebody else makes a volume meanwhile
            tasks = [begin(s, s.engine.containers.create(spec("a", mounts=mounts))) for _ in range(2)]
            await asyncio.sleep(1)
        await asyncio.wait(tasks)
        (error,) = [t.exception() for t in tasks if t.exception()]
        assert isinstance(error, Conflict) and "is about to be taken by another container" in str(error)
        with pytest.raises(InvalidArgument, match="container a has that name already"):
            s.engine.containers.rename("a", "a")
        await pod(s, spec("b"), start=False)
        with pytest.raises(Conflict, match="the name 'pod' is taken by another pod"):
            await s.call(s.engine.pods.create(plan(spec("c"))))
        s.engine.containers.rename("b", "c")
        assert s.engine.registry.pod("pod").name == "pod"
        assert s.engine.registry.pod(s.engine.registry.pod("pod").id[:10]).name == "pod"

    act(scenario)


# -- what was left ------------------------------------------------------------------------


def test_a_machine_that_answers_after_all_is_ended_where_that_was_asked_for(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", restart=RestartPolicy(name="always"))
        machine = s.machine("a")
        s.kill()
        machine.wedge()
        await s.open()
        stopping = begin(s, s.engine.containers.stop("a"))
        machine.unwedge()
        await asyncio.wait([stopping], timeout=60)
        assert stopping.result() and s.status("a") == "exited" and not s.host.machines

    act(scenario)


def test_a_volume_serves_one_machine_at_a_time(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        mount = Mount(target="/x", source="vol")
        await s.run("a", mounts=[mount])
        await s.create("b", mounts=[mount])
        with pytest.raises(Conflict, match="volume vol is in use by the running pod"):
            await s.call(s.engine.containers.start("b"))
        stopping = begin(s, s.engine.containers.stop("a", 0))
        while s.status("b") != "running":  # as soon as nobody uses the machine before, it is waited for
            with contextlib.suppress(Conflict):
                await s.call(s.engine.containers.start("b"))
        await stopping
        assert (s.status("a"), s.status("b")) == ("exited", "running")

    act(scenario)


# -- programs -------------------------------------------------------------------------------


def test_a_program_that_is_gone_when_its_policy_starts_it_again(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "after", "1", "3", restart=RestartPolicy(name="always"))
        s.guest(s.machine("a")).programs.pop("after")
        await asyncio.sleep(10)
        state = s.engine.registry.container("a").state
        assert state.status == "exited" and "executable file not found" in state.error and not s.host.machines

    act(scenario)


def test_a_signal_that_the_guest_does_not_take(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        s.silent.add(Type.PROCESS_SIGNAL)
        with pytest.raises(DeadlineExceeded):
            await s.call(s.engine.containers.kill("a", "USR1"))
        s.silent.clear()
        assert s.status("a") == "running"

    act(scenario)


def test_a_container_that_cannot_be_followed_is_ended(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(run: Any) -> Any:
        await asyncio.sleep(1)
        raise RuntimeError("a mistake of ours")

    async def scenario(s: Stage) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(container_runs, "outcome", fails)
            await s.run("a", health=HealthCheck(command=["true"], interval=1))
            await asyncio.sleep(10)
        state = s.engine.registry.container("a").state
        assert state.status == "exited" and "hyperd failed to follow the container" in state.error
        assert not s.host.machines

    act(scenario)


def test_further_processes_are_forgotten_and_end_with_the_daemon(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs_, "_KEPT", 2)

    async def scenario(s: Stage) -> None:
        await s.run("a")
        execs = s.engine.execs
        with pytest.raises(InvalidArgument, match="no command specified"):
            execs.create("a", ExecSpec(command=[]))
        made = []
        for _ in range(4):
            made.append(execs.create("a", ExecSpec(command=["true"])))
            await s.call(execs.start(made[-1]))
            await s.call(made[-1].ended.wait())
        execs.create("a", ExecSpec(command=["true"]))
        assert [e.id in execs._execs for e in made] == [False, False, True, True]
        with pytest.raises(InvalidState, match="is not running"):  # it has ended
            await s.call(execs.resize(made[-1].id, 24, 80))
        lasting = execs.create("a", ExecSpec(command=["sleep", "1000"]))
        await s.call(execs.start(lasting))
        await s.close(keep_running=True)
        assert lasting.ended.is_set()
        await s.open()
        assert s.status("a") == "running" and len(s.guest(s.machine("a")).alive()) == 1  # what nobody follows is ended

    act(scenario)


def test_a_volume_leaves_a_running_pod_with_the_last_container_that_has_it(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s)
        machine = s.machine("pod")
        disks, mounted = set(machine.disks), dict(s.guest(machine).volumes)
        shared, tmpfs = Mount(target="/x", source="vol"), Mount(target="/t", type="tmpfs")
        for name in ("b", "c"):
            await s.run(name, pod="pod", mounts=[shared, tmpfs])
        assert len(s.guest(machine).volumes) == len(mounted) + 1 and len(machine.disks) == len(disks) + 5
        await s.call(s.engine.containers.remove("b", force=True))
        assert len(s.guest(machine).volumes) == len(mounted) + 1 and len(machine.disks) == len(disks) + 3
        await s.create("d", pod="pod", mounts=[shared])
        await s.call(s.engine.containers.remove("d"))  # it never was in the guest
        await s.call(s.engine.containers.remove("c", force=True))
        assert s.guest(machine).volumes == mounted and set(machine.disks) == disks
        await s.run("e", mounts=[shared])  # it is free, while the pod runs
        assert s.status("a") == s.status("e") == "running"

    act(scenario)


def test_what_a_container_of_a_pod_may_not_ask_for(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await pod(s, start=False)
        await s.create("alone")
        with pytest.raises(InvalidArgument, match="ports are published by the pod"):
            await s.create("b", pod="pod", ports=[PortMapping(container_port=80)])
        alone = s.engine.registry.pod(s.engine.registry.container("alone").pod).id
        with pytest.raises(InvalidState, match="is a container of its own, no pod"):
            await s.create("b", pod=alone)
        await s.create("big", secrets=[], files=[InjectedFile(target="/x", content=b"x" * (2 << 20))], read_only=True)
        with pytest.raises(InvalidArgument, match="the secrets and files of container big have"):
            await s.call(s.engine.containers.start("big"))

    act(scenario)
