# SPDX-License-Identifier: Apache-2.0
"""A host for each backend of a pod's network: objects, or a network namespace that is made for one test."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from hypercontainer.engine.events import Events
from hypercontainer.engine.host_ports import HostPorts
from hypercontainer.engine.networks import Networks, NetworkSettings
from hypercontainer.engine.pod_network import PodNetwork, for_machine
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import Conflict
from hypercontainer.hypervisor.driver import AnyNetwork, StreamNetwork, TapNetwork
from hypercontainer.model.network import NetworkSpec
from hypercontainer.model.pods import InterfaceSpec, PodSpec
from hypercontainer.model.specs import PortMapping
from hypercontainer.model.status import Pod, Vm
from hypercontainer.network import nftables
from hypercontainer.network.choice import Backends, Choice
from hypercontainer.network.fake import FakeChoice, FakeNet
from hypercontainer.network.fake_kernel import FakeKernel
from hypercontainer.network.idle import IdleNic
from hypercontainer.network.passt import RunsAs
from hypercontainer.state.database import Database
from hypercontainer.sys import users

_CLONE_NEWNET = 0x40000000
_ENDS = 10.0  # seconds in which what ends with a machine has ended
_COUNTERS = re.compile(r"packets \d+ bytes \d+|# handle \d+")


class Machine:
    """What a hypervisor would hold: NICs by their descriptors, and ports by sockets."""

    driver = "test"

    def __init__(self, networks: Sequence[AnyNetwork]) -> None:
        self.fds = [os.dup(n.fd) for n in networks if isinstance(n, TapNetwork | StreamNetwork)]
        self.taps = {n.name: n.mac for n in networks if getattr(n, "name", "")}
        self._sockets: dict[int, socket.socket] = {}
        for network in networks:
            for port in getattr(network, "ports", ()):
                self._take(port)

    def _take(self, port: PortMapping) -> None:
        try:
            self._sockets[port.host_port] = socket.create_server((port.host_ip or "0.0.0.0", port.host_port))
        except OSError as error:
            raise Conflict(f"cannot publish port {port.host_port}: {error}") from error

    async def add_port(self, port: PortMapping) -> None:
        self._take(port)

    async def remove_port(self, port: PortMapping) -> None:
        self._sockets.pop(port.host_port).close()

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        for fd in self.fds:
            os.close(fd)
        self.fds, self._sockets = [], {}


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """In a network namespace, for root: the ports of the host are other tests', too."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            nftables._library.cache_clear()
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0
            nftables._library.cache_clear()


