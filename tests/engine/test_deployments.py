# SPDX-License-Identifier: Apache-2.0
"""Deployments over fakes: as many replicas as there are to be, whatever ends; updates, and what fails of them."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest
from dnslib import DNSRecord
from msgspec.structs import replace

from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import Conflict, HyperError, InvalidArgument, InvalidState, NotFound, QuotaExceeded
from hypercontainer.model.deployments import (
    BalancedPort,
    DeploymentInfo,
    DeploymentRequest,
    DeploymentUpdate,
    UpdatePolicy,
)
from hypercontainer.model.network import NetworkRequest, NetworkSpec
from hypercontainer.model.principal import Principal
from hypercontainer.model.quotas import Quota
from hypercontainer.model.specs import ContainerSpec, HealthCheck, PortMapping
from hypercontainer.model.tenancy import OrganisationRequest, ProjectRequest
from hypercontainer.network.dns import NameServer

from .stage import IMAGE, Stage

PORT = BalancedPort(port=80, target=8080)
SLEEP = ContainerSpec(image=IMAGE, command=["sleep", "1000000"])


async def made(s: Stage, name: str = "web", **how: Any) -> DeploymentInfo:
    request = DeploymentRequest(**{"name": name, "container": SLEEP, "replicas": 3, "ports": [PORT], **how})

    async def create() -> DeploymentInfo:
        return s.engine.deployments.create(request)

    return await s.call(create())


async def update(s: Stage, **how: Any) -> DeploymentInfo:
    async def change() -> DeploymentInfo:
        return s.engine.deployments.update("web", DeploymentUpdate(**how))

    return await s.call(change())


def told(s: Stage, name: str = "web") -> DeploymentInfo:
    return s.engine.deployments.info(name)


def versions(s: Stage) -> list[int]:
    return [m.version for m in told(s).members if m.state == "ready"]


def targets(s: Stage) -> list[str]:
    (balanced,) = s.engine.registry.balanced()
    return list(balanced.targets)


def test_there_are_as_many_as_there_are_to_be(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        info = await made(s)
        assert info.state == "progressing" and info.address.startswith("192.168.123.")
        await asyncio.sleep(1)
        info = told(s)
        assert (info.state, info.ready, len(targets(s))) == ("complete", 3, 3)
        assert sorted(m.ip for m in info.members) == targets(s) and info.address not in targets(s)
        await update(s, replicas=5)
        await asyncio.sleep(1)
        assert told(s).ready == len(targets(s)) == 5
        await update(s, replicas=1)
        await asyncio.sleep(10)
        assert told(s).ready == len(targets(s)) == len(s.engine.registry.containers()) == 1
        with pytest.raises(Conflict, match="network bridge is in use by web-"):
            await s.call(s.engine.networks.remove("bridge"))
        await update(s, replicas=0)
        await asyncio.sleep(10)
        assert s.engine.registry.containers() == [] and targets(s) == [] and told(s).state == "complete"
        with pytest.raises(Conflict, match="network bridge is in use by deployment web"):
            await s.call(s.engine.networks.remove("bridge"))
        await s.call(s.engine.keeper.remove("web"))
        with pytest.raises(NotFound, match="no such deployment: web"):
            told(s)
        await s.call(s.engine.networks.remove("bridge"))

    act(scenario, network="bridge")


def test_a_name_leads_to_a_deployment_or_to_pods(act: Any) -> None:
    """Never to both in one network; in another one it may be another's."""

    async def scenario(s: Stage) -> None:
        await s.call(s.engine.networks.create(NetworkSpec(name="other")))
        await made(s, replicas=0)
        for how in ({"name": "web"}, {"name": "a", "hostname": "WEB"}, {"name": "a", "aliases": ["web"]}):
            with pytest.raises(Conflict, match="web is a deployment's name in network bridge: choose another name"):
                await s.create(**how)
        await s.create("a", network="other")
        with pytest.raises(Conflict, match="web is a deployment's name"):
            await s.call(s.engine.connect("a", NetworkRequest(name="bridge", aliases=["web"])))
        await s.create("b")
        with pytest.raises(Conflict, match="web is a deployment's name"):
            s.engine.containers.rename("b", "web")
        await s.create("web", network="other")
        for name in ("b", "B", s.engine.registry.container("b").id[:12]):
            with pytest.raises(Conflict, match="the pod b is found as"):
                await made(s, name=name, replicas=0)
        with pytest.raises(Conflict, match="the deployment web is found as Web in network bridge"):
            await made(s, name="Web", replicas=0)
        await made(s, name="a", replicas=0)
        for name in ("a", "web"):
            await s.call(s.engine.keeper.remove(name))

    act(scenario, network="bridge")


