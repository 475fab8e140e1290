# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd with hyper-runtime, by `ctr` and as a runtime class of its CRI plugin."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hypercontainer.cri import api
from tests.containerd import BOX, Containerd, containerd
from tests.debian import unpacked
from tests.engine.cri_client import Client, channel

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for
from .test_networks import namespaces_again

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd takes root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed"),
]


@dataclass
class Machines:
    """containerd, and the hyperd in whose machines its containers run."""

    containerd: Containerd
    hyperd: Daemon

    def ctr(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.containerd.ctr(*args, check=check)

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.ctr("run", "--runc-binary", str(_runtime(self.containerd.place)), *args, check=check)


def _runtime(place: Path) -> Path:
    return place / "hyper-runtime"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    where = tmp_path_factory.mktemp("ctd")
    programs = unpacked("containerd", where) / "usr/bin"
    with (
        namespaces_again("c") as namespace,
        tempfile.TemporaryDirectory(prefix="octd") as short,
        launched(where / "hyperd", "--network", "user", prefix=("nsenter", f"--net=/run/netns/{namespace}")) as daemon,
    ):
        script = _runtime(Path(short))  # the shim is given no options for it
        script.write_text(f'#!/bin/sh\nexec {BIN}/hyper-runtime --hyper-host {daemon.socket} "$@"\n')
        script.chmod(0o755)
        with containerd(programs, Path(short), namespace, script) as server:
            yield Machines(server, daemon)
            left = daemon.leftovers()
            assert (left["containers"], left["pods"], left["machines"]) == ([], [], [])


def test_ctr(machines: Machines) -> None:
    assert machines.run("--rm", BOX, "one", "echo", "hi").stdout == "hi\n"
    assert machines.run("--rm", BOX, "two", "sh", "-c", "exit 7", check=False).returncode == 7
    machines.run("-d", BOX, "three", "sleep", "1000")
    pid = machines.ctr("task", "ls").stdout.splitlines()[1].split()[1]
    assert pid in machines.ctr("task", "ps", "three").stdout
    done = machines.ctr("task", "exec", "--exec-id", "e", "three", "sh", "-c", "echo in; exit 4", check=False)
    assert (done.stdout, done.returncode) == ("in\n", 4)
    machines.ctr("task", "pause", "three")
    assert "PAUSED" in machines.ctr("task", "ls").stdout
    machines.ctr("task", "resume", "three")
    machines.ctr("task", "kill", "-s", "KILL", "three")
    wait_for(lambda: "STOPPED" in machines.ctr("task", "ls").stdout, "the end of the task")
    machines.ctr("task", "rm", "three", check=False)  # whose exit code was 137
    machines.ctr("c", "rm", "three")


async def test_a_runtime_class(machines: Machines) -> None:
    """The sandbox has a virtual machine, with what CNI's plugins gave it, and its container is in it."""
    async with channel(machines.containerd.socket) as connection:
        client = Client(connection)
        sandbox = api.PodSandboxConfig(hostname="named", log_directory=str(machines.containerd.place / "logs"))
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
        assert len(list((machines.hyperd.run / "pods").iterdir())) == 1
        await client.StopContainer(container_id=id_, timeout=0, within=DEADLINE)
        assert (await client.ContainerStatus(container_id=id_)).status.exit_code == 137
        assert "stdout F logged" in (machines.containerd.place / "logs/c.log").read_text()
        await client.StopPodSandbox(pod_sandbox_id=pod, within=DEADLINE)
        await client.RemovePodSandbox(pod_sandbox_id=pod, within=DEADLINE)
