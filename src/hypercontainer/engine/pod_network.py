# SPDX-License-Identifier: Apache-2.0
"""A pod's network, whatever it is of: what the engine asks of the pod's backends (`network/backend.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from ..errors import GuestError, HyperError, InvalidArgument, Unavailable, Unsupported
from ..hypervisor.driver import AnyNetwork, Machine, SpareNetwork, StreamNetwork, TapNetwork, UserNetwork
from ..hypervisor.facets import NicAddition, NicHotplug, PortForwarding, require
from ..model.host import Check
from ..model.network import Attachment
from ..model.rates import bounded
from ..model.specs import PortMapping
from ..model.statistics import EgressStats
from ..model.status import Pod
from ..network import addresses, tap
from ..network import backend as port
from ..network.backend import Backend, Dns, Link, Nic, NicKind, Policy, Rates, Shared
from ..network.choice import Choice
from ..network.idle import IdleNic
from ..network.usermode import check_ipv4
from ..protocol.constants import GuestCode
from ..protocol.messages import Interface
from ..sys import deadlines
from .host_ports import HostPorts
from .runtime import Runtime

log = logging.getLogger(__name__)
_LOOK_AGAIN = 0.1  # seconds, for an interface that was plugged in
TAKEN_AS: dict[str, type] = {NicKind.TAP: TapNetwork, NicKind.STREAM: StreamNetwork, NicKind.USER: UserNetwork}


def for_machine(nic: Nic) -> AnyNetwork:
    """A NIC as drivers take it."""
    if nic.kind is NicKind.TAP:
        return TapNetwork(nic.mac, nic.fd, nic.tap)
    if nic.kind is NicKind.SPARE:
        return SpareNetwork(nic.mac, nic.tap)
    if nic.kind is NicKind.STREAM:
        return StreamNetwork(nic.mac, nic.fd)
    return UserNetwork(nic.mac, nic.ports, nic.host_loopback)


class PodNetwork:
    """Of every pod."""

    def __init__(self, choice: Choice, ports: HostPorts, received: int = 0) -> None:
        """`received` is what each NIC may receive at most, in bits per second, where a network can do that; 0: all."""
        self.choice = choice
        self._ports = ports
        self._received = received

    # -- what is known before anything is taken ---------------------------------------

    def links(self, pod: Pod) -> list[Link]:
        """The pod's NICs, in their order."""
        found: list[Link] = []
        for backend in self.choice.of(pod):
            found += backend.links(pod)
        return found

    def name_servers(self, pod: Pod) -> list[str]:
        """Those of its first network that has some."""
        asked = (b.name_servers(pod) for b in self.choice.of(pod) if isinstance(b, Dns))
        return next((servers for servers in asked if servers), [])

    def is_fenced(self, pod: Pod) -> bool:
        """Whether what serves its network is to be kept from the host's loopback."""
        own = [link for link in self.links(pod) if link.kind is not NicKind.TAP]
        return all(link.walled for link in own)

    def kinds(self, pod: Pod) -> set[type]:
        """Which kinds of networks its machine has (`Driver.takes`)."""
        return {TAKEN_AS[link.kind] for link in self.links(pod)}

    def check(self, pod: Pod) -> None:
        """Whether its network can do what its specification asks for.

        :raise Unsupported: with what it cannot. :raise InvalidArgument: a port that it cannot publish.
        """
        if pod.spec.egress and pod.spec.dns:
            raise InvalidArgument("a pod with an egress policy asks no name server but its network's",
                                  hint="leave out --dns")  # fmt: skip
        for backend in self.choice.of(pod):
            if pod.spec.allow or pod.spec.egress_rate or pod.spec.egress or pod.spec.security_groups:
                port.require(backend, Policy)
            if pod.spec.ingress_rate:
                port.require(backend, Rates)
            backend.check(pod, ())
        self._check_ports(pod, pod.spec.ports)

    def _check_ports(self, pod: Pod, ports: Sequence[PortMapping]) -> None:
        if publisher := self._publisher(pod):
            publisher.check(pod, ports)
        else:
            check_ipv4(ports)

    def _publisher(self, pod: Pod) -> Backend | None:
        """The backend of its first NIC publishes its ports."""
        return next(iter(self.choice.of(pod)), None)

    # -- ports ------------------------------------------------------------------------

    def claim(self, pod: Pod, ports: list[PortMapping]) -> list[PortMapping]:
        """The ports with the numbers that the pod gets, its own until they are released.

        :raise InvalidArgument: its network cannot publish one. :raise Conflict: naming who has one.
        """
        self._check_ports(pod, ports)
        return self._ports.claim(pod, ports)

    def port_user(self, port: PortMapping) -> str:
        """Words for who has it; "" for nobody."""
        return self._ports.user(port)

    def unclaim(self, pod_id: str, ports: list[PortMapping] | None = None) -> None:
        """These, or all of the pod's: the record tells from here on, or nobody has them. Idempotent."""
        self._ports.release(pod_id, ports)

    async def publish(self, pod: Pod, ports: Sequence[PortMapping], machine: Machine) -> None:
        """Publish further ports of a pod that runs, all or none.

        :raise Conflict: one is taken. :raise Unsupported: it cannot, while the pod runs.
        """
        if publisher := self._publisher(pod):
            await publisher.publish(pod, ports, lambda: require(machine, PortForwarding))

    async def unpublish(self, pod: Pod, ports: Sequence[PortMapping], machine: Machine) -> None:
        """Publish them no longer.

        :raise Unsupported: it cannot, while the pod runs.
        """
        if publisher := self._publisher(pod):
            await publisher.unpublish(pod, ports, lambda: require(machine, PortForwarding))

    # -- with its machine -------------------------------------------------------------

    async def prepare(self, pod: Pod) -> None:
        """What must be before the pod's machine; its record may be another one afterwards."""
        self.choice.pin(pod)
        for backend in self.choice.of(pod):
            await backend.prepare(pod)

    async def enforce(self, pod: Pod) -> None:
        """The pod's rules are in force; before that no container of it runs."""
        for backend in self.choice.of(pod):
            if isinstance(backend, Policy):
                await backend.enforce(pod)

    def egress(self, pod: Pod) -> EgressStats | None:
        """What it has reached by name, and tried; None of one that has no policy, or no machine."""
        found = (backend.egress(pod) for backend in self.choice.of(pod) if isinstance(backend, Policy))
        return next((one for one in found if one), None)

    async def follow(self, pod: Pod) -> None:
        """The record of the pod, whatever that does now, has another egress policy: it is in force.

        :raise Unavailable: when the kernel refuses the rules.
        """
        for backend in self.choice.of(pod):
            if isinstance(backend, Policy):
                await backend.follow(pod)

    def has_rules(self, pod: Pod) -> bool:
        """Whether all of its NICs go by rules of this host."""
        backends = self.choice.of(pod)
        return bool(backends) and all(isinstance(b, Policy) for b in backends)

    async def refresh(self) -> None:
        """What is in force is what the records say. :raise Unavailable: when the kernel refuses the rules."""
        for backend in self.choice.all:
            if isinstance(backend, Shared):
                await backend.refresh()

    async def open(self, pod: Pod, stack: contextlib.ExitStack) -> tuple[AnyNetwork, ...]:
        """NICs for a machine that is to be launched; their descriptors are closed with the stack."""
        nics: list[Nic] = []
        backends = self.choice.of(pod)
        for backend in backends:
            links = backend.links(pod)
            nics += await backend.open(pod, links, pod.ports if backend is backends[0] else (), stack)
            for link in links:
                await self._limit(pod, backend, link)
        return tuple(map(for_machine, nics))

    def spares(self, pod: Pod, first: int) -> list[Nic]:
        """Further NICs of the pod's machine, which has `first` others: for networks that it joins while it runs."""
        shared = self.shared(pod)
        return shared.spares(pod, first) if shared else []

    async def attach(self, pod: Pod, link: Link, idle: IdleNic) -> None:
        """Plug the NIC of a machine that waited into the pod's network, as its only one.

        :raise Conflict: a published port is taken.
        """
        (backend,) = self.choice.of(pod)
        await backend.attach(pod, link, pod.ports, idle)
        await self._limit(pod, backend, link)

    async def _limit(self, pod: Pod, backend: object, link: Link) -> None:
        if (rate := bounded(pod.spec.ingress_rate, self._received)) and isinstance(backend, Rates):
            await backend.limit(link, rate)

    async def release(self, pod_id: str) -> None:
        """Everything that the pod's network took, whichever it was. Idempotent.

        :raise HyperError: what is wrong; the rest is released all the same.
        """
        self.unclaim(pod_id)
        self.choice.forget(pod_id)
        wrong: list[Exception] = []
        for backend in self.choice.all:
            try:
                await backend.release(pod_id)
            except Exception as error:
                log.error("the network %s does not give back what pod %s had: %s", backend.name, pod_id[:12], error)
                wrong.append(error)
        if wrong:
            raise wrong[0]

    async def join(self, pod: Pod, attachment: Attachment, machine: Machine, *, spare: bool) -> None:
        """Bring a NIC of the running pod into a network, which its record names already. Idempotent.

        :raise HyperError: why it cannot be; `leave` takes back what was made.
        """
        shared = self.shared(pod)
        assert shared  # it is in a network
        hotplug, nic = (require(machine, NicHotplug) if spare else None), tap.number_of(pod.id, attachment.tap)
        assert nic is not None
        if hotplug and not await hotplug.plugged(nic):
            await hotplug.pull_out(nic)  # what a daemon that died has half done
        with contextlib.ExitStack() as stack:
            made = await shared.join(pod, attachment, stack)
            if made and hotplug is None:
                raise Unavailable(f"the virtual machine of {pod.name} has lost its network interface")
            if made and hotplug:
                await hotplug.plug_in(nic, TapNetwork(made.mac, made.fd, made.tap))
        await self._limit(pod, shared, Link(NicKind.TAP, tap=attachment.tap))

    async def add_spare(self, pod: Pod, runtime: Runtime) -> str | None:
        """A further spare NIC for a pod whose spare ones are all in use: its tap's name; None where there can be none.

        The caller records it. :raise Unavailable: the hypervisor refuses.
        """
        if not isinstance(runtime.machine, NicAddition) or not self.shared(pod):
            return None
        numbers = [n for name in runtime.nics if (n := tap.number_of(pod.id, name)) is not None]
        number, mac = max(numbers, default=-1) + 1, addresses.new_mac()
        try:
            await runtime.machine.add_nic(number, mac)
        except Unsupported:
            return None
        name = tap.name_of(pod.id, number)
        runtime.nics[name] = mac
        runtime.spares.add(name)
        return name

    async def leave(self, pod: Pod, attachment: Attachment, machine: Machine, *, spare: bool) -> None:
        """Take it out again; the record forgets it after that, and then its rules go by `refresh`. Idempotent."""
        shared, nic = self.shared(pod), tap.number_of(pod.id, attachment.tap)
        assert shared and nic is not None
        await shared.leave(attachment)
        if spare:
            try:
                await require(machine, NicHotplug).pull_out(nic)
            except (HyperError, OSError) as error:  # its tap leads nowhere by now
                log.warning("the NIC %s of pod %s is not pulled out: %s", attachment.interface, pod.name, error)

    async def join_again(self, pod: Pod, runtime: Runtime) -> None:
        """What a daemon that died may not have come to: NICs in the networks of the record, and what guests are told.

        Idempotent. :raise HyperError: why it cannot be.
        """
        if shared := self.shared(pod):
            for attachment in pod.attachments:
                if attachment.tap in runtime.spares:
                    await self.join(pod, attachment, runtime.machine, spare=True)
            for interface in shared.told(pod):
                await set_interface(runtime, interface)

    def user_network(self, pod: Pod) -> str:
        """What its user-mode network is, for the record of its machine; "" for a pod that has none."""
        return self.choice.user_network(pod)

    def released_by_record(self, pod: Pod) -> bool:
        """Whether its record has to outlive what its network took."""
        return bool(pod.ports) or any(b.released_by_record for b in self.choice.of(pod))

    async def checks(self) -> list[Check]:
        """For `doctor`, which also removes what daemons that are gone have left on this host."""
        removed: list[str] = []
        with contextlib.suppress(Unavailable):  # without nft there is nothing of theirs either
            removed = await self.choice.sweep()
        found = "removed what a hyperd that is gone had left: "
        return [Check(name="network", status="ok", found=found + ", ".join(removed))] if removed else []

    def shared(self, pod: Pod) -> Shared | None:
        """What lets the pod join and leave networks while it runs; None where it cannot."""
        return next((b for b in self.choice.of(pod) if isinstance(b, Shared)), None)


async def set_interface(runtime: Runtime, interface: Interface, *, undo: bool = False) -> None:
    """The guest configures an interface; one that was plugged in a moment ago it may not have found yet.

    :raise GuestError: it does not find it in time.
    """
    late = asyncio.get_running_loop().time() + deadlines.PLUG
    while True:
        try:
            return await runtime.agent.set_interface(interface, undo=undo)
        except GuestError as error:
            if error.guest_code != GuestCode.NOT_FOUND or asyncio.get_running_loop().time() > late:
                raise
            await asyncio.sleep(_LOOK_AGAIN)
