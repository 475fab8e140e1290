# SPDX-License-Identifier: Apache-2.0
"""Pods: several containers in one real VM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hypercontainer.errors import HyperError, InvalidState
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import ContainerStatus, PodStatus
from hypercontainer.podfile import strict

from .conftest import DEADLINE, Lab

SLEEP = ["sleep", "1000"]


class Pods:
    """Shorthands; pods are removed at the end of a test."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.engine = lab.engine

    async def create(self, **podfile: Any) -> str:
        for c in [*podfile.get("containers", []), *podfile.get("initContainers", [])]:
            c.setdefault("image", "busybox")
        details = await self.engine.create_pod(strict.decode(podfile))
        return details.pod.id

    async def run(self, **podfile: Any) -> str:
        id_ = await self.create(**podfile)
        await asyncio.wait_for(self.engine.pods.start(id_), DEADLINE)
        return id_

    async def exec(self, name: str, script: str) -> str:
        result = await self.lab.exec(name, "sh", "-c", script)
        assert result.code == 0, (script, result)
        return result.out.strip()

    async def until(self, name: str, *statuses: ContainerStatus) -> None:
        async def wait() -> None:
            while self.engine.registry.container(name).state.status not in statuses:
                await self.engine.registry.changed.wait()

        await asyncio.wait_for(wait(), DEADLINE)


@pytest.fixture
async def pods(lab: Lab) -> AsyncIterator[Pods]:
    made = Pods(lab)
    yield made
    for pod in lab.engine.registry.pods():  # a test may have put another engine in its place
        if not pod.implicit:
            await lab.engine.pods.remove(pod.id, force=True)


async def test_containers_share_a_machine(pods: Pods) -> None:
    await pods.run(id="p", containers=[{"name": "a", "command": SLEEP}, {"name": "b", "command": SLEEP}])
    assert await pods.exec("a", "hostname") == await pods.exec("b", "hostname") == "p"
    assert await pods.exec("a", "readlink /proc/self/ns/ipc") == await pods.exec("b", "readlink /proc/self/ns/ipc")
    assert await pods.exec("a", "readlink /proc/self/ns/mnt") != await pods.exec("b", "readlink /proc/self/ns/mnt")
    await pods.exec("a", "echo mine > /only-here")
    assert (await pods.lab.exec("b", "cat", "/only-here")).code == 1
    assert (await pods.exec("b", "ps | grep -c 'sleep 100[0]'")) == "2"
    await pods.exec("a", "echo shared > /dev/shm/x")
    assert await pods.exec("b", "cat /dev/shm/x") == "shared"
    assert "127.0.0.1\tb" in await pods.exec("a", "cat /etc/hosts")


async def test_ipc_signals_and_loopback(pods: Pods) -> None:
    await pods.run(
        id="p",
        shmSize="8m",
        containers=[
            {"name": "a", "command": SLEEP},
            {
                "name": "b",
                "command": ["sh", "-c", "trap 'echo got-usr1; exit 3' USR1; echo ready; while :; do sleep 0.1; done"],
            },
        ],
    )
    await pods.lab.printed("b", "ready")
    assert await pods.exec("a", "df -k /dev/shm | awk 'END {print $2}'") == "8192"
    await pods.exec("a", "nc -l -p 7000 -e echo hello-from-a >/dev/null 2>&1 &")
    asking = pods.exec("b", "until nc a 7000; do sleep 0.1; done")
    assert await asyncio.wait_for(asking, DEADLINE) == "hello-from-a"
    await pods.exec("a", "kill -USR1 $(ps | awk '/got-usr[1]/ {print $1; exit}')")
    await pods.until("b", ContainerStatus.EXITED)
    assert pods.engine.registry.container("b").state.exit_code == 3
    assert pods.engine.registry.container("a").state.status is ContainerStatus.RUNNING


async def test_the_pod_ends_with_its_last_container(pods: Pods) -> None:
    id_ = await pods.run(
        containers=[{"name": "a", "command": ["sh", "-c", "exit 4"]}, {"name": "b", "command": ["sleep", "1"]}]
    )
    await pods.until("b", ContainerStatus.EXITED)
    owner = pods.engine.containers.supervisor(pods.engine.registry.container("b"))
    await asyncio.wait_for(owner.at_rest.wait(), DEADLINE)
    pod = pods.engine.registry.pod(id_)
    assert (pod.status, pod.vm) == (PodStatus.EXITED, None)
    assert pods.engine.registry.container("a").state.exit_code == 4


async def test_a_pod_may_outlive_its_containers(pods: Pods) -> None:
    id_ = await pods.run(exitPolicy="continue", containers=[{"name": "a", "command": ["true"]}])
    await pods.until("a", ContainerStatus.EXITED)
    assert pods.engine.registry.pod(id_).status is PodStatus.RUNNING
    added = await pods.engine.containers.create(
        ContainerSpec(image="busybox", name="late", pod=id_, command=["sh", "-c", "echo here; sleep 1000"])
    )
    await pods.engine.containers.start("late")
    await pods.lab.printed("late", "here")
    await pods.engine.containers.remove("late", force=True)
    runtime = pods.engine._sandboxes.runtime(id_)
    assert runtime is not None and not any(added.id[:12] in disk for disk in runtime.disks)
    await pods.engine.containers.start("a")
    assert await pods.engine.pods.stop(id_)


