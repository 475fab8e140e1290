# SPDX-License-Identifier: Apache-2.0
"""A control daemon and its cluster: namespaces follow projects, members, quotas and accounts; Pods are their own."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from hypercontainer.cluster.fake import FakeCluster, FakeLedgers
from hypercontainer.cluster.manifests import hard, manifests
from hypercontainer.cluster.nodes import NodeLedgers
from hypercontainer.cluster.port import Ports, Wanted
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import Conflict, InvalidArgument, PermissionDenied, Unavailable
from hypercontainer.hyperd.cluster_config import ClusterConfig
from hypercontainer.model.billing import AccountRequest, CreditRequest, Prices
from hypercontainer.model.cluster import LedgerPart
from hypercontainer.model.policy import Policy
from hypercontainer.model.principal import Principal, widened
from hypercontainer.model.quotas import Quota
from hypercontainer.model.tenancy import MemberRequest, OrganisationRequest, ProjectRequest, UserRequest

from .stage import Stage
from .test_tenancy import cloud
from .test_tls import Site

PRICES = Prices(name="standard", currency="USD", valid_from="2023-01-01", vcpu_second="0.001")
SOON = 61.0  # seconds in which the cluster has followed


async def project(s: Stage, name: str = "web") -> str:
    """Of an organisation of its own; its namespace is there."""
    s.engine.tenancy.organisations.create(OrganisationRequest(name=f"of-{name}"))
    made = s.engine.tenancy.projects.create(ProjectRequest(name=name, organisation=f"of-{name}"))
    await asyncio.sleep(1)
    return made.id


def test_more_events_than_are_read_end_nobody_who_follows(act: Callable[..., None]) -> None:
    """A listener that is thousands behind is cut off: who follows for the daemon looks at all, and listens again."""
    cluster = FakeCluster()

    async def scenario(s: Stage) -> None:
        id_ = await project(s)
        listeners = len(s.engine.events._listeners)
        for _ in range(10_001):
            s.engine.events.publish("odd", "happens", "x")
        assert not s.engine.events._listeners
        s.engine.tenancy.projects.limit("web", Quota(pods=2))
        await asyncio.sleep(1)
        assert cluster.made[id_].quota == Quota(pods=2)
        assert len(s.engine.events._listeners) == listeners == 2  # the meter's, and the cluster's
        s.engine.tenancy.projects.limit("web", Quota(pods=3))
        await asyncio.sleep(1)
        assert cluster.made[id_].quota == Quota(pods=3)

    act(scenario, cluster=Ports(cluster, FakeLedgers()))


def test_a_namespace_follows_its_project(act: Callable[..., None]) -> None:
    cluster = FakeCluster()

    async def scenario(s: Stage) -> None:
        cluster.answers = False
        id_ = await project(s)
        assert cluster.made == {}
        cluster.answers = True
        await asyncio.sleep(SOON)
        assert cluster.made[id_] == Wanted(id_, "web", "of-web", Quota())
        tenancy = s.engine.tenancy
        for name, role in (("ann", "owner"), ("bob", "viewer"), ("cid", "auditor")):
            tenancy.users.create(UserRequest(name=name, certificate=f"{name}@x" if name == "ann" else ""))
            tenancy.organisations.put_member("of-web", MemberRequest(user=name, role=role))  # type: ignore[arg-type]
        tenancy.projects.limit("web", Quota(pods=2, vcpus=3))
        tenancy.projects.restrict("web", Policy(privileged=False, isolation="fresh"))
        await asyncio.sleep(1)
        assert cluster.made[id_] == Wanted(
            id_, "web", "of-web", Quota(pods=2, vcpus=3), ("ann@x",), ("bob",), privileged=False,
            runtime_class="hyper-fresh",
        )  # fmt: skip
        puts = cluster.puts
        await asyncio.sleep(10 * SOON)
        assert cluster.puts == puts
        tenancy.organisations.remove_member("of-web", "bob")
        await asyncio.sleep(1)
        assert cluster.made[id_].viewers == ()
        assert cluster.run(id_, "a") and cluster.run(id_, "b") and not cluster.run(id_, "c")
        with pytest.raises(Conflict, match="web has Pods in the cluster: a, b"):
            await tenancy.projects.remove("web")
        cluster.running.clear()
        await tenancy.projects.remove("web")
        assert cluster.made == {}

    act(scenario, cluster=Ports(cluster, FakeLedgers()))


def test_a_project_stays_while_a_node_does_not_tell_what_it_used(act: Callable[..., None]) -> None:
    cluster, ledgers = FakeCluster(), FakeLedgers()
    answers = False

    async def read(after: int) -> LedgerPart:
        if not answers:
            raise Unavailable("it does not answer")
        return LedgerPart(ledger="1", last=0, end=0, whole=0)

    async def scenario(s: Stage) -> None:
        nonlocal answers
        id_ = await project(s)
        ledgers.nodes["n1"] = read
        with pytest.raises(Conflict, match="on the node n1 is not known: it does not answer"):
            await s.engine.tenancy.projects.remove("web")
        await asyncio.sleep(SOON)
        assert id_ in cluster.made
        answers = True
        await s.engine.tenancy.projects.remove("web")

    act(scenario, cluster=Ports(cluster, ledgers))


def test_at_zero_nothing_is_started_and_what_runs_ends(act: Callable[..., None]) -> None:
    cluster = FakeCluster()

    async def scenario(s: Stage) -> None:
        id_ = await project(s)
        other = await project(s, "shop")
        s.engine.accounts.bills.put_prices(PRICES)
        s.engine.accounts.credit("of-web", CreditRequest(amount=1_000_000))
        s.engine.accounts.credit("of-shop", CreditRequest(amount=1_000_000))
        for name in ("of-web", "of-shop"):
            s.engine.accounts.change_account(name, AccountRequest(prepaid=True, grace=300))
        await asyncio.sleep(SOON)
        assert cluster.run(id_, "a") and cluster.run(other, "b")
        s.engine.accounts.credit("of-web", CreditRequest(amount=-1_000_000))
        await asyncio.sleep(SOON)
        assert not cluster.run(id_, "more") and [p.name for p in cluster.running[id_]] == ["a"]
        await asyncio.sleep(300 + SOON)
        assert cluster.running[id_] == [] and [p.name for p in cluster.running[other]] == ["b"]
        s.engine.accounts.credit("of-web", CreditRequest(amount=1_000_000))
        await asyncio.sleep(SOON)
        assert cluster.run(id_, "again")
        cluster.running.clear()

    act(scenario, cluster=Ports(cluster, FakeLedgers()))


async def test_pods_are_their_projects(template: Path) -> None:
    cluster = FakeCluster()
    async with cloud(template, cluster=Ports(cluster, FakeLedgers())) as c:
        engine = c.s.stage.engine
        assert engine.namespaces
        await engine.namespaces.look()
        blue, red = await c.project_id("blue/web"), await c.project_id("red/web")
        assert cluster.run(blue, "a") and cluster.run(red, "b")
        token = await c.token("blue/web", "operate")
        assert [p["name"] for p in (await c.ask("GET", "/cluster/pods", token=token)).json] == ["a"]
        assert sorted(p["name"] for p in (await c.ask("GET", "/cluster/pods")).json) == ["a", "b"]
        missing = await c.ask("DELETE", "/cluster/pods/none", token=token)
        others = await c.ask("DELETE", "/cluster/pods/b", token=token)
        assert (others.status, others.body) == (404, missing.body.replace(b"none", b"b"))
        assert (await c.ask("GET", "/cluster/pods/a/logs", token=token)).body == b"a says\n"
        assert (await c.ask("DELETE", "/cluster/pods/a", token=token)).status == 204
        assert cluster.running[blue] == []
        assert (await c.ask("DELETE", "/cluster/pods/b")).status == 400  # in which project?
        assert (await c.ask("GET", "/usage/entries", token=await c.token("red/web", "audit"))).status == 403


async def test_without_a_cluster(template: Path) -> None:
    async with cloud(template) as c:
        assert (await c.ask("GET", "/cluster/nodes")).json == []
        assert "this hyperd has no cluster" in (await c.ask("GET", "/cluster/pods")).json["message"]


async def test_a_nodes_ledger_by_its_certificate(template: Path, tmp_path: Path) -> None:
    site = Site(tmp_path)
    control, other = site.ca.sign("control"), site.ca.sign("other")
    async with site.serve(template, control, {"control": ["audit"], "*": ["operate"]}) as s:
        address = f"127.0.0.1:{s.port}"
        part = await NodeLedgers(site.ca.client(control), {"n": address}).read(address, 0)
        assert (part.last, part.end, part.entries) == (0, 0, []) and len(part.ledger) == 16
        with pytest.raises(PermissionDenied, match="says: "):
            await NodeLedgers(site.ca.client(other), {}).read(address, 0)
        with pytest.raises(Unavailable, match="does not answer"):
            await NodeLedgers(ssl.create_default_context(), {}).read(address, 0)
    with pytest.raises(Unavailable, match="does not answer"):
        await NodeLedgers(site.ca.client(control), {}).read(address, 0)


def test_what_a_namespace_consists_of() -> None:
    wanted = Wanted("a" * 16, "web", "blue", Quota(pods=3, vcpus=2, memory=1 << 30), ("ann",), privileged=False)
    found = manifests(wanted)
    assert found[0][0] == found[-1][0] == f"/api/v1/namespaces/hyper-{'a' * 16}"
    assert found[-1][1]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    kinds = {m["kind"]: m for _, m in found[1:-1]}
    assert set(kinds) == {"RoleBinding", "ResourceQuota", "LimitRange", "NetworkPolicy"}
    assert hard(wanted) == {"pods": "3", "limits.cpu": "2", "limits.memory": str(1 << 30)}
    assert kinds["LimitRange"]["spec"]["limits"][0]["default"] == {"cpu": "1", "memory": "128Mi"}
    assert json.loads(json.dumps(found)) == [[path, made] for path, made in found]
    closed = Wanted("a" * 16, "web", "blue", Quota(), closed=True)
    assert hard(closed) == {"pods": "0"} and manifests(closed)[-1] != found[-1]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "neither an API server nor nodes"),
        ({"nodes": {"n": "127.0.0.1:1"}}, "certificates on both sides"),
        ({"nodes": {"n": "127.0.0.1:1"}, "tlscacert": "/no", "tlscert": "/no", "tlskey": "/no"}, "TLS cannot be used"),
    ],
)
def test_a_configuration_that_is_none(given: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        ClusterConfig(**given).ports()  # type: ignore[arg-type]


def test_a_kubeconfig_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="leads to no cluster"):
        ClusterConfig(kubeconfig=str(tmp_path / "none")).ports()


def test_an_auditor_of_a_project_is_not_asked_by_a_node(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await project(s)
        with asked_by(Principal("token:1", id_, widened(["audit"]))), pytest.raises(PermissionDenied):
            s.engine.accounts.telling.part(0)

    act(scenario)
