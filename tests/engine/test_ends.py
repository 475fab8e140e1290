# SPDX-License-Identifier: Apache-2.0
"""An end that is asked for comes, whatever the guest, the policy or a pause does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hypercontainer.guest.fake import Refused
from hypercontainer.model.pods import PodPlan, PodSpec
from hypercontainer.model.specs import ExecSpec, Mount, RestartPolicy
from hypercontainer.protocol.constants import GuestCode, Type
from hypercontainer.sys import clock

from .scenes import PARTNERS, spec
from .stage import Stage
from .test_lives import logged, plan


@pytest.mark.parametrize("answers", [True, False], ids=["guest answers", "guest stands still"])
def test_stop_while_the_policy_starts_it_again(act: Any, answers: bool) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "after", "1", "3", restart=RestartPolicy(name="always"))
        await asyncio.sleep(1.05)  # in the back-off
        assert s.status("a") == "restarting"
        if not answers:
            s.machine("a").wedge()
            await asyncio.sleep(1)  # in the start
        began = asyncio.get_running_loop().time()
        assert await s.call(s.engine.containers.stop("a", 1))
        assert asyncio.get_running_loop().time() - began < 6 + (10 if not answers else 0)
        assert s.status("a") == "exited"

    act(scenario)


@pytest.mark.parametrize("verb", ["stop", "kill", "remove"])
@pytest.mark.parametrize("how", ["running", "stopping", "paused"])
def test_a_guest_that_stands_still_is_ended_in_time(act: Any, verb: str, how: str) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", "ignore-term")
        verbs = s.engine.containers
        if how == "paused":
            await s.call(verbs.pause("a"))
        s.machine("a").wedge()
        before = asyncio.ensure_future(s.call(verbs.stop("a", 1000))) if how == "stopping" else None
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        if verb == "stop":
            await s.call(verbs.stop("a", 3))
        elif verb == "kill":
            await s.call(verbs.kill("a", "KILL"))
        else:
            await s.call(verbs.remove("a", force=True))
        assert asyncio.get_running_loop().time() - began < 5 + (3.5 if verb == "stop" else 0)
        assert not s.engine.registry.exists(id_) if verb == "remove" else s.status("a") == "exited"
        if before:
            assert await before

    act(scenario)


def test_a_paused_pod_that_does_not_wake_up_is_stopped(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan("a", "b")))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.pods.pause("pod"))
        s.machine("a").wedge()
        assert await s.call(s.engine.pods.stop("pod", 1))
        assert {s.status("a"), s.status("b")} == {"exited"} and not s.host.machines

    act(scenario)


def test_the_daemon_ends_though_a_paused_pod_does_not_wake_up(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan("a", "b")))
        await s.call(s.engine.pods.start("pod"))
        await s.run("well")
        await s.call(s.engine.pods.pause("pod"))
        s.machine("a").wedge()
        await s.close()
        assert not s.host.machines
        await s.open()
        assert s.status("well") == "exited"

    act(scenario)


def test_a_connection_that_breaks_is_opened_again(act: Any) -> None:
    """What runs does not notice: its input, output and end go over the next one; so do those of an exec."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "cat", stdin=True)
        owner = s.engine.containers.supervisor(s.engine.registry.container("a"))
        exec_ = s.engine.execs.create("a", ExecSpec(command=["cat"], stdin=True))
        reader = exec_.fan_out.attach()
        await s.call(s.engine.execs.start(exec_))
        assert owner.fan_out.handle and exec_.handle
        for number in range(3):
            await s.call(owner.fan_out.handle.write_stdin(b"%d\n" % number))
            await s.call(exec_.handle.write_stdin(b"%d\n" % number))
            s.machine("a").hang_up()
            await asyncio.sleep(20)
            assert s.status("a") == "running"
        owner.fan_out.handle.close_stdin()
        exec_.handle.close_stdin()
        assert b"".join([data async for _, data in reader]) == b"0\n1\n2\n"
        assert await s.call(s.engine.containers.wait("a")) == 0
        assert await logged(s, "a") == "0\n1\n2\n"

    act(scenario)