def test_replicas_may_have_the_deployments_name_as_their_host_name(act: Any) -> None:
    """It leads to the deployment alone all the same."""
    servers: list[NameServer] = []

    async def opened(self: NameServer, *_: Any) -> None:
        servers.append(self)

    async def scenario(s: Stage) -> None:
        with mock.patch.object(NameServer, "open", opened):
            info = await made(s, container=replace(SLEEP, hostname="web", aliases=["Web"]))
            await asyncio.sleep(1)
        assert (told(s).state, told(s).ready) == ("complete", 3)
        assert {s.engine.registry.container(m.container).hostname for m in told(s).members} == {"web"}
        answer = servers[0].answer(bytes(DNSRecord.question("web").pack()))
        assert answer
        assert [str(r.rdata) for r in DNSRecord.parse(answer).rr] == [info.address]
        assert s.engine.containers.rename(told(s).members[0].container, "first").name == "first"
        await made(s, "shop", container=replace(SLEEP, hostname="web"), replicas=1)
        await asyncio.sleep(1)
        assert "web is a deployment's name in network bridge" in told(s, "shop").message  # and not this one's
        for name in ("shop", "web"):
            await s.call(s.engine.keeper.remove(name))

    act(scenario, network="bridge")


def test_what_ends_is_replaced(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s)
        await asyncio.sleep(20)
        first = told(s).members
        await s.call(s.engine.containers.remove(first[1].container, force=True))
        await asyncio.sleep(20)
        assert told(s).ready == len(targets(s)) == 3
        await s.call(s.engine.containers.kill(first[0].container, "KILL"))
        await asyncio.sleep(0.1)
        assert len(targets(s)) <= 2  # nothing new goes to what has ended
        await asyncio.sleep(20)
        info = told(s)
        left = [m for m in info.members if m.state == "ended"]
        assert (info.ready, len(targets(s)), [m.container for m in left]) == (3, 3, [first[0].container])
        await asyncio.sleep(60)
        assert told(s).message == ""  # all is well again

    act(scenario, network="bridge")


@pytest.mark.parametrize("how", ["killed", "restarted", "stopped"])
def test_the_next_hyperd_goes_on(act: Any, how: str) -> None:
    async def scenario(s: Stage) -> None:
        await made(s)
        if how == "killed":
            s.kill()  # in the midst of it
        else:
            await asyncio.sleep(5)
            await s.close(keep_running=how == "restarted")
        await s.open()
        await asyncio.sleep(60)
        assert told(s).ready == 3 and len(targets(s)) == 3
        assert len([c for c in s.engine.registry.containers() if c.state.status == "running"]) == 3

    act(scenario, network="bridge")


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_an_update_replaces_them_one_after_the_other(act: Any, order: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, update=UpdatePolicy(order=order, monitor=5, drain=1))
        await asyncio.sleep(10)
        await update(s, container=replace(SLEEP, env=["A=2"]))
        seen = set()
        for _ in range(600):
            await asyncio.sleep(0.1)
            seen.add(len(targets(s)))
            if told(s).state == "complete":
                break
        assert versions(s) == [2, 2, 2]
        assert min(seen) == (3 if order == "start-first" else 2), seen  # so many take connections all the time
        assert max(seen) == (4 if order == "start-first" else 3), seen
        assert len([c for c in s.engine.registry.containers() if c.state.status == "running"]) == 3

        async def back() -> None:
            s.engine.deployments.roll_back("web")

        await s.call(back())
        await asyncio.sleep(60)
        info = told(s)
        assert (info.state, versions(s), info.container.env) == ("complete", [1, 1, 1], [])
        await update(s, container=replace(SLEEP, env=["A=3"]))
        await asyncio.sleep(60)
        assert versions(s) == [3, 3, 3]

    act(scenario, network="bridge")


