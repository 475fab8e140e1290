# SPDX-License-Identifier: Apache-2.0
"""Variables whose value the daemon fills in, references to others, and who a process runs as."""

from __future__ import annotations

import pytest

from hypercontainer.engine.environment import addresses, expand, resolved, user_of
from hypercontainer.errors import InvalidArgument
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.model.status import Pod
from hypercontainer.network.backend import Link, NicKind


def a_pod(network: str = "") -> Pod:
    return Pod(id="p", name="p", created_at="", hostname="h", vcpus=1, memory=1 << 28, spec=PodSpec(network=network))


def link(*addresses_: str, gateways: tuple[str, ...] = ()) -> Link:
    return Link(NicKind.TAP, addresses=addresses_, gateways=gateways)


@pytest.mark.parametrize(
    ("links", "network", "known"),
    [
        ([], "cni:x", {}),
        ([], "none", {"podIP": "127.0.0.1"}),
        ([link("10.0.0.2/24", gateways=("10.0.0.1",))], "", {"podIP": "10.0.0.2", "hostIP": "10.0.0.1"}),
        ([link("fd00::2/64"), link("10.0.0.2/24")], "", {"podIP": "10.0.0.2"}),
        ([link("fd00::2/64", gateways=("fd00::1",))], "", {"podIP": "fd00::2", "hostIP": "fd00::1"}),
        ([link(), link("10.0.0.3/8", gateways=("10.0.0.1",))], "", {"podIP": "10.0.0.3", "hostIP": "10.0.0.1"}),
    ],
)
def test_a_pods_own_address_is_its_first_of_ipv4(links: list[Link], network: str, known: dict[str, str]) -> None:
    assert addresses(a_pod(network), links) == known


@pytest.mark.parametrize(
    ("text", "said"),
    [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A ${A}", "$A ${A}"), ("$$$(A)", "$1"), ("$(A", "$(A")],
)
def test_references(text: str, said: str) -> None:
    assert expand(text, {"A": "1"}) == said


def test_a_variable_sees_those_before_it_only() -> None:
    spec = ContainerSpec(image="i", env=["A=$(B)", "B=2", "C=$(B)"], command=["$(C)"], expand=True)
    assert resolved(spec, {}).env == ["A=$(B)", "B=2", "C=2"] and resolved(spec, {}).command == ["2"]
    plain = ContainerSpec(image="i", env=["A=$(A)"], command=["$(A)"])
    assert resolved(plain, {}) is plain


def test_fields_are_filled_in_or_refused() -> None:
    spec = ContainerSpec(image="i", env=["IP=x", "B=$(IP)"], env_fields={"IP": "podIP"})
    assert resolved(spec, {"podIP": "10.0.0.2"}).env == ["IP=10.0.0.2", "B=$(IP)"]
    with pytest.raises(InvalidArgument, match="the variable IP asks for the pod's podIP"):
        resolved(spec, {"hostIP": "10.0.0.1"})


@pytest.mark.parametrize(
    ("user", "image", "runs_as"),
    [("", "", ""), ("", "7:8", "7:8"), ("5", "7:8", "5"), (":9", "7:8", "7:9"), (":9", "", "0:9"), ("me", "7", "me")],
)
def test_who_it_runs_as(user: str, image: str, runs_as: str) -> None:
    assert user_of(ContainerSpec(image="i", user=user), image) == runs_as


@pytest.mark.parametrize(
    ("user", "image", "why"),
    [
        ("", "", "would"), ("0:5", "7", "would"), ("root", "7", "would"), ("00", "", "would"), ("me", "", "number"),
        ("", "me", "number"),
    ],
)  # fmt: skip
def test_root_is_refused_where_it_may_not_be(user: str, image: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=f"must not run as root, and .*{why}"):
        user_of(ContainerSpec(image="i", user=user, non_root=True), image)


def test_another_is_not_refused() -> None:
    assert user_of(ContainerSpec(image="i", user="7", non_root=True), "root") == "7"
