# SPDX-License-Identifier: Apache-2.0
"""Which backends a pod's network has, and what each says before anything is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.errors import InvalidArgument, Unsupported
from hypercontainer.model.network import Attachment, CniState, Network
from hypercontainer.model.pods import InterfaceSpec, PodSpec
from hypercontainer.model.specs import PortMapping
from hypercontainer.model.status import Pod, Vm
from hypercontainer.network import tap, usermode
from hypercontainer.network.backend import Link, NicKind
from hypercontainer.network.choice import Backends

FOUR = Attachment(network="n", interface="eth0", tap="htpppppppppp0", mac="0a:00:00:00:00:01", ip="10.0.0.2")
SIX = Attachment(
    network="n", interface="eth0", tap="htpppppppppp0", mac="0a:00:00:00:00:01", ip="10.0.0.2", ip6="fd00::2"
)
USER = (usermode.ADDRESS,), (usermode.GATEWAY,)
ON_BRIDGE = InterfaceSpec(bridge="br", addresses=["192.168.9.2/24"], gateway="192.168.9.1", mtu=9000)


class Records:
    """Of one network, with a way out."""

    def network_of(self, attachment: Attachment) -> Network:
        return Network(id="n" * 32, name=attachment.network, created_at="", bridge="hy-n", subnet="10.0.0.0/24",
                       gateway="10.0.0.1", subnet6="fd00::/64", gateway6="fd00::1")  # fmt: skip


def backends(user_network: str = "slirp", **how: Any) -> Backends:
    return Backends(Records(), Path("/nowhere"), user_network, **how)  # type: ignore[arg-type]


def a_pod(*attachments: Attachment, vm: list[str] | None = None, cni: CniState | None = None, **spec: Any) -> Pod:
    runs = Vm(driver="x", pid=1, pid_started=1, directory="", token="", nics=dict.fromkeys(vm or [], ""))
    return Pod(id="p" * 64, name="p", created_at="", hostname="h", vcpus=1, memory=1, attachments=list(attachments),
               spec=PodSpec(**spec), vm=None if vm is None else runs, cni=cni)  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "names"),
    [
        (a_pod(network="user"), ["user"]),
        (a_pod(network="user:host-loopback"), ["user"]),
        (a_pod(network="none"), []),
        (a_pod(network="n"), []),  # it has left it
        (a_pod(FOUR, network="n"), ["bridge"]),
        (a_pod(FOUR, network="user"), ["bridge"]),  # it joined, while it did not run
        (a_pod(network="user", vm=["htpppppppppp0"]), ["bridge"]),  # and left, while it did
        (a_pod(network="cni:x"), ["cni"]),
        (a_pod(network="none", interfaces=[ON_BRIDGE]), ["interfaces"]),
        (a_pod(network="none", interfaces=[ON_BRIDGE], vm=["htppppppppppi0"]), ["interfaces"]),
        (a_pod(FOUR, network="n", interfaces=[ON_BRIDGE]), ["bridge", "interfaces"]),
        (a_pod(network="cni:x", interfaces=[ON_BRIDGE]), ["cni", "interfaces"]),
    ],
)
def test_which_a_pod_has(pod: Pod, names: list[str]) -> None:
    assert [b.name for b in backends().of(pod)] == names


def test_of_one_network() -> None:
    named = backends().named
    assert [getattr(named(n), "name", None) for n in ("user", "none", "", "cni:x", "n")] == [
        "user", None, None, "cni", "bridge"
    ]  # fmt: skip


def test_a_pod_keeps_its_user_mode_network_while_it_runs() -> None:
    """The host's way out may come and go."""
    found = [False]
    made = backends("auto", finds_passt=lambda: found[0])
    pod, mixed = a_pod(network="user"), a_pod(network="none", interfaces=[InterfaceSpec()])
    made.pin(pod)
    found[0] = True
    assert [made.of(pod)[0].kind, made.of(mixed)[0].links(mixed)[0].kind] == [NicKind.USER] * 2
    made.forget(pod.id)
    assert [made.of(pod)[0].kind, made.of(mixed)[0].links(mixed)[0].kind] == [NicKind.STREAM] * 2
    assert backends("passt", finds_passt=lambda: False).of(pod)[0].kind is NicKind.STREAM