@pytest.mark.parametrize("on_failure", ["pause", "rollback"])
@pytest.mark.parametrize("what", ["ends", "cannot be started", "is never ready"])
def test_an_update_that_fails(act: Any, on_failure: Any, what: str) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, update=UpdatePolicy(on_failure=on_failure, limit=30))
        await asyncio.sleep(10)
        before = sorted(m.container for m in told(s).members)
        bad = {
            "ends": replace(SLEEP, command=["exit", "3"]),
            "cannot be started": replace(SLEEP, command=["nothing-like-this"]),
            "is never ready": replace(SLEEP, health=HealthCheck(command=["false"], interval=1.0, retries=1000)),
        }[what]
        await update(s, container=bad)
        await asyncio.sleep(200)
        info = told(s)
        assert sorted(m.container for m in info.members if m.state == "ready") == before and len(targets(s)) == 3
        says = {"ends": "ended with 3", "is never ready": "was not ready within 30 s"}.get(what, "")
        assert says in info.message and info.message
        if on_failure == "pause":
            assert (info.state, info.version) == ("paused", 2)
        else:
            assert (info.version, info.container) == (1, SLEEP) and info.message.startswith("rolled back: ")
        await update(s, container=replace(SLEEP, env=["A=2"]))  # which is good
        await asyncio.sleep(200)
        assert told(s).state == "complete" and versions(s) == [3, 3, 3]

    act(scenario, network="bridge")


def test_one_that_ends_at_once_is_made_ever_more_seldom(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, replicas=1, container=replace(SLEEP, command=["exit", "3"]))
        await asyncio.sleep(600)
        made_ones = [e for e in s.engine.events.past() if e.type == "container" and e.action == "create"]
        assert 5 <= len(made_ones) <= 20 and "ended with 3" in told(s).message
        assert len(s.engine.registry.containers()) <= 2

    act(scenario, network="bridge")


def test_what_is_refused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, replicas=0, ports=[replace(PORT, host_port=18080)])
        for how, error, says in (
            ({}, Conflict, "there is a deployment web already"),
            ({"name": "-"}, InvalidArgument, "invalid deployment name"),
            ({"name": "a" * 57}, InvalidArgument, "56 characters at most"),
            ({"name": "b", "network": "none-such"}, NotFound, "no such network"),
            ({"name": "b", "ports": [PORT, PORT]}, InvalidArgument, "named twice"),
            ({"name": "b", "ports": [replace(PORT, host_port=18080)]}, Conflict, "18080/tcp: it is in use"),
            ({"name": "b", "container": replace(SLEEP, name="x")}, InvalidArgument, "--name is nothing"),
            ({"name": "b", "container": replace(SLEEP, auto_remove=True)}, InvalidArgument, "--rm is nothing"),
            ({"name": "b", "container": replace(SLEEP, network="bridge")}, InvalidArgument, "--network is nothing"),
        ):  # fmt: skip
            with pytest.raises(error, match=says):
                await made(s, **how)
        with pytest.raises(InvalidState, match="was never updated"):
            s.engine.deployments.roll_back("web")
        await s.create("c", ports=[PortMapping(container_port=80, host_port=18080)])
        with pytest.raises(Conflict, match="in use by a deployment"):
            await s.call(s.engine.containers.start("c"))
        assert [d.name for d in s.engine.deployments.all()] == ["web"]

    act(scenario, network="bridge")


