# SPDX-License-Identifier: Apache-2.0
"""Another egress policy for a pod that is there: in its record, in force, and as it was when that fails."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from hypercontainer.errors import InvalidArgument, InvalidState, NotFound, Unavailable, Unsupported
from hypercontainer.model.egress import EgressChange, EgressHost, EgressPolicy, EgressSecret
from hypercontainer.model.lifetimes import Lifetime
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.specs import ContainerUpdate, RestartPolicy
from hypercontainer.model.status import Pod
from hypercontainer.model.updates import PodUpdate
from hypercontainer.network import nftables
from hypercontainer.network.fake_kernel import FakeKernel

from .scenes import plan, spec
from .stage import Stage

A, B = EgressHost(host="a.example"), EgressHost(host="*.b.example", port=8443)
NETWORKS = [NetworkRequest(name="bridge")]


def in_force(s: Stage) -> tuple[int, int]:
    """How many addresses the host's rules hold back, and how many gates there are."""
    assert isinstance(s.kernel, FakeKernel)
    return len(s.kernel.tables["inet hyper"].get("restricted", set())), len(s.kernel.gates)


def policy_of(s: Stage, key: str) -> EgressPolicy:
    found = s.engine.registry.pod(key).spec.egress
    assert found
    return found


def test_of_a_container_of_its_own(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        update = s.engine.updates.egress.update
        made = await s.run("a", networks=NETWORKS)
        for change, policy in (
            (EgressChange(hosts=[A]), EgressPolicy(hosts=[A])),
            (EgressChange(hosts=[B]), EgressPolicy(hosts=[B])),
            (EgressChange(), EgressPolicy()),
            (EgressChange(open=True), None),
        ):
            assert (await s.call(update("a", change))).spec.egress == policy
            assert s.engine.registry.container("a").spec.egress == s.engine.registry.pod(made).spec.egress == policy
            assert in_force(s) == (policy is not None, 1)
        assert [e.action for e in s.engine.events.past()].count("update") == 4

    act(scenario)


FEWER = PodUpdate(
    limits=ContainerUpdate(cpus=0.5, restart=RestartPolicy(name="always")), egress=EgressChange(hosts=[B]),
    lifetime=Lifetime(ttl=60.0),
)  # fmt: skip


def test_several_changes_are_made_together(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", networks=NETWORKS, egress=EgressPolicy(hosts=[A]))
        pod = await s.call(s.engine.pod_updates.update("a", FEWER))
        assert pod.spec.egress == EgressPolicy(hosts=[B]) and pod.spec.ttl == 60
        container = s.engine.registry.container("a")
        assert container.spec.resources.cpus == 0.5 and container.spec.restart.name == "always"
        await s.call(s.engine.pod_updates.update("a", PodUpdate(lifetime=Lifetime(ttl=0.0))))
        made = await s.call(s.engine.pods.create(plan(spec("m"), spec=PodSpec(networks=NETWORKS))))
        with pytest.raises(
            InvalidArgument, match=f"is the pod's, not a container's in it: .* with the pod, {made.name}"
        ):
            await s.call(s.engine.pod_updates.update("m", FEWER))
        with pytest.raises(NotFound):
            await s.call(s.engine.pod_updates.update(made.name, FEWER))
        await s.call(s.engine.pod_updates.update(made.name, replace(FEWER, limits=None)))
        assert s.engine.registry.pod(made.id).spec.ttl == 60

    act(scenario)


@pytest.mark.parametrize("fails", ["limits", "egress", "rules", "driver", "record"])
def test_of_several_changes_of_which_one_fails_none_is_made(
    fails: str, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(s: Stage) -> None:
        networks = [] if fails == "egress" else NETWORKS
        await s.run("a", networks=networks, network="user" if fails == "egress" else "")
        before = s.engine.registry.pod("a"), s.engine.registry.container("a")
        changes = {
            "limits": replace(FEWER, limits=ContainerUpdate(cpus=2)),
            "driver": replace(FEWER, lifetime=Lifetime(ttl=60.0, idle_timeout=60.0)),
        }
        errors = {"limits": InvalidState, "egress": Unsupported, "driver": Unsupported}

        async def apply(text: str) -> str:
            raise Unavailable("nftables refused the rules")

        with monkeypatch.context() as patched:  # which ends before the stage's own does
            if fails == "rules":
                patched.setattr(nftables, "apply", apply)
            elif fails == "record":
                patched.setattr(s.engine.lifetimes, "change", mock.Mock(side_effect=Unavailable("it is not written")))
            with pytest.raises(errors.get(fails, Unavailable)):
                await s.call(s.engine.pod_updates.update("a", changes.get(fails, FEWER)))
        assert (s.engine.registry.pod("a"), s.engine.registry.container("a")) == before

    act(scenario)


def test_of_a_pod_and_not_of_a_container_in_it(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        pod = await s.call(s.engine.pods.create(plan(spec("m"), spec=PodSpec(networks=NETWORKS))))
        await s.call(s.engine.updates.egress.update(pod.name, EgressChange(hosts=[A])))
        assert s.engine.registry.pod(pod.id).spec.egress == EgressPolicy(hosts=[A])
        with pytest.raises(InvalidArgument, match=f"is the pod's, .*use `hyperctl update` with the pod, {pod.name}"):
            await s.call(s.engine.updates.egress.update("m", EgressChange()))

    act(scenario)


def test_what_cannot_be(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        update = s.engine.updates.egress.update
        await s.run("u", network="user")
        with pytest.raises(Unsupported, match="does not support rules about what a pod may reach"):
            await s.call(update("u", EgressChange()))
        await s.run("d", networks=NETWORKS, dns=["192.0.2.1"])
        with pytest.raises(InvalidArgument, match="asks no name server but its network's"):
            await s.call(update("d", EgressChange()))
        assert s.engine.registry.pod("d").spec.egress is None

    act(scenario)


def test_secrets_stay(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        update = s.engine.updates.egress.update
        secret = EgressSecret(name="T", host="s.example", value=b"value")
        await s.run("s", networks=NETWORKS, egress=EgressPolicy(hosts=[A], secrets=[secret]))
        had = policy_of(s, "s")
        await s.call(update("s", EgressChange(hosts=[B])))
        found = policy_of(s, "s")
        assert (found.hosts, found.secrets, found.authority) == ([B], had.secrets, had.authority)
        with pytest.raises(InvalidState, match="s has secrets, which only an egress policy lets out"):
            await s.call(update("s", EgressChange(open=True)))
        assert policy_of(s, "s") == found

    act(scenario)


def test_a_host_that_refuses_it(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", networks=NETWORKS)
        takes, refused = nftables.apply, 0

        async def apply(text: str) -> str:
            nonlocal refused
            refused += "restricted" in text
            if "restricted" in text:
                raise Unavailable("nftables refused the rules")
            return await takes(text)

        with monkeypatch.context() as patched:  # which ends before the stage's own does
            patched.setattr(nftables, "apply", apply)
            with pytest.raises(Unavailable, match="nftables refused"):
                await s.call(s.engine.updates.egress.update("a", EgressChange(hosts=[B])))
        assert refused
        assert s.engine.registry.container("a").spec.egress is s.engine.registry.pod("a").spec.egress is None
        await s.call(s.engine.updates.egress.update("a", EgressChange(hosts=[B])))
        assert in_force(s) == (1, 1)

    act(scenario)


def test_who_leaves_takes_back_no_other_ones(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a", networks=NETWORKS)
        update, takes, begun = s.engine.updates.egress.update, nftables.apply, asyncio.Event()

        async def slow(text: str) -> str:
            if not begun.is_set():
                begun.set()
                await asyncio.sleep(1000)  # of the virtual clock
            return await takes(text)

        with monkeypatch.context() as patched:
            patched.setattr(nftables, "apply", slow)
            first = asyncio.ensure_future(update("a", EgressChange(hosts=[A])))
            await begun.wait()
            second = asyncio.ensure_future(update("a", EgressChange(hosts=[B])))
            await asyncio.sleep(1)
            first.cancel()
            _, pod = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(pod, Pod) and policy_of(s, "a") == EgressPolicy(hosts=[B])
        assert in_force(s) == (1, 1)

    act(scenario)
