# SPDX-License-Identifier: Apache-2.0
"""What every backend of a pod's network does, from what is asked before anything is taken to its release."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.errors import Conflict, HyperError, InvalidArgument, Unsupported
from hypercontainer.model.network import Egress, NetworkRequest, NetworkSpec
from hypercontainer.model.pods import InterfaceSpec, PodSpec
from hypercontainer.model.specs import PortMapping
from hypercontainer.network import backend as port
from hypercontainer.network import cni, rule_watch
from hypercontainer.network.backend import Dns, NicKind, Policy, Rates, Shared, require
from tests.engine.faults import Driven, Plan

from .networks import PLACES, Machine, Place, apart

PORT, OTHER = (PortMapping(container_port=80, host_port=n) for n in (18080, 18081))
FACETS: dict[str, set[type]] = {
    "fake": set(), "fake networks": {Policy, Rates, Dns, Shared}, "bridge on an object": {Policy, Rates, Dns, Shared},
    "slirp": {Dns}, "passt": {Dns}, "bridge": {Policy, Rates, Dns, Shared}, "explicit": {Rates, Dns}, "cni": {Dns},
}  # fmt: skip


@pytest.fixture(params=list(PLACES))
def there(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    kind = PLACES[request.param]
    if kind.root and os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    if request.param == "passt" and not shutil.which("passt"):
        pytest.skip("passt is not installed")
    made = kind(tmp_path)
    with apart(), made.entered():
        yield made


@pytest.fixture
async def place(there: Place) -> AsyncIterator[Place]:
    """Nothing is left at the end, whatever a test does."""
    empty = there.things()
    await there.begin()
    try:
        yield there
    finally:
        await there.close()
    assert there.things() == empty


async def _rest(place: Place) -> set[str]:
    """What is there when one pod has been there and has gone."""
    first = place.pod()
    await place.up(first)
    await place.down(first)
    return place.things()


# -- before anything is taken ---------------------------------------------------------


def test_the_port_is_small() -> None:
    verbs = [n for n, m in vars(port.Backend).items() if callable(m) and not n.startswith("_")]
    assert len(verbs) <= 8


async def test_what_is_known_takes_nothing(place: Place) -> None:
    before = place.things()
    pod = place.pod(PORT)
    place.net.check(pod)
    links = place.net.links(pod)
    assert len(links) == place.nics and all(isinstance(link.kind, NicKind) for link in links)
    assert isinstance(place.net.name_servers(pod), list) and len(place.net.kinds(pod)) >= 1
    assert place.things() == before


async def test_facets(place: Place, request: pytest.FixtureRequest) -> None:
    (backend,) = place.net.choice.of(place.pod())
    wanted = FACETS[request.node.callspec.params["there"]]
    for facet in (Policy, Rates, Dns, Shared):
        if facet in wanted:
            assert require(backend, facet) is backend
        else:
            with pytest.raises(Unsupported, match=f"the network '{backend.name}' does not support"):
                require(backend, facet)


async def test_what_it_cannot_is_refused_before_anything_is_taken(place: Place) -> None:
    before = place.things()
    (backend,) = place.net.choice.of(place.pod())
    for facet, asked in (
        (Policy, {"allow": [Egress(cidr="10.0.0.0/8")]}), (Policy, {"egress_rate": 1 << 20}),
        (Rates, {"ingress_rate": 1 << 20}),
    ):  # fmt: skip
        spec = msgspec.structs.replace(place.asks, **asked)
        if isinstance(backend, facet):
            place.pod(spec=spec)
        else:
            with pytest.raises(Unsupported):
                place.pod(spec=spec)
    assert place.things() == before


# -- from prepare to release ------------------------------------------------------------


async def test_nothing_is_left_after_release(place: Place) -> None:
    rest = await _rest(place)
    pod = place.pod(PORT)
    machine = await place.up(pod)
    links = place.net.links(place.registry.pod(pod.id))
    assert all(link.addresses for link in links)
    assert set(machine.taps) >= {link.tap for link in links if link.tap}
    assert place.things() != rest
    await place.down(pod, twice=True)
    assert place.things() == rest and place.registry.pod(pod.id).cni is None


async def test_release_of_what_took_nothing(place: Place) -> None:
    before = place.things()
    pod = place.pod()
    for id_ in (pod.id, "f" * 64):
        await place.net.release(id_)
    assert place.things() == before


async def test_the_next_daemon_releases_by_the_records(place: Place) -> None:
    rest = await _rest(place)
    pod = place.pod(PORT)
    await place.up(pod)
    place.die()
    await place.begin()
    await place.down(pod)
    assert _but_for_servers(place.things()) == _but_for_servers(rest)


@pytest.mark.parametrize("there", ["bridge", "slirp"], indirect=True)
@pytest.mark.parametrize("how", ["flush ruleset", "flush table", "delete table"])
async def test_rules_that_others_remove_are_put_back(place: Place, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than once; what a pod had that has gone is not among them."""
    monkeypatch.setattr(rule_watch, "_PAUSE", 0.01)
    pods = place.pod(PORT), place.pod(OTHER)
    for pod in pods:
        await place.up(pod)
    await _remove_rules(place, how)
    await place.down(pods[1])
    await _remove_rules(place, how)
    place.die()  # the next daemon's are its own work
    await place.begin()
    await _remove_rules(place, how)


