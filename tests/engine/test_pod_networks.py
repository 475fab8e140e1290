# SPDX-License-Identifier: Apache-2.0
"""Pods in networks: over the fake of the port, and over the backends of a host whose kernel is an object."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hypercontainer.engine import host_ports
from hypercontainer.engine.networks import Networks
from hypercontainer.engine.placement import Placement
from hypercontainer.errors import Conflict, GuestError, HyperError, InvalidState, Unavailable, Unsupported
from hypercontainer.guest.session import GuestSession
from hypercontainer.model.egress import EgressPolicy
from hypercontainer.model.network import Egress, Network, NetworkRequest, NetworkSpec
from hypercontainer.model.pods import PodPlan, PodSpec, Service, ServiceBackend
from hypercontainer.model.rates import RateBounds
from hypercontainer.model.specs import PortMapping
from hypercontainer.model.status import Pod
from hypercontainer.network import links
from hypercontainer.network.addresses import mac_of
from hypercontainer.network.fake import FakeNet
from hypercontainer.protocol.constants import GuestCode
from hypercontainer.protocol.messages import Interface

from .scenes import spec
from .stage import Stage, play, stage, whole

Scenario = Callable[[Stage], Awaitable[None]]
PORT = PortMapping(container_port=80, host_port=8080)


@pytest.fixture(params=["fake", "host"])
def act(request: pytest.FixtureRequest, template: Path) -> Callable[..., None]:
    """Play a scenario with either; at its end everything can be removed."""

    def acted(scenario: Scenario, **settings: Any) -> None:
        net = FakeNet() if request.param == "fake" else None
        with stage(template, net=net, **settings) as s:
            play(s, whole(scenario))

    return acted


async def _pod(s: Stage, name: str = "pod", *, start: bool = True, **how: Any) -> None:
    await s.call(s.engine.pods.create(PodPlan(name=name, containers=[spec(f"{name}-a")], spec=PodSpec(**how))))
    if start:
        await s.call(s.engine.pods.start(name))


async def _networks(s: Stage, *names: str) -> None:
    for name in names:
        await s.call(s.engine.networks.create(NetworkSpec(name=name)))


def test_a_network_is_not_removed_while_a_pod_is_made_in_it(act: Callable[..., None]) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "n")
        asked, goes_on, choose = asyncio.Event(), asyncio.Event(), Placement.choose_driver

        async def slowly(*of: Any, **how: Any) -> Pod:
            asked.set()
            await goes_on.wait()
            return await choose(*of, **how)

        with mock.patch.object(Placement, "choose_driver", slowly):
            making = asyncio.create_task(_pod(s, network="n", start=False))
            await asked.wait()
            with pytest.raises(Conflict, match="network n is in use by a pod that is being made"):
                await s.call(s.engine.networks.remove("n"))
            assert "n" not in (await s.call(s.engine.networks.prune())).removed
            goes_on.set()
            await making
        await s.call(s.engine.pods.start("pod"))
        assert _interfaces(s) == {"n": "eth0"}

    act(scenario)


def _interfaces(s: Stage, name: str = "pod") -> dict[str, str]:
    """What the guest has, by the names of the networks."""
    told = s.guest(s.machine(name)).interfaces
    return {a.network: a.interface for a in s.engine.registry.pod(name).attachments if a.interface in told}


@pytest.mark.parametrize(
    "asked", [{"allow": [Egress(cidr="10.0.0.0/8")]}, {"egress_rate": 1 << 20}, {"ingress_rate": 1 << 20}]
)
def test_what_a_network_cannot_is_refused_before_anything_is_taken(act: Any, asked: dict[str, Any]) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(Unsupported, match="the network '(user|fake)' does not support .*(rules|a limit)"):
            await s.create("a", "sleep", "100", network="user", **asked)
        with pytest.raises(Unsupported):
            await _pod(s, network="user", **asked)
        assert not s.engine.registry.pods() and not s.engine.registry.containers()
        await s.run("a", "sleep", "100", network="bridge", **asked)  # its name is free, and networks of this host can

    act(scenario)


@pytest.mark.parametrize("network", ["user", "bridge"])
def test_ports_of_a_pod_that_runs(act: Any, network: str) -> None:
    async def scenario(s: Stage) -> None:
        await _pod(s, network=network)
        assert await s.call(s.engine.pods.add_ports("pod", [PORT])) == [PORT]
        with pytest.raises(Conflict, match="by pod pod"):
            await s.run("b", "sleep", "100", network=network, ports=[PORT])
        assert await s.call(s.engine.pods.remove_ports("pod", [PORT])) == []
        await s.run("c", "sleep", "100", network=network, ports=[PORT])

    act(scenario)


@pytest.mark.parametrize("network", ["user", "bridge"])
def test_ports_that_cannot_be_published_are_nobodys(act: Any, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    async def refused(*_: object) -> None:
        raise Unavailable("no ports today")

    async def scenario(s: Stage) -> None:
        await _pod(s, network=network)
        (backend,) = s.engine._network.choice.of(s.engine.registry.pod("pod"))
        with monkeypatch.context() as patched, pytest.raises(Unavailable, match="no ports today"):
            patched.setattr(backend, "publish", refused)
            await s.call(s.engine.pods.add_ports("pod", [PORT]))
        assert s.engine.registry.pod("pod").ports == [] == s.engine.registry.pod("pod").spec.ports
        await s.run("b", "sleep", "100", network=network, ports=[PORT])

    act(scenario)


def test_pods_that_are_made_at_once_have_addresses_of_their_own(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "net")
        fixed = NetworkRequest(name="net", ip=f"{s.engine.networks.find('net').subnet.rpartition('.')[0]}.77")
        made = await asyncio.gather(
            *(s.call(s.engine.containers.create(spec(name, networks=[NetworkRequest(name="net")]))) for name in "abc"),
            *(_pod(s, name, start=False, networks=[NetworkRequest(name="net")]) for name in "de"),
            *(_pod(s, name, start=False, networks=[fixed]) for name in "fg"),
            s.call(s.engine.containers.create(spec("none", base="missing", networks=[NetworkRequest(name="net")]))),
            return_exceptions=True,
        )  # fmt: skip
        assert sorted(type(m).__name__ for m in made if isinstance(m, Exception)) == ["Conflict", "NotFound"]
        taken = [a.ip for p in s.engine.registry.pods() for a in p.attachments]
        assert len(taken) == len({*taken}) == 6
        await s.call(s.engine.containers.create(spec("h", networks=[NetworkRequest(name="net")])))
        ips = {a.ip for p in s.engine.registry.pods() for a in p.attachments}
        assert len(ips) == 7  # what failed has given its own back
        assert max(int(ip.rpartition(".")[2]) for ip in ips - {fixed.ip}) <= 8

    act(scenario)


def test_networks_that_are_made_at_once_have_names_and_subnets_of_their_own(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        asked = [s.call(s.engine.networks.create(NetworkSpec(name=name))) for name in "aba"]
        made = await asyncio.gather(*asked, return_exceptions=True)
        networks = [m for m in made if isinstance(m, Network)]
        assert sorted(n.name for n in networks) == ["a", "b"]
        assert len({n.subnet for n in networks}) == 2
        assert sum(isinstance(m, Conflict) for m in made) == 1

    act(scenario)


def test_a_running_pod_joins_and_leaves_networks(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        await _pod(s, network="home")
        assert _interfaces(s) == {"home": "eth0"}
        await s.call(s.engine.connect("pod", NetworkRequest(name="away")))
        assert _interfaces(s) == {"home": "eth0", "away": "eth1"}
        with pytest.raises(Unsupported, match="no spare network interface"):
            await s.call(s.engine.connect("pod", NetworkRequest(name="bridge")))
        await s.call(s.engine.disconnect("pod", "home"))
        await s.call(s.engine.connect("pod", NetworkRequest(name="bridge")))
        assert _interfaces(s) == {"away": "eth1", "bridge": "eth0"}

    act(scenario)


def test_a_machine_with_slots_gets_further_network_interfaces(act: Any) -> None:
    """As many as it has slots; they are spare ones from then on, also for the next daemon."""

    async def scenario(s: Stage) -> None:
        s.host.slots = 2
        await _networks(s, "home", "away", "third")
        await _pod(s, network="home")
        for name in ("away", "third", "bridge"):
            await s.call(s.engine.connect("pod", NetworkRequest(name=name)))
        assert _interfaces(s) == {"home": "eth0", "away": "eth1", "third": "eth2", "bridge": "eth3"}
        await s.call(s.engine.disconnect("pod", "third"))
        assert s.machine("pod").added == {2, 3}
        s.kill()
        await s.open()
        await s.call(s.engine.disconnect("pod", "away"))
        for name in ("third", "away"):
            await s.call(s.engine.connect("pod", NetworkRequest(name=name)))
        assert _interfaces(s).keys() == {"home", "away", "third", "bridge"} and s.machine("pod").added == {2, 3}
        await _networks(s, "fifth")
        with pytest.raises(Unsupported, match="no spare network interface"):
            await s.call(s.engine.connect("pod", NetworkRequest(name="fifth")))

    act(scenario)


def test_a_running_container_joins_and_leaves_networks(template: Path) -> None:
    """One that is a pod of its own: with the machine of the pool, of a template, or one that was booted."""

    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away", "third")
        for name in ("booted", "cloned", "waited"):
            await s.run(name, "sleep", "1000", network="home")
            await s.call(s.engine.connect(name, NetworkRequest(name="away", aliases=["guest"])))
            assert _interfaces(s, name) == {"home": "eth0", "away": "eth1"}
            joined = s.engine.registry.pod(name).attachments[1]
            assert joined.mac == mac_of(joined.ip)  # whoever had the address before: neighbours remember
            with pytest.raises(Unsupported, match=f"{name} is running, and its virtual machine has no spare"):
                await s.call(s.engine.connect(name, NetworkRequest(name="third")))
            await s.call(s.engine.disconnect(name, "away"))
            assert _interfaces(s, name) == {"home": "eth0"}
            await s.call(s.engine.connect(name, NetworkRequest(name="third")))
            await asyncio.sleep(60)  # a template is made, a machine waits
            if name == "booted":
                await s.call(s.engine.factory.drain(templates=False))
        assert s.engine.factory.started == {"cold": 1, "clone": 1, "pool": 1}
        await s.call(s.engine.containers.restart("booted", 0))
        assert _interfaces(s, "booted") == {"home": "eth0", "third": "eth1"}  # of a machine with NICs for both
        await s.call(s.engine.connect("booted", NetworkRequest(name="away")))
        await s.call(s.engine.factory.drain(templates=True))

    with stage(template, factory=True) as s:
        play(s, whole(scenario))


def test_the_default_route_goes_with_its_network(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        gateways = {n: s.engine.networks.find(n).gateway for n in ("home", "away")}
        await s.run("a", "sleep", "1000", network="home")
        await s.call(s.engine.connect("a", NetworkRequest(name="away")))
        guest = s.guest(s.machine("a"))
        assert guest.gateways == {"eth0": (gateways["home"],)}
        await s.call(s.engine.disconnect("a", "home"))
        assert guest.gateways == {"eth1": (gateways["away"],)}
        await s.call(s.engine.disconnect("a", "away"))
        await s.call(s.engine.connect("a", NetworkRequest(name="away")))
        assert guest.gateways == {"eth0": (gateways["away"],)}

    act(scenario)


def test_a_container_in_the_user_mode_network_joins_no_other_while_it_runs(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "away")
        await s.run("a", "sleep", "1000", network="user")
        with pytest.raises(Unsupported, match=r"its network \(user\) is none of this host: it joins no other"):
            await s.call(s.engine.connect("a", NetworkRequest(name="away")))
        assert not s.engine.registry.pod("a").attachments

    act(scenario)


def test_what_a_daemon_that_died_has_half_plugged_in_is_plugged_in(act: Any) -> None:
    """QEMU has the tap, and its NIC does not lead there."""

    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        await s.run("a", "sleep", "1000", network="home")
        await s.call(s.engine.connect("a", NetworkRequest(name="away")))
        (machine,) = s.host.machines.values()
        machine.loose.append(machine.plugged.pop(1))
        s.kill()
        await s.open()
        assert list(machine.plugged) == [1] and not machine.loose
        assert _interfaces(s, "a") == {"home": "eth0", "away": "eth1"}

    act(scenario)


def test_a_guest_that_finds_its_interface_late_is_told_by_the_next_daemon(
    act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, set_interface = list[str](), GuestSession.set_interface

    async def late(self: GuestSession, interface: Interface, *, undo: bool = False) -> None:
        told.append(interface.name)
        if interface.name == "eth1" and told.count("eth1") < 3:
            raise GuestError("there is no interface eth1", guest_code=GuestCode.NOT_FOUND)
        await set_interface(self, interface, undo=undo)

    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        await s.run("a", "sleep", "1000", network="home")
        await s.call(s.engine.connect("a", NetworkRequest(name="away")))
        s.kill()
        with monkeypatch.context() as patched:
            patched.setattr(GuestSession, "set_interface", late)
            await s.open()
        assert told.count("eth1") == 3 and _interfaces(s, "a") == {"home": "eth0", "away": "eth1"}

    act(scenario)


def test_the_administrators_bounds_hold_for_all(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        asked = {"plain": 0, "less": 1 << 19, "more": 1 << 30}
        for name, rate in asked.items():
            await s.run(name, ingress_rate=rate, egress_rate=rate)
        pods = {p.name: p for p in s.engine.registry.pods()}
        taps = {name: pods[name].attachments[0].tap for name in asked}
        assert [s.kernel.taps[tap].rate for tap in taps.values()] == [1 << 21, 1 << 19, 1 << 21]
        (backend,) = s.engine._network.choice.of(pods["plain"])
        sends = {nic.tap: nic.rate for nic in backend._host._ruleset().nics}  # type: ignore[attr-defined]
        assert [sends[tap] for tap in taps.values()] == [1 << 20, 1 << 19, 1 << 20]
        await _networks(s, "away")
        await s.call(s.engine.connect("plain", NetworkRequest(name="away")))
        joined = s.engine.registry.pod("plain").attachments[1].tap
        assert s.kernel.taps[joined].rate == 1 << 21

    with stage(template, network="bridge", rates=RateBounds(1 << 20, 1 << 21)) as s:
        play(s, whole(scenario))


def test_a_pod_that_left_its_first_network_starts_again(act: Any) -> None:
    """Its NICs are numbered anew: the name of the spare one's tap would be taken."""

    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        await _pod(s, network="home")
        await s.call(s.engine.connect("pod", NetworkRequest(name="away")))
        await s.call(s.engine.disconnect("pod", "home"))
        await s.call(s.engine.pods.stop("pod"))
        await s.call(s.engine.pods.start("pod"))
        assert _interfaces(s) == {"away": "eth0"}
        await s.call(s.engine.connect("pod", NetworkRequest(name="home")))
        assert _interfaces(s) == {"away": "eth0", "home": "eth1"}

    act(scenario)