class Place:
    """A daemon's networks on a host of their own."""

    asks = PodSpec(network="user")  # of a pod
    nics = 1
    changes_ports = True  # while a pod runs
    root = False  # only root can have it

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = Registry(Database(directory / "state.db"))
        self.made: Choice | None = None
        self.machines: list[Machine] = []
        self._pods = 0

    def choice(self) -> Choice:
        raise NotImplementedError

    def things(self) -> set[str]:
        """All that there is of networks."""
        raise NotImplementedError

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """While a test runs."""
        yield

    async def begin(self) -> None:
        """A daemon starts."""
        choice = self.made = self.choice()
        self.net = PodNetwork(choice, HostPorts(self.registry))
        self.networks = Networks(self.registry, NetworkSettings(), Events(self.registry.journal), self.net)
        await choice.start()
        if not any(n.name == "n" for n in self.registry.networks()):
            await self.networks.create(NetworkSpec(name="n", subnets=["10.77.0.0/24"]))

    def die(self) -> None:
        """The daemon, at once: its sockets are closed."""

    async def close(self) -> None:
        for machine in self.machines:
            machine.close()
        if self.made:
            for pod in self.registry.pods():
                await self.net.release(pod.id)
            await self.made.stop()
        self.registry.journal.close()

    def pod(self, *ports: PortMapping, implicit: bool = True, spec: PodSpec | None = None) -> Pod:
        self._pods += 1
        id_ = f"{os.getpid():06x}{self._pods:04x}".ljust(64, "e")
        asked = msgspec.structs.replace(spec or self.asks, ports=list(ports))
        spec, attachments = self.networks.plan(id_, asked, [], [])
        pod = Pod(id=id_, name=f"pod{self._pods}", created_at=f"{self._pods:04}", hostname="h", vcpus=1,
                  memory=1 << 28, spec=spec, attachments=attachments, implicit=implicit)  # fmt: skip
        self.registry.put_pod(pod)
        return pod

    async def up(self, pod: Pod) -> Machine:
        """As a start does, up to where containers run."""
        claimed = self.net.claim(pod, pod.spec.ports)
        self.registry.put_pod(msgspec.structs.replace(pod, ports=claimed))
        await self.net.prepare(self.registry.pod(pod.id))
        with contextlib.ExitStack() as stack:
            networks = await self.net.open(self.registry.pod(pod.id), stack)
            networks += tuple(map(for_machine, self.net.spares(self.registry.pod(pod.id), len(networks))))
            machine = Machine(networks)
        self.machines.append(machine)
        await self.net.enforce(self.registry.pod(pod.id))
        vm = Vm(driver="test", pid=1, pid_started=1, directory="", token="", nics=machine.taps)
        self.registry.put_pod(msgspec.structs.replace(self.registry.pod(pod.id), vm=vm))
        self.net.unclaim(pod.id)
        return machine

    async def down(self, pod: Pod, *, twice: bool = False) -> None:
        for machine in self.machines:
            machine.close()
        self.registry.put_pod(msgspec.structs.replace(self.registry.pod(pod.id), vm=None, ports=pod.ports))
        for _ in range(1 + twice):
            await self.net.release(pod.id)

    def published(self) -> set[int]:
        """Ports of the host that lead to a pod."""
        with open("/proc/net/tcp") as f:
            return {int(line.split()[1].split(":")[1], 16) for line in f.readlines()[1:] if line.split()[3] == "0A"}

    def idle(self, kind: str) -> IdleNic:
        """The NIC of a machine that waits."""
        return IdleNic.make(kind)


# -- objects --------------------------------------------------------------------------


