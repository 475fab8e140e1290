# SPDX-License-Identifier: Apache-2.0
"""A node as most are: its kubelet asks Debian's containerd, whose containers are runc's. It has no systemd."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.images import builtin
from tests.containerd import Containerd, archive, containerd
from tests.debian import unpacked
from tests.node_payload import own_wheel, pip_wheel

from .control import Control
from .node import KUBELET, Node
from .processes import ip, namespace, running

DEPLOY = Path(__file__).parents[2] / "deploy"
IMAGE = "docker.io/hypercontainer/node:latest"
CONFIG = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "x"\n'
# Process 1 of the node; what is written on it is in files of its own, and nothing of this machine's is changed.
_NODE = """
for name in etc var/lib opt usr/local; do
    mkdir -p {place}/over/$name/upper {place}/over/$name/work
    mount -t overlay overlay -o lowerdir=/$name,upperdir={place}/over/$name/upper,workdir={place}/over/$name/work /$name
done
mount --make-rshared /
mkdir -p {place}/log /etc/containerd
mount --bind {place}/log /var/log
cp {place}/node.toml /etc/containerd/config.toml
rm -rf /opt/hypercontainer
touch {place}/mounted
exec sleep infinity
"""


def _payload(tar: tarfile.TarFile, scratch: Path) -> None:
    """What deploy/node/Dockerfile copies, with a wheel that has programs of our names and needs no other."""

    def add(name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o755
        tar.addfile(info, io.BytesIO(data))

    for source, name in (("node/node.sh", "payload/deploy/node/node.sh"), ("node/enter.sh", "enter.sh")):
        add(name, (DEPLOY / source).read_bytes())
    for directory in ("systemd", "containerd", "crio"):
        for path in (DEPLOY / directory).iterdir():
            add(f"payload/deploy/{directory}/{path.name}", path.read_bytes())
    for wheel in (own_wheel(scratch, 1), pip_wheel()):
        add(f"payload/{wheel.name}", wheel.read_bytes())


def _image(path: Path) -> None:
    layer = io.BytesIO(builtin._layer(builtin._find_busybox()))
    with tarfile.open(fileobj=layer, mode="a") as tar:
        _payload(tar, path.parent)
    archive(path, IMAGE, layer.getvalue(), Entrypoint=["/bin/sh", "/enter.sh"])


class Beside(Node):
    """Its kubelet asks containerd."""

    runtime: Containerd

    @property
    def socket(self) -> Path:
        return self.runtime.socket

    def account(self) -> str:
        """What happened, for whom a test fails."""
        log = (self.place / "containerd/containerd.log").read_text(errors="replace")
        pods = self.control.kubectl("get", "-A", "pods,events", "-o", "wide", check=False)
        return "\n".join((pods, *log.splitlines()[-30:], self.words()))

    def close(self) -> None:
        """Of what it ran there is no control group; the rest goes with process 1."""
        if self._kubelet:
            self._kubelet.end()
        for kind in ("tasks", "containers"):
            for id_ in self.runtime.ctr(kind, "ls", "-q", namespace="k8s.io").stdout.split():
                force = ("-f",) if kind == "tasks" else ()
                self.runtime.ctr(kind, "rm", *force, id_, namespace="k8s.io", check=False)


@contextlib.contextmanager
def beside(control: Control, number: int, place: Path) -> Iterator[Beside]:
    """Ready for pods; it has the image of the DaemonSet."""
    place.mkdir()
    found = Beside(control, number, place)
    with contextlib.ExitStack() as stack:
        stack.enter_context(namespace(found.netns))
        found.address = control.link(found.netns, number)
        ip("-n", control.name, "route", "add", "10.99.0.0/16", "via", found.address)
        (place / "kubelet.yaml").write_text(KUBELET.format(address=found.address))
        (place / "node.toml").write_text(CONFIG)
        alone = ("nsenter", f"--net=/run/netns/{found.netns}", "unshare", "--mount", "--pid", "--fork", "--kill-child",
                 "--mount-proc", "--propagation", "slave", "--")  # fmt: skip
        holder = running("node", place / "node.log", [*alone, "sh", "-ec", _NODE.format(place=place)])
        process = stack.enter_context(holder)
        found.enter(process)
        programs = unpacked("containerd", place) / "usr/bin"
        (place / "containerd").mkdir()
        space = f"/proc/{process.process.pid}/ns/pid_for_children"
        within = found._within = (*found._within[:-1], f"--pid={space}", "--")
        found.runtime = stack.enter_context(containerd(programs, place / "containerd", found.netns, within=within))
        _image(place / "node.tar")
        found.runtime.ctr("images", "import", str(place / "node.tar"), namespace="k8s.io")
        stack.callback(found.close)
        found.start_kubelet()
        found.ready()
        yield found
