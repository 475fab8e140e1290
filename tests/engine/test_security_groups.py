# SPDX-License-Identifier: Apache-2.0
"""Security groups: records, what is refused, what the rules get, and that all is as it was when they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.errors import Conflict, InvalidArgument, NotFound, Unavailable, Unsupported
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.security_groups import (
    GroupRule,
    SecurityGroupSpec,
    SecurityGroupUpdate,
    format_rule,
    parse_rule,
)
from hypercontainer.network import nftables
from hypercontainer.network.fake_kernel import FakeKernel

from .stage import Stage

NETWORKS = [NetworkRequest(name="bridge")]


def made(s: Stage, name: str, *rules: str) -> None:
    s.engine.security_groups.create(SecurityGroupSpec(name=name, rules=[parse_rule(r) for r in rules]))


def guarded(s: Stage) -> int:
    """How many taps the host's rules know to be in groups."""
    assert isinstance(s.kernel, FakeKernel)
    return len(s.kernel.tables.get("bridge hyper", {}).get("grouped", set()))


def test_a_pod_comes_and_goes(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        groups = s.engine.security_groups
        made(s, "web", "in tcp 80 @web")
        await s.run("a", networks=NETWORKS, security_groups=["web"])
        await s.run("b", networks=NETWORKS)
        assert guarded(s) == 1
        assert groups.info("web").pods == ["a"]
        for _ in range(2):
            await s.call(groups.attach("web", "b"))
            assert guarded(s) == 2 and groups.info("web").pods == ["a", "b"]
        assert s.engine.registry.container("b").spec.security_groups == ["web"]
        with pytest.raises(Conflict, match=r"pod \S+ is in security group web"):
            await s.call(groups.remove("web"))
        for pod in ("a", "b"):
            await s.call(groups.detach("web", pod))
        assert guarded(s) == 0
        await s.call(groups.remove("web"))
        assert groups.all() == []
        actions = [e.action for e in s.engine.events.past() if e.type == "security-group"]
        assert actions == ["create", "attach", "detach", "detach", "destroy"]

    act(scenario)


def test_what_is_refused(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        groups = s.engine.security_groups
        made(s, "web")
        made(s, "database", "in tcp 5432 @web")
        with pytest.raises(Conflict, match="there is a security group web already"):
            made(s, "web")
        with pytest.raises(NotFound, match="no such security group: none"):
            made(s, "other", "in any @none")
        with pytest.raises(Conflict, match="a rule of security group database names web"):
            await s.call(groups.remove("web"))
        with pytest.raises(NotFound, match="no such security group: none"):
            await s.run("a", networks=NETWORKS, security_groups=["none"])
        with pytest.raises(Unsupported, match="--network bridge"):
            await s.run("a", network="user", security_groups=["web"])
        await s.run("a", network="user")
        with pytest.raises(Unsupported, match="has no security groups"):
            await s.call(groups.attach("web", "a"))
        assert s.engine.registry.pod("a").spec.security_groups == []

    act(scenario)


def test_rules_that_the_kernel_refuses(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        groups = s.engine.security_groups
        made(s, "web")
        await s.run("a", networks=NETWORKS)
        works = nftables.apply

        async def refused(text: str) -> None:
            if "grouped" in text and '"ht' in text:
                raise Unavailable("no")
            await works(text)

        with monkeypatch.context() as patched, pytest.raises(Unavailable):  # which ends before the stage's own does
            patched.setattr(nftables, "apply", refused)
            await s.call(groups.attach("web", "a"))
        assert groups.info("web").pods == [] and guarded(s) == 0
        await s.call(groups.attach("web", "a"))

        async def never(text: str) -> None:
            raise Unavailable("no")

        with monkeypatch.context() as patched, pytest.raises(Unavailable):
            patched.setattr(nftables, "apply", never)
            await s.call(groups.update("web", SecurityGroupUpdate(rules=[parse_rule("in tcp 80")])))
        assert groups.info("web").group.rules == []

    act(scenario)


@pytest.mark.parametrize(
    "text", ["in tcp 80", "in tcp 80-90 10.0.0.0/8", "in any @web", "out udp 53 fd00::/8", "in icmp", "out any"]
)
def test_rules_as_they_are_written(text: str) -> None:
    assert format_rule(parse_rule(text)) == text


NONE = ("", "tcp 80", "in tcp x", "in any 80", "in tcp 90-80", "in tcp 70000", "in tcp 0-5", "in tcp 80 10.0.0.0/8 x",
        "in sctp 1", "in tcp 1-2-3", "in any 10.0.0.0/99")  # fmt: skip


@pytest.mark.parametrize("text", NONE)
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_rule(text)


def test_a_rule_is_for_one() -> None:
    with pytest.raises(InvalidArgument, match="for a network or for a group"):
        GroupRule(cidr="10.0.0.0/8", group="web")
