# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd in a network namespace, with an image of busybox and a bridge of CNI's plugins."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypercontainer.images import builtin
from hypercontainer.model import architectures
from tests.e2e.conftest import DEADLINE, wait_for

BOX = "localhost/box:latest"
_CONFIG = """
version = 2
root = "{place}/root"
state = "{place}/state"
[grpc]
  address = "{place}/c.sock"
[ttrpc]
  address = "{place}/t.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{box}"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{place}/cni"
"""
# The class `hyper`, as nodes get it; and here as the default, in place of runc.
_CLASS = Path(__file__).parents[1] / "deploy/containerd/hyper.toml"
_DEFAULT = """
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "hyper"
"""


@dataclass
class Containerd:
    """One that runs; `place` is all that it has."""

    programs: Path
    place: Path

    @property
    def socket(self) -> Path:
        return self.place / "c.sock"

    def ctr(self, *args: str, check: bool = True, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        command = [self.programs / "ctr", "-a", self.socket, "-n", namespace, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert not check or done.returncode == 0, f"{args}: {done.returncode} {done.stdout} {done.stderr}"
        return done


def _write(place: Path, runtime: Path | None) -> None:
    config = _CONFIG.format(place=place, box=BOX)
    if runtime:
        config += _DEFAULT + _CLASS.read_text().replace("/usr/local/bin/hyper-runtime", str(runtime))
    (place / "config.toml").write_text(config)
    ipam = {"type": "host-local", "dataDir": f"{place}/addresses", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "10.99.0.0/16", "gateway": "10.99.0.1"}]]}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "cni-ctd0", "isGateway": True, "ipam": ipam}
    (place / "cni").mkdir()
    (place / "cni/10.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "ctd", "plugins": [bridge]}))


def archive(path: Path, name: str, layer: bytes, **config: Any) -> None:
    """An image of one layer, as Docker's archives have them."""
    config = {"architecture": architectures.host(), "os": "linux", "config": {"Env": ["PATH=/bin"], **config},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, data in (("config.json", json.dumps(config).encode()), ("layer.tar", layer),
                           ("manifest.json", json.dumps(manifest).encode())):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@contextlib.contextmanager
def containerd(
    programs: Path, place: Path, netns: str, runtime: Path | None = None, within: Sequence[str] = ()
) -> Iterator[Containerd]:
    """It has the image in the namespaces of `ctr` and of Kubernetes; `runtime` is a program in place of runc.

    `within` are the words that start a program in more namespaces than that of the network.
    """
    _write(place, runtime)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    within = within or ("nsenter", f"--net=/run/netns/{netns}")
    command = [*within, programs / "containerd", "-c", place / "config.toml"]
    with open(place / "containerd.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    made = Containerd(programs, place)
    try:
        wait_for(lambda: made.ctr("version", check=False).returncode == 0, "containerd's answer")
        layer = builtin._layer(builtin._find_busybox())
        archive(place / "box.tar", BOX, layer, Cmd=["/bin/sleep", "100000"])  # it waits, as a sandbox's does
        for each in ("default", "k8s.io"):
            made.ctr("images", "import", str(place / "box.tar"), namespace=each)
        yield made
    finally:
        server.terminate()
        server.wait(DEADLINE)