def test_a_connection_that_breaks_for_ever_ends_the_machine(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        for _ in range(10):
            if s.host.machines:
                s.machine("a").hang_up()
            await asyncio.sleep(1)
        assert await s.call(s.engine.containers.wait("a")) == 255
        assert not s.host.machines

    act(scenario)


def test_a_guest_that_breaks_the_protocol_is_ended_and_that_is_said(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        s.guest(s.machine("a")).break_protocol()
        assert await s.call(s.engine.containers.wait("a")) == 255
        error = s.engine.registry.container("a").state.error
        assert error.startswith("the virtual machine ended unexpectedly: its guest broke the protocol: "), error
        assert not s.host.machines

    act(scenario)


@pytest.mark.parametrize("users", [True, False])
def test_the_log_says_how_a_machine_ended_that_nobody_ended(
    act: Any, caplog: pytest.LogCaptureFixture, users: bool
) -> None:
    """Of a container with --rm nothing else does."""

    async def scenario(s: Stage) -> None:
        if users:
            await s.run("a", auto_remove=True)
        else:
            plan = PodPlan(name="pod", containers=[spec("a", "true")], spec=PodSpec(exit_policy="continue"))
            await s.call(s.engine.pods.create(plan))
            await s.call(s.engine.pods.start("pod"))
            await s.call(s.engine.containers.wait("a"))
        machine = next(iter(s.host.machines.values()))
        machine.die("panic")
        await asyncio.sleep(5)
        name = "a" if users else "pod"
        says = f"the machine of pod {name} (process {machine.pid}) ended by SIGKILL, and nobody had ended it: panic"
        assert [r.message for r in caplog.records if "nobody" in r.message] == [says]

    act(scenario)


@pytest.mark.parametrize("verb", ["stop", "kill", "rm -f"])
def test_of_a_machine_that_was_ended_the_log_says_nothing(
    act: Any, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        await s.call(PARTNERS[verb](s))
        await asyncio.sleep(5)
        assert not s.host.machines and "machine of pod" not in caplog.text

    act(scenario)


def test_a_paused_pod_whose_connection_breaks_stays_paused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan("a")))
        await s.call(s.engine.pods.start("pod"))
        await s.call(s.engine.pods.pause("pod"))
        s.machine("a").hang_up()
        await asyncio.sleep(20)
        assert s.machine("a").paused
        await s.call(s.engine.pods.unpause("pod"))
        assert s.status("a") == "running"

    act(scenario)


@pytest.mark.parametrize("policy", ["leave", "kill"])
def test_a_guest_that_is_silent_is_told_as_unresponsive(act: Any, policy: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        s.machine("a").wedge()
        await asyncio.sleep(60)
        if policy == "kill":
            assert s.status("a") == "exited" and not s.host.machines
            return
        assert s.engine.registry.container("a").state.unresponsive
        s.machine("a").unwedge()
        await asyncio.sleep(30)
        assert not s.engine.registry.container("a").state.unresponsive and s.status("a") == "running"

    act(scenario, kill_silent=policy == "kill")


def test_disks_whose_requests_fail_are_told_of(act: Any) -> None:
    """Once when that begins, and again when it does after a while without."""

    async def scenario(s: Stage) -> None:
        def told() -> list[tuple[str, str]]:
            found = [e.attributes for e in s.engine.events.past() if e.action == "disk_error"]
            return [(a["disk"], a["failed"]) for a in found]

        await s.run("a", mounts=[Mount(target="/d", source="data")])
        await asyncio.sleep(25)
        assert told() == []
        failed = s.machine("a").disk_errors
        slots = {serial[0]: serial for serial in s.machine("a").disks}
        for n in (2, 7):
            failed |= {slots["i"]: n, slots["v"]: n}
            await asyncio.sleep(10)
        assert sorted(told()) == [("the image of a", "2"), ("volume data", "2")]
        await asyncio.sleep(20)
        failed[slots["i"]], failed[slots["s"]] = 8, 1
        await asyncio.sleep(10)
        assert sorted(told()[2:]) == [("container a", "1"), ("the image of a", "8")]
        assert s.status("a") == "running"

    act(scenario)


def test_wait_as_docker_does_with_a_policy(act: Any) -> None:
    """A program's end is one, though it is started again; while it waits for that, it counts as running."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "after", "1", "3", restart=RestartPolicy(name="on-failure", max_retries=2))
        began = clock.seconds()
        assert await s.call(s.engine.containers.wait("a")) == 3
        assert clock.seconds() - began < 1.05 and s.status("a") == "restarting"
        assert await s.call(s.engine.containers.wait("a")) == 3  # of its second run
        assert clock.seconds() - began > 2 and s.status("a") == "restarting"
        assert await s.call(s.engine.containers.wait("a")) == 3
        assert s.status("a") == "exited" and s.engine.registry.container("a").state.restart_count == 2
        assert await s.call(s.engine.containers.wait("a")) == 3

    act(scenario)


@pytest.mark.parametrize("verb", ["stop", "remove"])
def test_who_waits_for_what_is_not_started_again(act: Any, verb: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "exit", "3", restart=RestartPolicy(name="always"))
        await asyncio.sleep(65)  # it is a minute by now until it is started again
        assert s.status("a") == "restarting"
        waiting = asyncio.ensure_future(s.call(s.engine.containers.wait("a")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        began = clock.seconds()
        if verb == "stop":
            await s.call(s.engine.containers.stop("a"))
        else:
            await s.call(s.engine.containers.remove("a", force=True))
        assert await waiting == 3 and clock.seconds() - began < 5

    act(scenario)


@pytest.mark.parametrize(
    ("policy", "ends"), [(RestartPolicy(name="always"), False), (RestartPolicy(name="on-failure", max_retries=3), True)]
)
def test_a_start_by_the_policy_that_fails_is_tried_again(act: Any, policy: RestartPolicy, ends: bool) -> None:
    """By its back-off, in another machine; each failure is told, and counts where the policy counts."""

    async def scenario(s: Stage) -> None:
        await s.run("a", "after", "1", "3", restart=policy)
        first = s.machine("a")
        no = Refused(GuestCode.SYSTEM, "fork: no memory")
        s.guest(first).refused[Type.PROCESS_START] = no
        while not s.engine.registry.container("a").state.error:
            await asyncio.sleep(0.01)
        state = s.engine.registry.container("a").state
        assert (state.status, state.exit_code, state.error) == ("restarting", 125, "fork: no memory")
        told = [e.attributes["error"] for e in s.engine.events.past() if e.action == "start_failed"]
        assert told == ["fork: no memory"]
        if ends:
            while s.status("a") != "exited":
                await asyncio.sleep(0.05)
            assert s.engine.registry.container("a").state.restart_count == 3
            return
        while s.status("a") != "running":
            await asyncio.sleep(0.05)
        assert s.machine("a") is not first and s.engine.registry.container("a").state.error == ""
        await s.call(s.engine.containers.stop("a", 1))

    act(scenario)


def test_a_program_that_cannot_be_executed_any_longer_is_the_end(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "after", "1", "3", restart=RestartPolicy(name="always"))
        no = Refused(GuestCode.EXEC, "exec: no such file", status=127)
        s.guest(s.machine("a")).refused[Type.PROCESS_START] = no
        await asyncio.sleep(2)
        state = s.engine.registry.container("a").state
        assert (state.status, state.exit_code, state.error) == ("exited", 127, "exec: no such file")

    act(scenario)


def test_what_ends_with_the_daemon_is_there_with_the_next_one_by_its_policy(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        for name, policy in (
            ("a", "always"),
            ("b", "unless-stopped"),
            ("c", "unless-stopped"),
            ("d", "no"),
            ("e", "always"),
        ):
            await s.run(name, "sleep", "1000", restart=RestartPolicy(name=policy))
        for name in ("c", "e"):
            await s.call(s.engine.containers.stop(name))
        for _ in range(2):  # by the record of its own last end, not of one before
            await s.close()
            await s.open()
            await asyncio.sleep(30)
            states = {c.name: c.state.status for c in s.engine.registry.containers()}
            assert states == {**dict.fromkeys("ab", "running"), **dict.fromkeys("cde", "exited")}
        await s.call(s.engine.containers.stop("a"))
        await s.call(s.engine.containers.stop("b"))
        await s.close()
        await s.open()
        await asyncio.sleep(30)
        assert {c.state.status for c in s.engine.registry.containers()} == {"exited"}

    act(scenario)
