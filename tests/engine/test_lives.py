# SPDX-License-Identifier: Apache-2.0
"""The lives of containers and pods, as users know them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hypercontainer.errors import InvalidState, StartFailed
from hypercontainer.model.pods import PodPlan
from hypercontainer.model.specs import ContainerSpec, ExecSpec, HealthCheck, PortMapping, RestartPolicy

from .stage import IMAGE, Stage

Scenario = Callable[[Stage], Awaitable[None]]


async def logged(s: Stage, key: str) -> str:
    async def read() -> str:
        lines = s.engine.logs(key, tail=None, since="", until="", follow=False)
        return "".join([r.log async for records in lines for r in records])

    return await s.call(read())


def test_output_is_logged_and_the_exit_code_told(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "echo", "hello")
        assert await s.call(s.engine.containers.wait("a")) == 0
        assert await logged(s, "a") == "hello\n"
        await s.run("b", "exit", "7")
        assert await s.call(s.engine.containers.wait("b")) == 7

    act(scenario)


def test_a_program_that_is_not_there(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.create("a", "nothing-such")
        with pytest.raises(StartFailed, match="not found"):
            await s.call(s.engine.containers.start("a"))
        assert s.engine.registry.container("a").state.exit_code == 127

    act(scenario)


@pytest.mark.parametrize(("program", "takes"), [("sleep 100", 0), ("ignore-term", 10), ("graceful 3", 3)])
def test_stop_waits_as_long_as_it_must(act: Any, program: str, takes: float) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", *program.split())
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await s.call(s.engine.containers.stop("a"))
        assert takes <= loop.time() - began < takes + 1
        assert s.status("a") == "exited"

    act(scenario)


def test_a_hundred_seconds_cost_none(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "100")
        assert await s.call(s.engine.containers.wait("a")) == 0
        assert asyncio.get_running_loop().time() > 100

    act(scenario)


def test_exec_in_a_running_container(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        exec_ = s.engine.execs.create("a", ExecSpec(command=["cat"], stdin=True))
        reader = exec_.fan_out.attach()
        await s.call(s.engine.execs.start(exec_))
        assert exec_.handle
        await s.call(exec_.handle.write_stdin(b"x" * 300_000))
        exec_.handle.close_stdin()
        assert b"".join([data async for _, data in reader]) == b"x" * 300_000
        await s.call(exec_.ended.wait())
        assert exec_.exit_code == 0

    act(scenario)


def test_pause_holds_a_program_and_unpause_lets_it_go(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "10")
        await s.call(s.engine.containers.pause("a"))
        await asyncio.sleep(60)
        assert s.status("a") == "paused"
        with pytest.raises(InvalidState, match="is paused"):
            await s.call(s.engine.containers.start("a"))
        await s.call(s.engine.containers.unpause("a"))
        assert await s.call(s.engine.containers.wait("a")) == 0

    act(scenario)


def test_a_policy_starts_again_and_stop_ends_that(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "after", "1", "3", restart=RestartPolicy(name="always"))
        await asyncio.sleep(20)
        assert s.engine.registry.container("a").state.restart_count > 3
        await s.call(s.engine.containers.stop("a"))
        await asyncio.sleep(20)
        assert s.status("a") == "exited"

    act(scenario)


def test_health_is_followed(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        check = HealthCheck(command=["false"], interval=5, retries=2)
        await s.run("a", health=check)
        await asyncio.sleep(30)
        health = s.engine.registry.container("a").state.health
        assert health and health.status == "unhealthy"

    act(scenario)


def test_a_machine_that_dies_ends_its_container(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        s.machine("a").die("Kernel panic")
        assert await s.call(s.engine.containers.wait("a")) == 255
        assert "Kernel panic" in s.engine.registry.container("a").state.error

    act(scenario)


def plan(*names: str, **spec: Any) -> PodPlan:
    return PodPlan(
        name="pod", containers=[ContainerSpec(image=IMAGE, name=n, command=["sleep", "100000"]) for n in names], **spec
    )


def test_a_pod_of_two(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.call(s.engine.pods.create(plan("a", "b")))
        await s.call(s.engine.pods.start("pod"))
        assert {s.status("a"), s.status("b")} == {"running"} and len(s.host.machines) == 1
        await s.call(s.engine.pods.pause("pod"))
        await s.call(s.engine.pods.unpause("pod"))
        await s.call(s.engine.containers.stop("a"))
        await s.call(s.engine.containers.remove("a"))
        await s.call(s.engine.pods.stop("pod", 1))
        assert s.status("b") == "exited" and not s.host.machines

    act(scenario)


@pytest.mark.parametrize("network", ["user", "bridge"])
def test_published_ports(act: Any, network: str) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", ports=[PortMapping(container_port=80)])
        port = s.engine.registry.container(id_).ports[0].host_port
        assert port
        if network == "user":
            assert [p.host_port for p in s.host.ports()] == [port]
        else:
            assert s.kernel.present() == [a.tap for a in s.engine.registry.pod(id_).attachments]

    act(scenario, network=network)


def test_each_pod_of_a_network_has_addresses_of_its_own(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        pods = [s.engine.registry.pod(await s.run(name)) for name in ("a", "b", "c")]
        found = [x for p in pods for a in p.attachments for x in (a.ip, a.ip6)]
        assert all(found) and len(set(found)) == 6

    act(scenario, network="bridge")


@pytest.mark.parametrize("how", ["close", "kill"])
def test_the_next_daemon_goes_on_with_what_runs(act: Any, how: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "cat", stdin=True)
        await s.run("b", "after", "5", "9")
        if how == "close":
            await s.close(keep_running=True)
        else:
            s.kill()
        await asyncio.sleep(30)
        await s.open()
        assert s.status("a") == "running"
        assert await s.call(s.engine.containers.wait("b")) == 9
        handle = s.engine.containers.supervisor(s.engine.registry.container("a")).fan_out.handle
        assert handle
        await s.call(handle.write_stdin(b"after all\n"))
        handle.close_stdin()
        assert await s.call(s.engine.containers.wait("a")) == 0
        assert await logged(s, "a") == "after all\n"

    act(scenario)