async def test_orphans_are_reaped(pods: Pods) -> None:
    id_ = await pods.run(containers=[{"name": "a", "command": SLEEP}])
    orphans = "(sh -c 'sleep 0.1 & echo $! > /one; echo $$ > /two; exec sleep 0.2' &); "
    gone = "for f in /one /two; do while [ ! -s $f ] || [ -e /proc/$(cat $f) ]; do sleep 0.1; done; done"
    await asyncio.wait_for(pods.exec("a", orphans + gone), DEADLINE)
    tree = await pods.engine.monitor.pod_top(id_)
    assert [p.command for p in tree if p.pid == 1] == ["/init"] and any(p.container == "a" for p in tree)


async def test_restart_policies(pods: Pods) -> None:
    count = "n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) > /n; "
    await pods.run(
        containers=[
            {
                "name": "fails-twice",
                "restartPolicy": "onFailure",
                "command": ["sh", "-c", count + "[ $n -ge 2 ] && exec sleep 1000; exit 1"],
            },
            {"name": "gives-up", "restartPolicy": "onFailure", "maxRetries": 2, "command": ["sh", "-c", "exit 9"]},
            {"name": "never", "command": ["sh", "-c", "exit 1"]},
            {
                "name": "always",
                "restartPolicy": "always",
                "command": ["sh", "-c", count + "[ $n -ge 1 ] && exec sleep 1000; exit 0"],
            },
        ]
    )
    registry = pods.engine.registry

    async def all_ended() -> None:
        while [registry.container(n).state.restart_count for n in ("fails-twice", "gives-up", "never", "always")] != [
            2,
            2,
            0,
            1,
        ]:
            await registry.changed.wait()

    await asyncio.wait_for(all_ended(), DEADLINE)
    await pods.until("fails-twice", ContainerStatus.RUNNING)
    await pods.until("always", ContainerStatus.RUNNING)
    await pods.until("gives-up", ContainerStatus.EXITED)
    assert registry.container("gives-up").state.exit_code == 9
    assert await pods.engine.containers.stop("always", 0)
    assert registry.container("always").state.status is ContainerStatus.EXITED


async def test_init_containers_and_order(pods: Pods) -> None:
    await pods.run(
        initContainers=[
            {"name": "i1", "command": ["sh", "-c", "echo 1 > /v/order"], "volumes": [{"volume": "v", "path": "/v"}]},
            {"name": "i2", "command": ["sh", "-c", "echo 2 >> /v/order"], "volumes": [{"volume": "v", "path": "/v"}]},
        ],
        containers=[
            {
                "name": "last",
                "dependsOn": [
                    {"container": "healthy", "condition": "healthy"},
                    {"container": "job", "condition": "completed"},
                ],
                "command": ["sh", "-c", "cat /v/order; sleep 1000"],
                "volumes": [{"volume": "v", "path": "/v"}],
            },
            {
                "name": "healthy",
                "command": ["sh", "-c", "sleep 0.3; echo h >> /v/order; touch /ok; exec sleep 1000"],
                "healthCheck": {"shell": "test -e /ok", "interval": "100ms", "retries": 100},
                "volumes": [{"volume": "v", "path": "/v"}],
            },
            {
                "name": "job",
                "command": ["sh", "-c", "sleep 0.1; echo j >> /v/order"],
                "volumes": [{"volume": "v", "path": "/v"}],
            },
        ],
        volumes=[{"name": "v"}],
    )
    await pods.lab.printed("last", "h")
    order = (await pods.exec("last", "cat /v/order")).split()
    assert order[:2] == ["1", "2"] and sorted(order[2:]) == ["h", "j"]


async def test_a_failed_init_container_stops_the_pod(pods: Pods) -> None:
    id_ = await pods.create(
        initContainers=[{"name": "migrate", "command": ["sh", "-c", "echo no database >&2; exit 5"]}],
        containers=[{"name": "web", "command": SLEEP}],
    )
    with pytest.raises(HyperError, match="init container migrate ended with status 5: no database"):
        await pods.engine.pods.start(id_)
    pod = pods.engine.registry.pod(id_)
    assert pod.status is PodStatus.FAILED and pod.vm is None and "migrate" in pod.error
    assert pods.engine.registry.container("web").state.status is ContainerStatus.CREATED


async def test_a_dependency_that_cannot_be_met(pods: Pods) -> None:
    id_ = await pods.create(
        containers=[
            {"name": "web", "command": SLEEP, "dependsOn": [{"container": "job", "condition": "completed"}]},
            {"name": "job", "command": ["sh", "-c", "echo broken; exit 2"]},
        ]
    )  # fmt: skip
    with pytest.raises(HyperError, match="web waits for job to be completed, but it ended with status 2: broken"):
        await pods.engine.pods.start(id_)