class FakeCore(Place):
    """The fake's core."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.host = FakeNet()

    def choice(self) -> Choice:
        return FakeChoice(self.host, self.registry)

    def things(self) -> set[str]:
        found = {f"tap {t} in {self.host.taps[t].bridge}" for t in self.host.present()}
        found |= {f"rule {t}" for t in self.host.named()} | {f"bridge {b}" for b in self.host.bridges}
        return found | {f"prepared {p}" for p in self.host.prepared} | {f"port {p}" for p in self.published()}

    def published(self) -> set[int]:
        return {p.host_port for ports in self.host.published.values() for p in ports}

    def idle(self, kind: str) -> IdleNic:
        return IdleNic(kind, "hw0", fd=self.host.create_tap("hw0")) if kind == "tap" else IdleNic.make(kind)


class FakeNetworks(FakeCore):
    """The fake with all facets."""

    asks = PodSpec(network="n")


class BridgeOnAnObject(Place):
    """The real backend; the kernel below it is an object."""

    asks = PodSpec(network="n")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.host = FakeKernel()

    def choice(self) -> Choice:
        return Backends(self.registry, self.directory, "slirp")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with self.host.installed():
            yield
        self.host.close()

    def things(self) -> set[str]:
        found = {f"tap {t} in {self.host.taps[t].bridge}" for t in self.host.present()}
        found |= {f"bridge {b}" for b in self.host.bridges} | {f"relay {r}" for r in self.host.relays}
        found |= {f"server {s}" for s in self.host.servers} | {f"gate {g}" for g in self.host.gates}
        return found | {f"{t} {s} {e}" for t, sets in self.host.tables.items() for s, of in sets.items() for e in of}

    def published(self) -> set[int]:
        elements = [e for sets in self.host.tables.values() for of in sets.values() for e in of]
        return {int(word) for e in elements if "tcp" in e for word in re.findall(r"\b\d{4,5}\b", e)}

    def die(self) -> None:
        self.host.servers.clear()
        self.host.relays.clear()

    def idle(self, kind: str) -> IdleNic:
        return IdleNic(kind, "hw0", fd=self.host._create_tap("hw0"))


# -- namespaces -----------------------------------------------------------------------


def _runs_as(_: str, fenced: bool) -> RunsAs:
    """As one machine at a time."""
    return RunsAs((users.ranges().fenced if fenced else users.ranges().open)[0])


class Real(Place):
    """Backends of this host, in a network namespace with a way out that leads nowhere."""

    root = True
    user_network = "slirp"

    def choice(self) -> Backends:
        return Backends(self.registry, self.directory, self.user_network, cni_networks=self.directory, runs_as=_runs_as)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        for words in ("link add up0 type veth peer down0", "link set down0 up", "addr add 203.0.113.1/24 dev up0",
                      "link set up0 up", "route add default via 203.0.113.2",
                      "link add br9 type bridge", "link set br9 up"):  # fmt: skip
            subprocess.run(["ip", *words.split()], check=True)
        yield

    def die(self) -> None:
        assert isinstance(self.made, Backends)
        host = self.made._bridge._host
        for watch in (host._watch, self.made._fence._watch):
            watch.stop()
            if watch._task:  # that puts rules back, and would open relays again
                watch._task.cancel()
        for open_ in (*host._servers.values(), *host._relays.values()):
            open_.close()

    def things(self) -> set[str]:
        """When what ends by itself has ended."""
        end = time.monotonic() + _ENDS
        while (found := self._now()) & self._ending() and time.monotonic() < end:
            os.sched_yield()
        return found

    def _ending(self) -> set[str]:
        """Of machines that are gone: the kernel and passt take a moment."""
        return set() if any(m.fds for m in self.machines) else {"a tap", "passt"}

    def _now(self) -> set[str]:
        said = [json.loads(_said("ip", "-j", "link"))]
        names = {link["ifname"] for link in said[0]} - {"cni9"}
        found = {f"link {n}" for n in names} | (
            {"a tap"} if any(n.startswith("h") and n[1] in "tw" for n in names) else set()
        )
        rules = _COUNTERS.sub("", _said("nft", "list", "ruleset")).splitlines()
        found |= {f"rule {line.strip()}" for line in rules}
        found |= {f"namespace {n}" for n in os.listdir("/run/netns") if n.startswith(f"hyc-{os.getpid():06x}")}
        found |= {f"address {p.name}" for p in (self.directory / "ipam").glob("*/[0-9]*")}
        tuns = sum(_link(f"/proc/self/fd/{fd}") == "/dev/net/tun" for fd in os.listdir("/proc/self/fd"))
        return found | {f"{tuns} descriptors"} | ({"passt"} if _passts() else set())

    def published(self) -> set[int]:
        ruled = re.findall(r"tcp \. (\d+) :", _said("nft", "list", "ruleset"))
        return super().published() | {int(p) for p in ruled}


class Slirp(Real):
    """The user-mode network by the hypervisor."""


class Passt(Real):
    """The user-mode network by passt."""

    user_network = "passt"
    changes_ports = False


class Bridge(Real):
    """A network of this host."""

    asks = PodSpec(network="n")


class Explicit(Real):
    """A tap on somebody's bridge, and the user-mode network."""

    asks = PodSpec(interfaces=[InterfaceSpec(bridge="br9", addresses=["192.168.9.2/24"]), InterfaceSpec()])
    nics = 2


class Cni(Real):
    """What plugins make."""

    asks = PodSpec(network="cni:test")
    changes_ports = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        ipam = {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": str(directory / "ipam")}
        plugin = {"type": "bridge", "bridge": "cni9", "isGateway": True, "ipMasq": False, "ipam": ipam}
        text = json.dumps({"cniVersion": "0.4.0", "name": "test", "plugins": [plugin]})
        (directory / "test.conflist").write_text(text)


PLACES: dict[str, type[Place]] = {
    "fake": FakeCore, "fake networks": FakeNetworks, "bridge on an object": BridgeOnAnObject, "slirp": Slirp,
    "passt": Passt, "bridge": Bridge, "explicit": Explicit, "cni": Cni,
}  # fmt: skip


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _passts() -> list[str]:
    here = os.readlink("/proc/self/ns/net")
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        if _link(f"/proc/{pid}/ns/net") == here:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as f:
                if f.read().startswith("passt"):
                    found.append(pid)
    return found