async def _remove_rules(place: Place, how: str) -> None:
    """Returns when they are there again."""
    there, tables = place.things(), _nft("list tables").splitlines()
    for command in [how] if how == "flush ruleset" else [f"{how} {t.removeprefix('table ')}" for t in tables]:
        _nft(command)
    assert tables and place.things() != there
    async with asyncio.timeout(30):
        while place.things() != there:
            await asyncio.sleep(0)


def _nft(command: str) -> str:
    return subprocess.run(["nft", *command.split()], capture_output=True, text=True, check=True).stdout


def _but_for_servers(things: set[str]) -> set[str]:
    """Of objects, another daemon's are others."""
    return {t for t in things if not t.startswith(("server", "relay"))}


async def test_names_addresses_and_ports_are_free_again(place: Place) -> None:
    pod = place.pod(PORT)
    for _ in range(2):
        await place.up(pod)
        await place.down(pod)
    other = place.pod(PORT)
    await place.up(other)
    assert place.net.links(place.registry.pod(other.id))
    await place.down(other)


async def test_nothing_is_left_of_half_a_start(place: Place) -> None:
    """Cancelled at every place where it waits; every other time the daemon dies there, and the next one releases."""
    rest = _but_for_servers(await _rest(place))
    for at in itertools.count():
        pod = place.pod(PORT, spec=await _unused(place))
        plan, task = _cancelled(place.up(pod), at)
        await asyncio.wait({task}, timeout=30)
        assert task.done(), f"it does not end when it is cancelled at {plan.site}"
        ended = not task.cancelled() and task.exception()
        assert not ended, f"{ended!r} at {plan.site}"
        if at % 2:
            place.die()
            await place.begin()
        await place.down(pod)
        place.registry.erase(place.registry.pod(pod.id))
        if pod.spec.network == "unused":
            await place.networks.remove("unused")
        assert not _but_for_servers(place.things()) - rest, f"cancelled at {plan.site}"
        if not plan.struck:
            return


async def _unused(place: Place) -> PodSpec:
    """What a pod asks for, of which nothing is there yet."""
    if place.asks.network != "n":
        return place.asks
    await place.networks.create(NetworkSpec(name="unused", subnets=["10.79.0.0/24"]))
    return PodSpec(network="unused")


def _cancelled(work: Coroutine[Any, Any, Machine], at: int) -> tuple[Plan, asyncio.Task[Machine]]:
    """It begins, and is cancelled where it waits for the so-many-eth time."""
    tasks: list[asyncio.Task[Machine]] = []

    def cancel() -> None:
        tasks[0].cancel()

    plan = Plan(at, cancel)
    tasks.append(asyncio.Task(Driven(work, plan)))
    return plan, tasks[0]


# -- ports --------------------------------------------------------------------------------


async def test_a_taken_port_is_refused_and_leaves_nothing(place: Place) -> None:
    rest = await _rest(place)
    pod = place.pod(PORT)
    with socket.create_server(("0.0.0.0", PORT.host_port)):
        with pytest.raises(Conflict, match=r"cannot publish 0\.0\.0\.0:18080/tcp: Address already in use by .*pid"):
            await place.up(pod)
        await place.down(pod)
    assert place.things() == rest
    await place.up(pod)
    await place.down(pod)


async def test_ports_of_a_pod_that_runs(place: Place) -> None:
    pod = place.pod(PORT)
    machine = await place.up(pod)
    before = place.published()
    pod = place.registry.pod(pod.id)
    if not place.changes_ports:
        for verb in (place.net.publish, place.net.unpublish):
            with pytest.raises(Unsupported, match="publishe?s? ports only when it starts"):
                await verb(pod, [OTHER], machine)  # type: ignore[operator]
        assert place.published() == before
        return
    assert PORT.host_port in before
    await place.net.publish(pod, [OTHER], machine)  # type: ignore[arg-type]
    assert place.published() == before | {OTHER.host_port}
    pod = msgspec.structs.replace(pod, ports=[*pod.ports, OTHER])
    place.registry.put_pod(pod)
    await place.net.unpublish(pod, [PORT], machine)  # type: ignore[arg-type]
    assert place.published() == before - {PORT.host_port} | {OTHER.host_port}


# -- a machine that waited ------------------------------------------------------------------


