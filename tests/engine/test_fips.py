# SPDX-License-Identifier: Apache-2.0
"""Floating addresses over fakes: whose they are, which pod has one, and what survives hyperd."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from hypercontainer.engine.metered import Unmetered
from hypercontainer.engine.principal import asked_by
from hypercontainer.errors import (
    Conflict,
    HyperError,
    InvalidArgument,
    NotFound,
    QuotaExceeded,
    Unavailable,
    Unsupported,
)
from hypercontainer.model.fips import FipRequest
from hypercontainer.model.network import NetworkSpec
from hypercontainer.model.principal import Principal
from hypercontainer.model.quotas import Quota
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.network.floating import FipSettings

from .stage import IMAGE, Stage

POOLS = FipSettings((ip_network("203.0.113.0/30"), ip_network("2001:db8:5::/127")))
HOW = {"network": "bridge", "fips": POOLS}


async def box(s: Stage, name: str, **how: Any) -> None:
    spec = ContainerSpec(image=IMAGE, name=name, command=["sleep", "1000"], **how)
    await s.call(s.engine.containers.create(spec))
    await s.call(s.engine.containers.start(name))


def leads(s: Stage) -> dict[str, list[str]]:
    """Names of pods -> addresses."""
    of_pods = s.engine.registry.floating().of_pods
    return {p.name: list(of_pods[p.id]) for p in s.engine.registry.pods() if p.id in of_pods}


def test_an_address_is_allocated_attached_and_survives_hyperd(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        made = s.engine.fips.allocate(FipRequest(name="shop"))
        other = s.engine.fips.allocate(FipRequest())
        assert (made.address, other.address, other.name) == ("203.0.113.0", "203.0.113.1", "203.0.113.1")
        await box(s, "web")
        assert (await s.call(s.engine.fips.attach("shop", "web"))).pod == "web"
        assert leads(s) == {"web": ["203.0.113.0"]}
        told = [e.action for e in s.engine.events.past() if e.type == "fip"]
        assert told == ["allocate", "allocate", "attach"]
        s.kill()
        await s.open()
        assert leads(s) == {"web": ["203.0.113.0"]}
        for words, what in (
            ("web has the floating address 203.0.113.0 already", s.engine.fips.attach(other.id[:12], "web")),
            ("web has the floating address 203.0.113.0", s.engine.fips.attach("203.0.113.0", "web")),
            ("no pod has the floating address", s.engine.fips.detach(other.address)),
        ):
            with pytest.raises(Conflict, match=words):
                await s.call(what)
        with pytest.raises(Conflict, match="web has the floating address"):
            s.engine.fips.release("shop")
        await s.call(s.engine.containers.stop("web"))
        assert s.engine.fips.told(s.engine.fips.find("shop")).pod == "web"
        await s.call(s.engine.containers.remove("web"))
        assert [f.pod for f in s.engine.fips.all()] == ["", ""] and leads(s) == {}
        s.engine.fips.release("shop")
        assert s.engine.fips.rename(other.address, "spare").name == "spare"
        assert s.engine.fips.allocate(FipRequest()).address == "203.0.113.0"
        assert [e.action for e in s.engine.events.past() if e.type == "fip"][-3:] == ["release", "rename", "allocate"]

    act(scenario, **HOW)


def test_what_cannot_be_is_said(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        fips = s.engine.fips
        for n in range(4):
            fips.allocate(FipRequest(name=f"n{n}"))
        for error, words, request in (
            (Unavailable, "no floating address of IPv4 is free", FipRequest()),
            (Conflict, "there is a floating address n1 already", FipRequest(name="n1", version=6)),
            (InvalidArgument, "invalid floating address name", FipRequest(name="a b", version=6)),
            (InvalidArgument, "invalid address 'x'", FipRequest(address="x")),
            (Conflict, "203.0.113.1 is not to be had", FipRequest(address="203.0.113.1")),
            (Conflict, "192.0.2.1 is not to be had", FipRequest(address="192.0.2.1")),
        ):
            with pytest.raises(error, match=words):
                fips.allocate(request)
        assert fips.allocate(FipRequest(name="six", address="2001:db8:5:0::1")).address == "2001:db8:5::1"
        await s.call(s.engine.networks.create(NetworkSpec(name="inner", internal=True)))
        await box(s, "user", network="user")
        await box(s, "inside", network="inner")
        await box(s, "four", network="bridge")
        for refused, words, key, name in (
            (Unsupported, "user is in no network of this host", "n0", "user"),
            (Conflict, "the network inner of inside is internal", "n0", "inside"),
            (NotFound, "no such", "n0", "nobody"),
            (NotFound, "no such floating address: 203.0.113.9", "203.0.113.9", "four"),
        ):
            with pytest.raises(refused, match=words):
                await s.call(fips.attach(key, name))
        assert leads(s) == {}

    act(scenario, **HOW)


def test_a_kernel_that_refuses_leaves_all_as_it_was(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(s: Stage) -> None:
        s.engine.fips.allocate(FipRequest(name="shop"))
        await box(s, "web")
        (backend,) = s.engine._network.choice.of(s.engine.registry.pod("web"))

        async def refused() -> None:
            raise Unavailable("no rules today")

        for verb, before in ((lambda: s.engine.fips.attach("shop", "web"), {}),
                             (lambda: s.engine.fips.detach("shop"), {"web": ["203.0.113.0"]})):  # fmt: skip
            with monkeypatch.context() as broken, pytest.raises(HyperError, match="no rules today"):
                broken.setattr(backend, "refresh", refused)
                await s.call(verb())
            assert leads(s) == before
            await s.call(verb())
        assert leads(s) == {}

    act(scenario, **HOW)


def test_a_quota_bounds_them(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        ann = Principal("token:ann")
        with asked_by(ann):
            s.engine.fips.allocate(FipRequest())
            with pytest.raises(QuotaExceeded, match="token:ann may have 1 floating addresses, has 1"):
                s.engine.fips.allocate(FipRequest())
        assert s.engine.registry.quotas.status(ann).used.addresses == 1
        s.engine.fips.allocate(FipRequest())

    act(scenario, **HOW, quotas={"token:*": Quota(addresses=1)})


def held(s: Stage) -> dict[str, int]:
    """Sizes of addresses -> milliseconds."""
    rows = s.engine.accounts.usage(0, None, ["size"]).rows
    return {r.size: r.quantity for r in rows if r.kind == "address"}


def test_an_address_is_metered_from_its_allocation_to_its_release(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        fips = s.engine.fips
        fips.allocate(FipRequest(name="shop"))
        fips.allocate(FipRequest(name="six", version=6))
        await box(s, "web")
        await s.call(fips.attach("shop", "web"))
        await asyncio.sleep(100)
        assert held(s)["ipv4"] >= 100_000
        s.kill()
        await asyncio.sleep(100)
        await s.open()
        assert held(s)["ipv4"] >= 200_000  # of which half nobody was there
        await s.call(s.engine.fips.detach("shop"))
        s.engine.fips.rename("shop", "store")
        await asyncio.sleep(50)
        s.engine.fips.release("store")
        after = held(s)
        assert 250_000 <= after["ipv4"] <= 260_000
        await asyncio.sleep(100)
        assert held(s)["ipv4"] == after["ipv4"] and held(s)["ipv6"] == after["ipv6"] + 100_000

    act(scenario, metering=True, **HOW)


def test_an_address_that_was_there_before_it_was_metered_begins_with_that(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        s.engine.registry.meter = Unmetered()
        s.engine.fips.allocate(FipRequest())
        await asyncio.sleep(100)
        assert held(s) == {}
        s.kill()
        await s.open()
        await asyncio.sleep(50)
        assert 50_000 <= held(s)["ipv4"] < 60_000

    act(scenario, metering=True, **HOW)
