# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd with hyper-runtime, by `ctr` and as a runtime class of its CRI plugin."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hypercontainer.cri import api
from hypercontainer.images import builtin
from hypercontainer.model import architectures
from tests.debian import unpacked
from tests.engine.cri_client import Client, channel

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for
from .test_networks import namespaces_again

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd takes root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed"),
]
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
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "hyper"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hyper]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hyper.options]
      BinaryName = "{place}/hyper-runtime"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{place}/cni"
"""


@dataclass
class Containerd:
    """One of a test's own, and the hyperd in whose machines its containers run."""

    programs: Path
    place: Path
    hyperd: Daemon

    def ctr(self, *args: str, check: bool = True, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        command = [self.programs / "ctr", "-a", self.place / "c.sock", "-n", namespace, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert not check or done.returncode == 0, f"{args}: {done.returncode} {done.stdout} {done.stderr}"
        return done

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.ctr("run", "--runc-binary", f"{self.place}/hyper-runtime", *args, check=check)


def _write(place: Path, socket: Path) -> None:
    (place / "config.toml").write_text(_CONFIG.format(place=place, box=BOX))
    script = place / "hyper-runtime"  # the shim is given no options for it
    script.write_text(f'#!/bin/sh\nexec {BIN}/hyper-runtime --hyper-host {socket} "$@"\n')
    script.chmod(0o755)
    ipam = {"type": "host-local", "dataDir": f"{place}/addresses", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "10.99.0.0/16", "gateway": "10.99.0.1"}]]}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "cni-oci0", "isGateway": True, "ipam": ipam}
    (place / "cni").mkdir()
    (place / "cni/10.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "oci", "plugins": [bridge]}))


def archive(path: Path) -> None:
    """busybox as Docker's archives have images; its program waits, as a sandbox's does."""
    layer = builtin._layer(builtin._find_busybox())
    config = {"architecture": architectures.host(), "os": "linux",
              "config": {"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [BOX], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, data in (("config.json", json.dumps(config).encode()), ("layer.tar", layer),
                           ("manifest.json", json.dumps(manifest).encode())):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    where = tmp_path_factory.mktemp("ctd")
    programs = unpacked("containerd", where) / "usr/bin"
    with (
        namespaces_again("c") as namespace,
        tempfile.TemporaryDirectory(prefix="octd") as short,
        launched(where / "hyperd", "--network", "user", prefix=("nsenter", f"--net=/run/netns/{namespace}")) as daemon,
    ):
        place = Path(short)
        _write(place, daemon.socket)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        inside = ["nsenter", f"--net=/run/netns/{namespace}"]
        with open(where / "containerd.log", "wb") as log:
            server = subprocess.Popen([*inside, programs / "containerd", "-c", place / "config.toml"], stdout=log,
                                      stderr=log, env=environment)  # fmt: skip
        made = Containerd(programs, place, daemon)
        try:
            wait_for(lambda: made.ctr("version", check=False).returncode == 0, "containerd's answer")
            archive(place / "box.tar")
            for each in ("default", "k8s.io"):
                made.ctr("images", "import", str(place / "box.tar"), namespace=each)
            yield made
            left = daemon.leftovers()
            assert (left["containers"], left["pods"], left["machines"]) == ([], [], [])
        finally:
            server.terminate()
            server.wait(DEADLINE)


def test_ctr(containerd: Containerd) -> None:
    assert containerd.run("--rm", BOX, "one", "echo", "hi").stdout == "hi\n"
    assert containerd.run("--rm", BOX, "two", "sh", "-c", "exit 7", check=False).returncode == 7
    containerd.run("-d", BOX, "three", "sleep", "1000")
    pid = containerd.ctr("task", "ls").stdout.splitlines()[1].split()[1]
    assert pid in containerd.ctr("task", "ps", "three").stdout
    done = containerd.ctr("task", "exec", "--exec-id", "e", "three", "sh", "-c", "echo in; exit 4", check=False)
    assert (done.stdout, done.returncode) == ("in\n", 4)
    containerd.ctr("task", "pause", "three")
    assert "PAUSED" in containerd.ctr("task", "ls").stdout
    containerd.ctr("task", "resume", "three")
    containerd.ctr("task", "kill", "-s", "KILL", "three")
    wait_for(lambda: "STOPPED" in containerd.ctr("task", "ls").stdout, "the end of the task")
    containerd.ctr("task", "rm", "three", check=False)  # whose exit code was 137
    containerd.ctr("c", "rm", "three")


async def test_a_runtime_class(containerd: Containerd) -> None:
    """The sandbox has a virtual machine, with what CNI's plugins gave it, and its container is in it."""
    async with channel(containerd.place / "c.sock") as connection:
        client = Client(connection)
        sandbox = api.PodSandboxConfig(hostname="named", log_directory=str(containerd.place / "logs"))
        sandbox.metadata.MergeFrom(api.PodSandboxMetadata(name="p", uid="u", namespace="n"))
        made = await client.RunPodSandbox(config=sandbox, runtime_handler="hyper", within=DEADLINE)
        pod = made.pod_sandbox_id
        address = (await client.PodSandboxStatus(pod_sandbox_id=pod)).status.network.ip
        wanted = api.ContainerConfig(command=["sh", "-c", "echo logged; sleep 1000"], log_path="c.log")
        wanted.metadata.name, wanted.image.image = "c", BOX
        created = await client.CreateContainer(
            pod_sandbox_id=pod, config=wanted, sandbox_config=sandbox, within=DEADLINE
        )  # fmt: skip
        id_ = created.container_id
        await client.StartContainer(container_id=id_, within=DEADLINE)
        command = ["sh", "-c", "uname -n; ip -4 -o addr show eth0; exit 3"]
        done = await client.ExecSync(container_id=id_, cmd=command, timeout=60, within=DEADLINE)
        assert done.exit_code == 3 and done.stdout.startswith(b"named\n") and f" {address}/16 ".encode() in done.stdout
        assert len(list((containerd.hyperd.run / "pods").iterdir())) == 1
        await client.StopContainer(container_id=id_, timeout=0, within=DEADLINE)
        assert (await client.ContainerStatus(container_id=id_)).status.exit_code == 137
        assert "stdout F logged" in (containerd.place / "logs/c.log").read_text()
        await client.StopPodSandbox(pod_sandbox_id=pod, within=DEADLINE)
        await client.RemovePodSandbox(pod_sandbox_id=pod, within=DEADLINE)
