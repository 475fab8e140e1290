# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of a pod's network: a few verbs that every backend has, and the values that they take.

A backend is one way in which NICs of a pod reach something: the user-mode network by the hypervisor or by passt,
networks of this host, those of CNI plugins, interfaces that the pod lists itself. A pod has one, or several, in the
order of its NICs (`choice.py`). What only some can do are protocols of their own, below; `require` finds one, or
raises `Unsupported` before anything was taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar, runtime_checkable

import msgspec

from ..errors import Unsupported
from ..model.network import Attachment, Network
from ..model.specs import PortMapping
from ..model.statistics import EgressStats
from ..model.status import Pod
from ..protocol.messages import Interface
from . import tap
from .balanced import Balanced
from .floating import Floating
from .idle import IdleNic

F = TypeVar("F")


class NicKind(StrEnum):
    """How a machine has a NIC."""

    TAP = "tap"  # a tap of this host
    STREAM = "stream"  # a connected socket that carries frames
    USER = "user"  # the hypervisor's own user-mode network
    SPARE = "spare"  # it leads nowhere yet


@dataclass(frozen=True)
class Link:
    """A NIC of a pod, as it is known before anything is taken."""

    kind: NicKind
    addresses: tuple[str, ...] = ()  # CIDR; none where they are not known before the pod runs
    gateways: tuple[str, ...] = ()
    mtu: int = 0  # 0: what the NIC has by itself
    mac: str = ""  # "": any
    tap: str = ""  # its name on this host, where it has one there
    walled: bool = False  # its gateway does not lead to this host
    routers: bool = True  # whether its neighbours may tell the guest of routers
    plugs: bool = False  # a NIC of a machine that waits can become it (`Backend.attach`)


@dataclass(frozen=True)
class Nic:
    """A NIC that a machine is launched with; the descriptor is its caller's to close."""

    kind: NicKind
    mac: str
    fd: int = -1  # of the tap, or the stream
    tap: str = ""  # its name on this host; of a spare one that which it will lead to
    ports: tuple[PortMapping, ...] = ()  # that the hypervisor publishes
    host_loopback: bool = False  # it may reach what listens on this host's loopback


class Records(Protocol):
    """What backends read of the daemon's records, and the one thing that they write."""

    def pods(self) -> list[Pod]: ...

    def has_pod(self, id_: str) -> bool:
        """Whether there is a pod of this id."""

    def pod(self, key: str) -> Pod:
        """A pod by its id or name.

        :raise NotFound: there is none.
        """

    def put_pod(self, pod: Pod) -> None:
        """Record a pod that has changed."""

    def networks(self) -> list[Network]: ...

    def network_of(self, attachment: Attachment) -> Network:
        """The one that it is in. :raise NotFound: it is gone."""

    def attached(self, network: Network) -> list[Pod]:
        """The pods that are in this network."""

    def pods_at(self, address: str) -> Collection[Pod]:
        """Those that have it in a network."""

    def floating(self) -> Floating:
        """Floating addresses of pods."""

    def balanced(self) -> tuple[Balanced, ...]:
        """What connections are spread over containers, as it is now."""


class Forwarding(Protocol):
    """A machine that publishes ports itself, by its hypervisor's user-mode network."""

    async def add_port(self, port: PortMapping) -> None: ...

    async def remove_port(self, port: PortMapping) -> None:
        """Publish a port no longer."""


ForwardingOf = Callable[[], Forwarding]  # a running machine's; it raises `Unsupported` where it has none