async def test_health_by_tcp_http_and_liveness(pods: Pods) -> None:
    serve = "mkdir -p /www; echo fine > /www/ok; httpd -p 8000 -h /www; sleep 1000"
    await pods.run(
        containers=[
            {
                "name": "web",
                "command": ["sh", "-c", serve],
                "healthCheck": {"http": {"port": 8000, "path": "/ok"}, "interval": 0.1},
            },
            {
                "name": "wrong",
                "command": SLEEP,
                "healthCheck": {"http": {"port": 8000, "path": "/gone"}, "interval": 0.1, "retries": 2},
            },
            {"name": "port", "command": SLEEP, "healthCheck": {"tcp": {"port": 8000}, "interval": 0.1}},
            {"name": "closed", "command": SLEEP, "healthCheck": {"tcp": {"port": 8001}, "interval": 0.1, "retries": 1}},
            {
                "name": "stuck",
                "command": ["sh", "-c", "[ -e /was ] && exec sleep 1000; touch /was; exec sleep 999"],
                "livenessCheck": {"shell": "! ps | grep -q 'sleep 99[9]'", "interval": 0.2, "retries": 2},
                "stopTimeout": 0,
            },
        ]
    )
    registry = pods.engine.registry

    def status(name: str) -> str:
        health = registry.container(name).state.health
        return health.status if health else ""

    async def all_ended() -> None:
        while [status(n) for n in ("web", "wrong", "port", "closed")] != [
            "healthy",
            "unhealthy",
            "healthy",
            "unhealthy",
        ]:
            await registry.changed.wait()
        while registry.container("stuck").state.restart_count != 1:
            await registry.changed.wait()

    await asyncio.wait_for(all_ended(), DEADLINE)
    health = registry.container("wrong").state.health
    assert health is not None and "404" in health.log[-1].output and len(health.log) <= 5


async def test_a_container_out_of_memory_ends_alone(pods: Pods) -> None:
    await pods.run(
        containers=[
            {"name": "greedy", "limits": {"memory": 32}, "command": ["tail", "/dev/zero"]},
            {"name": "calm", "command": SLEEP},
        ]
    )  # fmt: skip
    await pods.until("greedy", ContainerStatus.EXITED)
    state = pods.engine.registry.container("greedy").state
    assert (state.exit_code, state.oom_killed) == (137, True)
    assert pods.engine.registry.container("calm").state.status is ContainerStatus.RUNNING
    assert await pods.exec("calm", "echo alive") == "alive"


async def test_pause_stops_the_whole_machine(pods: Pods) -> None:
    id_ = await pods.run(containers=[{"name": "a", "command": SLEEP}])
    await pods.engine.pods.pause(id_)
    assert pods.engine.registry.pod(id_).status is PodStatus.PAUSED
    await pods.engine.pods.unpause(id_)
    assert await pods.exec("a", "echo on") == "on"


async def test_a_paused_pod_outlives_the_daemon(pods: Pods, config: Config) -> None:
    id_ = await pods.run(containers=[{"name": "a", "command": SLEEP}])
    await pods.engine.pods.pause(id_)
    with pytest.raises(InvalidState, match="is paused: use `hyperctl pod unpause"):
        await pods.engine.containers.stop("a")
    await pods.engine.close(keep_running=True)
    pods.lab.engine = pods.engine = build_engine(config)
    await pods.engine.open()
    assert pods.engine.registry.pod(id_).status is PodStatus.PAUSED
    await pods.engine.pods.unpause(id_)
    assert await pods.exec("a", "echo on") == "on"
    await pods.engine.pods.pause(id_)  # a daemon that ends can stop it all the same


async def test_eight_containers(pods: Pods) -> None:
    id_ = await pods.run(containers=[{"name": f"c{i}", "command": SLEEP} for i in range(8)])
    stats = await pods.engine.monitor.pod_stats(id_)
    assert sorted(s.name for s in stats) == [f"c{i}" for i in range(8)] and all(s.pids >= 1 for s in stats)


async def test_a_daemon_takes_up_a_pod(pods: Pods, config: Config) -> None:
    id_ = await pods.run(
        containers=[
            {"name": "a", "command": ["sh", "-c", "while :; do echo tick; sleep 0.2; done"]},
            {"name": "b", "command": SLEEP},
        ],
        volumes=[{"name": "v"}],
    )
    await pods.lab.engine.close(keep_running=True)
    engine = build_engine(config)
    pods.lab.engine = pods.engine = engine
    await engine.open()
    assert engine.registry.pod(id_).status is PodStatus.RUNNING
    assert await pods.exec("b", "hostname") == engine.registry.pod(id_).hostname
    assert await engine.pods.stop(id_, 0)
