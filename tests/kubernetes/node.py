# SPDX-License-Identifier: Apache-2.0
"""A node: a network and a mount namespace with hyperd and a kubelet, whose pods have addresses by CNI's plugins."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.conftest import BIN, DEADLINE, Daemon, launched, wait_for

from .control import Control
from .processes import Program, ip, namespace, running

_READY = "300s"
# As in hyperd.toml: pods outlive hyperd.
_SETTINGS = """
cri = true
cri_network = "cni"
cri_kubelet = "{kubelet}"
cri_pod_memory = "192m"
live_restore = true
listen = ["tcp://{address}:2377"]
tlscert = "{cert}"
tlskey = "{key}"
tlscacert = "{ca}"
clients = {{ control = ["audit"], "*" = [] }}
"""
KUBELET = """
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
address: {address}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
clusterDomain: cluster.test
clusterDNS: [10.96.0.10]
evictionHard: {{memory.available: 1Mi}}
evictionPressureTransitionPeriod: 5s
housekeepingInterval: 1s
nodeStatusUpdateFrequency: 2s
syncFrequency: 10s
runtimeRequestTimeout: 2m
"""
# What programs of a node write is in files of its own: nothing of this machine's is changed.
_MOUNTS = """
for name in etc var/lib; do
    mkdir -p {place}/over/$name/upper {place}/over/$name/work
    mount -t overlay overlay -o lowerdir=/$name,upperdir={place}/over/$name/upper,workdir={place}/over/$name/work /$name
done
mkdir -p {place}/log /etc/cni/net.d
mount --bind {place}/log /var/log
rm -f /etc/cni/net.d/*
cp {place}/network.conflist /etc/cni/net.d/
sysctl -qw net.ipv4.ip_forward=1
touch {place}/mounted
exec sleep infinity
"""


def subnet(number: int) -> str:
    return f"10.44.{number}.0/24"


def _network(place: Path, number: int) -> str:
    bridge = {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "mtu": 1450,
        "ipam": {
            "type": "host-local", "dataDir": str(place / "cni"), "ranges": [[{"subnet": subnet(number)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }  # fmt: skip
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]})


class Node:
    """Its programs can be ended and started again."""

    def __init__(self, control: Control, number: int, place: Path) -> None:
        self.control, self.number, self.place = control, number, place
        self.name = f"node{number}"
        self.netns = f"hk-node{number}-{os.getpid()}"
        self.address = ""
        self.hyper: Daemon
        self._hyperd = contextlib.ExitStack()
        self._kubelet: Program | None = None
        self._within: tuple[str, ...] = ()

    def enter(self, holder: Program) -> None:
        """`holder` keeps the namespaces."""
        wait_for((self.place / "mounted").exists, f"the mounts of {self.name}: {holder.words()}")
        self._within = ("nsenter", "-t", str(holder.process.pid), "--net", "--mount", "--")

    def run(self, *command: str | Path) -> str:
        """Something on the node; its output."""
        done = subprocess.run(
            [*self._within, *command], capture_output=True, text=True, timeout=DEADLINE, check=False
        )  # fmt: skip
        assert not done.returncode, (command, done.stdout, done.stderr)
        return done.stdout

    def start_hyperd(self) -> None:
        program = (BIN / "hyperd", "--config", self.place / "hyperd.toml")
        daemon = launched(
            self.place / "root", "--network", "user", run=self.place / "run", prefix=self._within, program=program
        )
        self.hyper = self._hyperd.enter_context(daemon)

    def kill_hyperd(self) -> None:
        """Its virtual machines go on."""
        self.hyper.stop(signal.SIGKILL)
        self._hyperd.close()

    @property
    def socket(self) -> Path:
        """Whom its kubelet asks."""
        return self.place / "run/cri.sock"

    def start_kubelet(self) -> None:
        socket = f"unix://{self.socket}"
        kubelet = self.place / "kubelet"
        command = [
            *self._within, self.control.programs.kubelet, "--config", self.place / "kubelet.yaml", "--kubeconfig",
            self.control.kubeconfig, f"--root-dir={kubelet}", f"--cert-dir={kubelet}/pki", "--container-runtime=remote",
            f"--container-runtime-endpoint={socket}", f"--image-service-endpoint={socket}",
            f"--hostname-override={self.name}", f"--node-ip={self.address}",
        ]  # fmt: skip
        self._kubelet = Program(f"kubelet of {self.name}", self.place / "kubelet.log", command)

    def kill_kubelet(self) -> None:
        assert self._kubelet is not None
        self._kubelet.end(signal.SIGKILL)

    def ready(self) -> None:
        """Wait until its kubelet answers, and the scheduler may use it; what it said of itself may be of before."""
        asked = (*self._within, "curl", "-sk", "-m", "5", f"https://{self.address}:10250/healthz")
        wait_for(lambda: subprocess.run(asked, capture_output=True, check=False).stdout == b"ok", self.words(), 120.0)
        wait_for(lambda: self.control.tried("get", "node", self.name).returncode == 0, self.words(), 120.0)
        self.control.kubectl("wait", "--for=condition=Ready", f"node/{self.name}", f"--timeout={_READY}")

    def reach(self, other: Node) -> None:
        """The pods of another node."""
        ip("-n", self.netns, "route", "add", subnet(other.number), "via", other.address)

    def words(self) -> str:
        return self._kubelet.words() if self._kubelet else ""

    def close(self) -> None:
        """Nothing of it is left."""
        if self._kubelet:
            self._kubelet.end()
        if self.hyper.process.poll() is None:
            for pod in self.hyper.out("pod", "ls", "-q").split():
                self.hyper.ctl("pod", "rm", "-f", pod)
        self._hyperd.close()


@contextlib.contextmanager
def node(control: Control, number: int, place: Path) -> Iterator[Node]:
    """Ready for pods."""
    place.mkdir()
    found = Node(control, number, place)
    with contextlib.ExitStack() as stack:
        stack.enter_context(namespace(found.netns))
        found.address = control.link(found.netns, number)
        ip("-n", control.name, "route", "add", subnet(number), "via", found.address)
        (place / "network.conflist").write_text(_network(place, number))
        pair = control.authority.sign(found.name, server=True, further=[found.address])
        tls = {"cert": pair.cert, "key": pair.key, "ca": control.authority.cert}
        (place / "hyperd.toml").write_text(_SETTINGS.format(kubelet=place / "kubelet", address=found.address, **tls))
        (place / "kubelet.yaml").write_text(KUBELET.format(address=found.address))
        alone = ("nsenter", f"--net=/run/netns/{found.netns}", "unshare", "--mount", "--propagation", "slave", "--")
        holder = running("holder", place / "holder.log", [*alone, "sh", "-ec", _MOUNTS.format(place=place)])
        found.enter(stack.enter_context(holder))
        stack.callback(found.close)
        found.start_hyperd()
        found.hyper.ctl("pull", "-q", "builtin:busybox")
        found.start_kubelet()
        found.ready()
        yield found