def test_they_are_a_projects_own(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        tenancy = s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        s.give_image(web.id)
        who = Principal("token:x", web.id, frozenset({"operate", "read"}))
        with asked_by(who):
            s.engine.deployments.create(DeploymentRequest(name="web", container=SLEEP, replicas=1, ports=[PORT]))
        await asyncio.sleep(5)
        with asked_by(Principal("uid:0")):
            assert s.engine.deployments.all() == []
        with asked_by(who):
            assert told(s).ready == 1
            (container,) = [s.engine.registry.container(m.container) for m in told(s).members]
            assert (container.tenant, container.owner) == (web.id, "token:x")
        with pytest.raises(HyperError, match="1 deployment"):
            await s.call(tenancy.projects.remove(web.id))
        with asked_by(who):
            await s.engine.keeper.remove("web")

    act(scenario, network="bridge")


@pytest.mark.parametrize("after", [0.005, 0.02, 0.5])
def test_a_removal_that_hyperd_dies_in(act: Any, after: float) -> None:
    async def scenario(s: Stage) -> None:
        await made(s)
        await asyncio.sleep(20)
        removal = asyncio.ensure_future(s.call(s.engine.keeper.remove("web")))
        await asyncio.sleep(after)
        s.kill()
        removal.cancel()
        await s.open()
        await asyncio.sleep(60)
        assert s.engine.registry.containers() == [] and s.engine.deployments.all() == []

    act(scenario, network="bridge")


def test_one_that_is_started_again_is_asked_again(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, replicas=1)
        await asyncio.sleep(5)
        (member,) = told(s).members
        s.kernel.silent.add(member.ip)
        await s.call(s.engine.containers.restart(member.container))
        await asyncio.sleep(5)
        assert targets(s) == [] and told(s).ready == 0
        (silent,) = told(s).members
        assert (silent.state, silent.message) == ("starting", "nothing answers at 8080/tcp")
        s.kernel.silent.clear()
        await asyncio.sleep(5)
        assert targets(s) == [member.ip] and not told(s).members[0].message and not s.engine.deployments._silent

    act(scenario, network="bridge")


def test_a_removal_is_not_undone_by_an_update(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, container=replace(SLEEP, command=["ignore-term"], stop_timeout=10))
        await asyncio.sleep(20)
        removal = asyncio.ensure_future(s.call(s.engine.keeper.remove("web")))
        await asyncio.sleep(3)
        with pytest.raises(InvalidState, match="is being removed"):
            await update(s, replicas=3)
        await removal
        await asyncio.sleep(60)
        assert s.engine.registry.containers() == [] and s.engine.deployments.all() == []

    act(scenario, network="bridge")


def test_ports_and_networks_of_others(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", "sleep", "1000", ports=[PortMapping(container_port=80, host_port=18081)])
        await s.call(s.engine.suspensions.suspend("a"))
        with pytest.raises(Conflict, match="18081/tcp: it is in use"):  # also by one that is put on the disk
            await made(s, ports=[replace(PORT, host_port=18081)])
        await made(s, "plain", ports=[], replicas=0)
        with pytest.raises(Conflict, match="in use by"):
            await s.call(s.engine.networks.remove("bridge"))
        tenancy = s.engine.tenancy
        tenancy.organisations.create(OrganisationRequest(name="blue"))
        web = tenancy.projects.create(ProjectRequest(name="web"))
        tenancy.projects.limit(web.id, Quota(ports=1))
        ports = [replace(PORT, host_port=18082), replace(PORT, port=81, host_port=18083)]
        who = Principal("token:x", web.id, frozenset({"operate", "read"}))
        with asked_by(who), pytest.raises(QuotaExceeded, match="may have 1 ports"):
            s.engine.deployments.create(DeploymentRequest(name="b", container=SLEEP, replicas=0, ports=ports))
        with asked_by(who):
            s.engine.deployments.create(DeploymentRequest(name="b", container=SLEEP, replicas=0, ports=ports[:1]))
            with pytest.raises(QuotaExceeded, match="has 1"):
                s.engine.deployments.create(DeploymentRequest(name="c", container=SLEEP, replicas=0, ports=ports[1:]))

    act(scenario, network="bridge", factory=True)


def test_what_is_not_used_goes_although_a_deployment_has_a_network(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        for name in ("its", "other"):
            await s.call(s.engine.networks.create(NetworkSpec(name=name)))
        await made(s, replicas=0, network="its")
        assert (await s.call(s.engine.networks.prune())).removed == ["other"]
        assert [n.name for n in s.engine.registry.networks() if n.name in ("its", "other")] == ["its"]

    act(scenario)


def test_an_end_of_before_is_no_failure_of_now(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await made(s, replicas=1)
        await asyncio.sleep(20)
        await s.call(s.engine.containers.kill(told(s).members[0].container, "KILL"))
        await asyncio.sleep(60)
        assert told(s).message == "" and len(told(s).members) == 2
        await s.close(keep_running=True)
        await s.open()
        await asyncio.sleep(5)
        assert told(s).message == "" and told(s).ready == 1

    act(scenario, network="bridge")