async def test_a_machine_that_waited_is_plugged_in(place: Place) -> None:
    pod = place.pod(PORT)
    await place.net.prepare(pod)
    links = place.net.links(place.registry.pod(pod.id))
    if len(links) > 1 or not links[0].plugs:
        return  # it is booted
    idle = place.idle(links[0].kind)
    machine = Machine([])
    machine.fds = [os.dup(idle.fd)] if idle.fd >= 0 else []
    place.machines.append(machine)
    idle.launched()
    place.registry.put_pod(msgspec.structs.replace(place.registry.pod(pod.id), ports=[PORT]))
    await place.net.attach(place.registry.pod(pod.id), links[0], idle)
    await place.net.enforce(place.registry.pod(pod.id))
    if links[0].kind is not NicKind.USER and place.changes_ports:  # whose ports come with `reconfigure`, or `prepare`
        assert PORT.host_port in place.published()
    idle.close()
    await place.down(pod)


# -- what only some can do --------------------------------------------------------------------


async def test_a_running_pod_joins_and_leaves(place: Place) -> None:
    pod = place.pod(implicit=False)
    (shared,) = place.net.choice.of(pod)
    if not isinstance(shared, Shared):
        return
    await place.networks.create(NetworkSpec(name="m", subnets=["10.78.0.0/24"]))
    machine = await place.up(pod)
    apart = place.things()
    pod = place.registry.pod(pod.id)
    assert len(machine.taps) == 2
    spare = next(t for t in machine.taps if t not in {a.tap for a in pod.attachments})
    _, (made,) = place.networks.plan(pod.id, PodSpec(networks=[NetworkRequest(name="m")]), [], [])
    made = msgspec.structs.replace(made, tap=spare, mac=machine.taps[spare], interface="eth1")
    place.registry.put_pod(msgspec.structs.replace(pod, attachments=[*pod.attachments, made]))
    with contextlib.ExitStack() as stack:
        nic = await shared.join(place.registry.pod(pod.id), made, stack)
        assert nic and (nic.kind, nic.mac, nic.tap) == (NicKind.TAP, made.mac, spare)
        machine.fds.append(os.dup(nic.fd))
        assert await shared.join(place.registry.pod(pod.id), made, stack) is None
    told = shared.told(place.registry.pod(pod.id))
    assert [(i.name, bool(i.gateways), i.mac) for i in told] == [
        ("eth0", True, pod.attachments[0].mac),
        ("eth1", False, made.mac),
    ]
    assert place.things() != apart
    for _ in range(2):
        await shared.leave(made)
    os.close(machine.fds.pop())
    place.registry.put_pod(pod)
    await shared.refresh()
    assert {t for t in place.things() - apart if spare in t} == set()
    await place.down(pod)
    await place.networks.remove("m")


async def test_a_pod_of_plugins_is_in_no_other_network(place: Place) -> None:
    if place.asks.network != "cni:test":
        return
    with pytest.raises(Unsupported, match="a pod in the network cni:test is in no other one"):
        place.pod(spec=PodSpec(network="cni:test", networks=[NetworkRequest(name="n")]))


async def test_ports_need_a_network_that_publishes(place: Place) -> None:
    interfaces = [InterfaceSpec(bridge="br9", addresses=["192.168.9.2/24"])]
    if len(place.asks.interfaces) > 1:
        with pytest.raises(InvalidArgument, match="published ports need an interface without a bridge"):
            place.pod(PORT, spec=PodSpec(interfaces=interfaces))


def test_errors_are_those_of_the_port() -> None:
    assert issubclass(Unsupported, HyperError)


_RECORDER = """#!/bin/sh
echo "$CNI_COMMAND $CNI_ARGS" >> {said}
[ "$CNI_COMMAND" = DEL ] || sed -e 's/.*"prevResult": //' -e 's/}}$//'
"""


@pytest.mark.parametrize("there", ["cni"], indirect=True)
async def test_plugins_are_told_of_the_pod(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins of Debian's, and one after them that writes down what it hears."""
    plugins, data = tmp_path / "plugins", tmp_path / "data"
    for directory in (plugins, data):
        directory.mkdir()
    (plugins / "recorder").write_text(_RECORDER.format(said=data / "said"))
    (plugins / "recorder").chmod(0o755)
    monkeypatch.setattr(cni, "PLUGINS", (str(plugins), *cni.PLUGINS))
    network = json.loads((tmp_path / "test.conflist").read_text())
    network["plugins"].append({"type": "recorder", "dataDir": str(data)})
    (tmp_path / "test.conflist").write_text(json.dumps(network))
    pod = place.pod(spec=PodSpec(network="cni:test", cni_args={"K8S_POD_NAMESPACE": "ns", "K8S_POD_NAME": "web"}))
    await place.net.prepare(pod)
    state = place.registry.pod(pod.id).cni
    assert state and state.addresses and state.gateways == ["10.99.0.1"] and state.mtu == 1500
    await place.down(pod)
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID={pod.id}"
    assert (data / "said").read_text().splitlines() == [f"ADD {args}", f"DEL {args}"]