class Backend(Protocol):
    """One way in which NICs of a pod reach something."""

    name: str
    kind: NicKind  # of the NICs that it gives; where it gives several kinds, of its own
    released_by_record: bool  # `release` needs the pod's record: that may not go before

    def links(self, pod: Pod) -> list[Link]:
        """The NICs that it gives to the pod. Nothing is taken."""

    def check(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        """Whether the pod can be in it, and publish these ports by it. Nothing is taken.

        :raise InvalidArgument: with the port that it cannot publish. :raise Unsupported: it does not go with another.
        """

    async def prepare(self, pod: Pod) -> None:
        """What must be before the pod's machine: bridges, addresses, what plugins make. Idempotent.

        :raise HyperError: why it cannot be; `release` takes back what was made.
        """

    async def open(
        self, pod: Pod, links: Sequence[Link], ports: Sequence[PortMapping], stack: contextlib.ExitStack
    ) -> list[Nic]:
        """NICs for a machine that is to be launched, one for each of its links, with the helpers that serve them.

        `ports` are those that the pod publishes by this backend. The stack closes this daemon's descriptors, after the
        launch; what stays then belongs to the machine and ends with it.

        :raise Conflict: a port or a name is taken. :raise PermissionDenied: hyperd may not.
        """

    async def attach(self, pod: Pod, link: Link, ports: Sequence[PortMapping], idle: IdleNic) -> None:
        """Plug the NIC of a machine that is there already, and waited, into the pod's network.

        A NIC of kind USER has its ports from the machine's `reconfigure`.

        :raise Conflict: a port or a name is taken; the machine is of no use then.
        """

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        """Publish further ports of a pod that runs, all or none.

        :raise Conflict: one is taken. :raise Unsupported: it cannot, while the pod runs; nothing was taken.
        """

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], forwarding: ForwardingOf) -> None:
        """Publish them no longer.

        :raise Unsupported: it cannot, while the pod runs.
        """

    async def release(self, pod_id: str) -> None:
        """Everything that it took for the pod, whose machine has ended, or never came to be. Idempotent.

        It goes by the records alone where an earlier daemon did the taking; it is asked of pods of other backends too.
        """


def numbered(pod_id: str, attachments: Sequence[Attachment]) -> list[Attachment]:
    """A pod that left a network while it ran has a gap where that was; its next machine has none."""
    return [
        msgspec.structs.replace(a, interface=f"eth{i}", tap=tap.name_of(pod_id, i)) for i, a in enumerate(attachments)
    ]


# -- what only some can do ---------------------------------------------------------------


@runtime_checkable
class Policy(Protocol):
    """Where the pod's packets may go, and how fast it sends: by rules of this host's kernel."""

    async def enforce(self, pod: Pod) -> None:
        """The pod's rules are in force; before that no container of it runs. Idempotent.

        :raise Unavailable: when the kernel refuses them.
        """

    def egress(self, pod: Pod) -> EgressStats | None:
        """What it has reached by name, and tried; None of one that has no policy, or no machine."""

    async def follow(self, pod: Pod) -> None:
        """The record of the pod, whatever that does now, has another policy: it is in force, and connections that it
        does not allow have been ended. Idempotent.

        :raise Unavailable: when the kernel refuses the rules.
        """


@runtime_checkable
class Rates(Protocol):
    """How fast a pod may receive."""

    async def limit(self, link: Link, rate: int) -> None:
        """What a NIC that is there hands to its guest, in bits per second. Idempotent."""


@runtime_checkable
class Dns(Protocol):
    """Who answers the pod's questions for names."""

    def name_servers(self, pod: Pod) -> list[str]:
        """Their addresses, for the pod's /etc/resolv.conf; none where it has none yet."""


@runtime_checkable
class Shared(Protocol):
    """Networks that pods have in common, which they join and leave while they run."""

    def spares(self, pod: Pod, first: int) -> list[Nic]:
        """Further NICs of a machine that has `first` others, for networks that it joins later; nothing is taken."""

    async def join(self, pod: Pod, attachment: Attachment, stack: contextlib.ExitStack) -> Nic | None:
        """Bring a NIC of the running pod into a network, which its record names already. Idempotent.

        A tap that the machine has is brought there, and None returned. Else it is made: a spare NIC is to be plugged
        into it; the stack closes this daemon's descriptor.

        :raise HyperError: why it cannot be; `leave` and `refresh` take back what was made.
        """

    def told(self, pod: Pod) -> list[Interface]:
        """What the guest of a running pod is told of the NICs that are in networks."""

    async def leave(self, attachment: Attachment) -> None:
        """Take its tap out, if there is one; the record forgets it after that, and then its rules go by `refresh`.

        Idempotent.
        """

    async def refresh(self) -> None:
        """What is in force is what the records say."""


_NAMES: dict[type, str] = {
    Policy: "rules about what a pod may reach, nor a limit of what it sends",
    Rates: "a limit of what a pod receives",
    Dns: "names",
    Shared: "joining networks while the pod runs",
}


def require(backend: Backend, facet: type[F]) -> F:
    """The same backend, as one that has this facet.

    :raise Unsupported: when it has not.
    """
    if isinstance(backend, facet):
        return backend
    raise Unsupported(f"the network {backend.name!r} does not support {_NAMES[facet]}",
                      hint="use a network of this host, such as --network bridge")  # fmt: skip