def test_the_record_of_a_pod_that_runs_says_which_it_is() -> None:
    """Whatever the daemon that finds it is configured to."""
    for recorded, configured, kind in (("slirp", "passt", NicKind.USER), ("passt", "slirp", NicKind.STREAM)):
        vm = Vm(driver="x", pid=1, directory="", token="", user_network=recorded)
        pod = msgspec.structs.replace(a_pod(network="user"), vm=vm)
        made = backends(configured)
        assert [made.of(pod)[0].kind, made.user_network(pod)] == [kind, recorded]
        assert made.user_network(a_pod(network="user")) == configured
    mixed = a_pod(network="none", interfaces=[InterfaceSpec()])
    assert [backends().user_network(p) for p in (a_pod(FOUR, network="n"), a_pod(network="none"), mixed)] == [
        "", "", "slirp"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "links"),
    [
        (a_pod(network="user"), [Link(NicKind.USER, *USER, walled=True, plugs=True)]),
        (a_pod(network="user:host-loopback"), [Link(NicKind.USER, *USER)]),
        (
            a_pod(SIX, network="n"),
            [Link(NicKind.TAP, ("10.0.0.2/24", "fd00::2/64"), ("10.0.0.1", "fd00::1"), 1500, SIX.mac, SIX.tap,
                  routers=False, plugs=True)],
        ),
        (a_pod(network="cni:x"), [Link(NicKind.TAP, plugs=True)]),
        (
            a_pod(network="cni:x", cni=CniState(network="x", namespace="hyc-p", mac="")),  # begun
            [Link(NicKind.TAP, plugs=True)],
        ),
        (
            a_pod(network="cni:x", cni=CniState(network="x", namespace="hyc-p", mac="0a:00:00:00:00:02", mtu=1400,
                                                addresses=["10.1.0.2/16"], gateways=["fd01::1", "10.1.0.1"])),
            [Link(NicKind.TAP, ("10.1.0.2/16",), ("10.1.0.1", "fd01::1"), 1400, "0a:00:00:00:00:02",
                  plugs=True)],
        ),
        (
            a_pod(network="none", interfaces=[ON_BRIDGE]),
            [Link(NicKind.TAP, ("192.168.9.2/24",), ("192.168.9.1",), 9000, tap="htppppppppppi0", plugs=True)],
        ),
        (a_pod(network="none"), []),
    ],
)  # fmt: skip
def test_what_is_known_of_its_nics(pod: Pod, links: list[Link]) -> None:
    assert [link for backend in backends().of(pod) for link in backend.links(pod)] == links


def test_only_the_first_network_with_a_way_out_is_the_default() -> None:
    other = Attachment(network="m", interface="eth1", tap="htpppppppppp1", mac="0a:00:00:00:00:02", ip="10.0.0.3")
    (bridge,) = backends().of(pod := a_pod(FOUR, other, network="n"))
    assert [link.gateways for link in bridge.links(pod)] == [("10.0.0.1",), ()]


@pytest.mark.parametrize(
    ("pod", "port", "refused"),
    [
        (a_pod(SIX), "fd00::1", ""), (a_pod(FOUR), "::1", ""), (a_pod(FOUR), "", ""), (a_pod(network="user"), "", ""),
        (a_pod(FOUR), "fd00::1", "network n has no IPv6"),
        (a_pod(network="user"), "fd00::1", "by the pod's network: publish on an IPv4 address"),
        (a_pod(network="cni:x"), "fd00::1", "by the pod's network: publish on an IPv4 address"),
        (a_pod(network="none", interfaces=[ON_BRIDGE]), "", "published ports need an interface without a bridge"),
        (a_pod(network="none", interfaces=[ON_BRIDGE, InterfaceSpec()]), "", ""),
    ],
)  # fmt: skip
def test_which_ports_it_publishes(pod: Pod, port: str, refused: str) -> None:
    (backend,) = backends().of(pod)
    ports = [PortMapping(container_port=80, host_ip=port)]
    if refused:
        with pytest.raises(InvalidArgument, match=refused):
            backend.check(pod, ports)
    else:
        backend.check(pod, ports)


def test_plugins_go_with_no_network_of_this_host() -> None:
    pod = a_pod(FOUR, network="cni:x")
    with pytest.raises(Unsupported, match="a pod in the network cni:x is in no other one"):
        backends().of(pod)[1].check(pod, [])


@pytest.mark.parametrize(
    ("name", "number"), [("htpppppppppp0", 0), ("htpppppppppp12", 12), ("htppppppppppi0", None), ("eth0", None),
                         ("htqqqqqqqqqq0", None)]
)  # fmt: skip
def test_which_nic_a_tap_is(name: str, number: int | None) -> None:
    assert tap.number_of("p" * 64, name) == number