def test_a_pod_with_ports_leaves_its_only_network_and_comes_back(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "home")
        await _pod(s, network="home", ports=[PORT])
        await s.call(s.engine.disconnect("pod", "home"))
        await s.run("b", "sleep", "100", network="home")  # the rules of others can be changed meanwhile
        await s.call(s.engine.connect("pod", NetworkRequest(name="home")))
        assert _interfaces(s) == {"home": "eth0"}

    act(scenario)


def test_a_rate_holds_in_a_network_that_was_joined(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        await _pod(s, network="home", ingress_rate=1 << 20)
        await s.call(s.engine.connect("pod", NetworkRequest(name="away")))
        taps = [a.tap for a in s.engine.registry.pod("pod").attachments]
        assert [s.kernel.taps[t].rate for t in taps] == [1 << 20] * 2

    act(scenario)


def test_a_guest_is_told_by_the_next_daemon(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """hyperd died when the record said that the pod is in the network, and the guest did not know of it."""

    async def scenario(s: Stage) -> None:
        await _networks(s, "home", "away")
        await _pod(s, network="home")
        put = Networks._put

        def killed(self: Networks, pod: Any, **changes: Any) -> Any:
            changed = put(self, pod, **changes)
            s.kill()
            return changed

        with monkeypatch.context() as patched:
            patched.setattr(Networks, "_put", killed)
            assert s.daemon
            s.daemon.call(s.engine.connect("pod", NetworkRequest(name="away")))
            while s.daemon:
                await asyncio.sleep(0)
        await s.open()
        assert _interfaces(s) == {"home": "eth0", "away": "eth1"}

    act(scenario)


def test_a_pod_that_does_not_run_joins_and_leaves_networks(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await _networks(s, "one", "two")
        await _pod(s, start=False, networks=[NetworkRequest(name="one")])
        await s.call(s.engine.connect("pod", NetworkRequest(name="two", mac="02:00:00:00:00:07")))
        with pytest.raises(Conflict, match="the pod is in network two already"):
            await s.call(s.engine.connect("pod", NetworkRequest(name="two")))
        await _pod(s, "other", start=False, network="none")
        with pytest.raises(Conflict, match="MAC address 02:00:00:00:00:07 of network two is taken"):
            await s.call(s.engine.connect("other", NetworkRequest(name="two", mac="02:00:00:00:00:07")))
        with pytest.raises(InvalidState, match="other is not in network two"):
            await s.call(s.engine.disconnect("other", "two"))
        await s.call(s.engine.disconnect("pod", "one"))
        await s.call(s.engine.pods.start("pod"))
        assert [(a.network, a.interface) for a in s.engine.registry.pod("pod").attachments] == [("two", "eth0")]
        await s.call(s.engine.connect("pod", NetworkRequest(name="one", mac="02:00:00:00:00:08")))
        assert s.engine.registry.pod("pod").attachments[1].mac == "02:00:00:00:00:08"  # and not its spare NIC's

    act(scenario, network="bridge")


@pytest.mark.parametrize("name", ["user", "none", "cni:x", "-"])
def test_names_of_networks_that_have_a_meaning(act: Any, name: str) -> None:
    async def scenario(s: Stage) -> None:
        with pytest.raises(HyperError):
            await s.call(s.engine.networks.create(NetworkSpec(name=name)))

    act(scenario)


def test_services_and_ports_of_a_pod_that_does_not_run_are_its_next_starts(act: Any) -> None:
    service = Service(
        service_ip="10.254.0.1", service_port=80, hosts=[ServiceBackend(host_ip="10.0.2.2", host_port=80)]
    )

    async def scenario(s: Stage) -> None:
        await _pod(s, start=False)
        await s.call(s.engine.services.replace("pod", [service]))
        await s.call(s.engine.pods.add_ports("pod", [PORT, PortMapping(container_port=81)]))
        left = await s.call(s.engine.pods.remove_ports("pod", [PortMapping(container_port=81)]))
        assert [p.container_port for p in left] == [80]
        await s.call(s.engine.pods.start("pod"))
        assert [p.host_port for p in s.engine.registry.pod("pod").ports] == [8080]
        assert "10.254.0.1/32" in s.guest(s.machine("pod")).interfaces["lo"]

    act(scenario)


def test_ports_of_a_pod_without_a_network_are_nobodys(act: Any) -> None:
    """As with Docker: they are of no effect."""

    async def scenario(s: Stage) -> None:
        await _pod(s, network="none")
        await s.call(s.engine.pods.add_ports("pod", [PORT]))
        assert s.host.ports() == [] and not s.kernel.present()
        assert await s.call(s.engine.pods.remove_ports("pod", [PORT])) == []

    act(scenario)


def test_a_host_without_a_free_port_says_so(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel calls one free which the rules of another pod have."""
    monkeypatch.setattr(host_ports, "bindable", lambda port: 8080)

    async def scenario(s: Stage) -> None:
        await _pod(s, ports=[PORT])
        await _pod(s, "other", start=False, ports=[PortMapping(container_port=7)])
        with pytest.raises(Conflict, match="no free port on 0.0.0.0 for 7/tcp"):
            await s.call(s.engine.pods.start("other"))
        with pytest.raises(Conflict, match="Address already in use by pod pod"):
            await s.call(s.engine.pods.add_ports("other", [PORT]))
            await s.call(s.engine.pods.start("other"))

    act(scenario, network="bridge")


def test_a_network_that_gives_nothing_back_is_told_and_ends_nothing(
    act: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(s: Stage) -> None:
        await _pod(s)

        async def refused(self: Any, pod_id: str) -> None:
            raise Unavailable("no")

        with monkeypatch.context() as broken:
            for backend in s.engine._network.choice.all:
                broken.setattr(type(backend), "release", refused)
            await s.call(s.engine.pods.stop("pod", 0))
        assert s.engine.registry.pod("pod").status == "exited" and not s.host.machines
        await s.call(s.engine.pods.start("pod"))

    act(scenario)
    assert "does not give back what pod" in caplog.text and "what it had is not all given back" in caplog.text


def test_the_record_says_what_its_user_mode_network_is(act: Any) -> None:
    """The next daemon, which may be configured otherwise, goes by it, and writes it down again."""

    async def scenario(s: Stage) -> None:
        await _pod(s, network="user")
        await _pod(s, "none", network="none")
        known = "fake" if s.net else "slirp"
        await s.close(keep_running=True)
        await s.open()
        await s.call(s.engine.containers.stop("pod-a", 0))
        await s.call(s.engine.containers.start("pod-a"))
        found = [s.engine.registry.pod(name).vm for name in ("pod", "none")]
        assert [vm.user_network for vm in found if vm] == [known, ""]
        await s.call(s.engine.pods.stop("pod"))
        assert s.engine.registry.pod("pod").vm is None

    act(scenario)


def test_the_own_bridge_of_a_daemon_that_was_killed_goes_with_the_next(template: Path) -> None:
    async def scenario(s: Stage) -> None:
        await s.open()
        await s.run("a")
        await s.call(s.engine.containers.remove("a", force=True))
        s.kill()
        assert len(s.kernel.bridges) == 1
        await s.open()
        await s.close()
        assert not s.kernel.bridges

    with stage(template, network="bridge") as s:
        play(s, scenario)


def test_a_daemon_that_begins_makes_a_network_of_many_pods_once(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its gate, if one of them has an egress policy."""
    made = list[str]()

    async def scenario(s: Stage) -> None:
        for name, policy in (("a", EgressPolicy()), ("b", None), ("c", None)):
            await s.run(name, "sleep", "1000", egress=policy)
        s.kill()
        s.kernel.gates.clear()  # with its process
        make_bridge = links.make_bridge

        async def counted(network: Network) -> None:
            made.append(network.name)
            await make_bridge(network)

        with monkeypatch.context() as patched:
            patched.setattr(links, "make_bridge", counted)
            await s.open()
        assert made == ["bridge"] and len(s.kernel.gates) == 1

    with stage(template, network="bridge") as s:
        play(s, whole(scenario))
