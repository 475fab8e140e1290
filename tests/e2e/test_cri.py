# SPDX-License-Identifier: Apache-2.0
"""What a kubelet does with a pod, on a real virtual machine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypercontainer.cri import api
from tests.engine.cri_client import Client, channel
from tests.engine.test_cri_streams import V4, V5, connection, heard, until, websocket
from tests.spdy import upgraded

from .conftest import Daemon, launched

LIMIT = 60.0 * float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))  # seconds for an answer
_LINE = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\S* stdout F served$"
_NGINX = "while :; do echo served; echo hello | nc -l -p 8080; done"


def container(name: str, image: str, logs: str, *command: str, **fields: Any) -> Any:
    return api.ContainerConfig(
        metadata={"name": name}, image={"image": image}, command=command, log_path=f"{name}/{logs}", **fields
    )


async def state_of(client: Client, id_: str, state: int) -> Any:
    async with asyncio.timeout(LIMIT):
        while (found := (await client.ContainerStatus(container_id=id_)).status).state != state:
            await asyncio.sleep(0.1)
    return found


async def pod(client: Client, tmp: Path, handler: str) -> None:
    for name in ("server", "client", "debug"):
        (tmp / "logs" / name).mkdir(parents=True)
    own = tmp / "kubelet/pods/u"
    own.mkdir(parents=True)
    (own / "hosts").write_text("127.0.0.1 localhost told-by-the-node\n")
    (own / "termination").write_text("")
    (own / "termination").chmod(0o666)
    (own / "volume/a").mkdir(parents=True)
    (own / "volume/a/word").write_text("part\n")
    with mounted(own / "secret", "-t", "tmpfs", "none") as secret:
        (secret / "word").write_text("secret\n")
        await follow(client, tmp, own, handler)


@contextlib.contextmanager
def mounted(path: Path, *how: str | Path) -> Iterator[Path]:
    """As a kubelet mounts; a user's daemon has a plain directory."""
    path.mkdir()
    if os.geteuid():
        yield path
        return
    subprocess.run(["mount", *how, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


async def follow(client: Client, tmp: Path, own: Path, handler: str) -> None:
    image = (await client.ImageStatus(image={"image": "busybox"})).image.id
    config = api.PodSandboxConfig(
        metadata={"name": "web", "uid": "u", "namespace": "default"}, hostname="web", log_directory=str(tmp / "logs"),
        linux={"resources": {"memory_limit_in_bytes": 64 << 20}},
    )  # fmt: skip
    asked = await client.RunPodSandbox(config=config, runtime_handler=handler, within=LIMIT)
    sandbox = asked.pod_sandbox_id

    async def run(wanted: Any) -> str:
        made = await client.CreateContainer(pod_sandbox_id=sandbox, config=wanted, sandbox_config=config, within=LIMIT)
        await client.StartContainer(container_id=made.container_id, within=LIMIT)
        return str(made.container_id)

    alone = {"namespace_options": {"pid": api.CONTAINER}}
    server = await run(container("server", image, "0.log", "sh", "-c", _NGINX, linux={"security_context": alone}))
    mounts = [
        {"container_path": "/etc/hosts", "host_path": str(own / "hosts")},
        {"container_path": "/dev/termination-log", "host_path": str(own / "termination")},
    ]
    mounts += [{"container_path": "/secret", "host_path": str(own / "secret"), "readonly": True}]
    part = own / ("volume/a" if os.geteuid() else "part")  # a `subPath`, which is mounted when a container is made
    mounts += [{"container_path": "/part", "host_path": str(part)}]
    context = {"run_as_user": {"value": 1000}, "namespace_options": {"pid": api.CONTAINER}, "seccomp": {}}
    script = "echo > /dev/termination-log; cat /etc/hosts /secret/word /part/word; id -u"
    script += "; until nc localhost 8080 2>/dev/null; do :; done; exit 3"
    wanted = container("client", image, "0.log", "sh", "-c", script, mounts=mounts, linux={"security_context": context})
    with mounted(own / "part", "--bind", own / "volume/a") if not os.geteuid() else contextlib.nullcontext():
        status = await state_of(client, await run(wanted), api.CONTAINER_EXITED)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert (status.user.linux.uid, status.user.linux.gid) == (1000, 0)
    said = [line.split(" ", 3)[3] for line in Path(status.log_path).read_text().splitlines()]
    assert said == ["127.0.0.1 localhost told-by-the-node", "secret", "part", "1000", "hello"]
    assert (own / "termination").read_text() == "\n"

    done = await client.ExecSync(container_id=server, cmd=["sh", "-c", "hostname; echo no >&2; exit 2"], within=LIMIT)
    assert (done.stdout, done.stderr, done.exit_code) == (b"web\n", b"no\n", 2)
    assert re.match(_LINE, (tmp / "logs/server/0.log").read_text().splitlines()[0])
    target = {"namespace_options": {"pid": api.TARGET, "target_id": server}}  # as `kubectl debug --target`
    debug = await run(container("debug", image, "0.log", "sleep", "1000", linux={"security_context": target}))
    seen = await client.ExecSync(container_id=debug, cmd=["cat", "/proc/1/cmdline"], within=LIMIT)
    assert seen.stdout.startswith(b"sh\0-c\0while :")
    await client.RemoveContainer(container_id=debug, within=LIMIT)
    await streams(client, server)
    await ports(client, sandbox)
    (stats,) = (await client.ListContainerStats()).stats
    assert stats.attributes.id == server and stats.memory.usage_bytes.value > 0

    (metrics,) = (await client.ListPodSandboxMetrics()).pod_metrics
    found = {m.name: m.value.value for m in [*metrics.metrics, *metrics.container_metrics[0].metrics]}
    assert metrics.container_metrics[0].container_id == server and found["container_memory_working_set_bytes"] > 0
    assert found["container_network_receive_bytes_total"] >= 0 and found["container_processes"] >= 1

    await client.StopContainer(container_id=server, timeout=0, within=LIMIT)
    await client.StopPodSandbox(pod_sandbox_id=sandbox, within=LIMIT)
    await client.RemovePodSandbox(pod_sandbox_id=sandbox, within=LIMIT)
    assert not (await client.ListContainers()).containers and not (await client.ListPodSandbox()).items


async def streams(client: Client, id_: str) -> None:
    """Exec over a websocket and over SPDY, a terminal, and attach."""
    command = ["sh", "-c", "echo err >&2; tr a-z A-Z; exit 5"]
    url = (await client.Exec(container_id=id_, cmd=command, stdin=True, stdout=True, stderr=True)).url
    async with websocket(url, V5) as ws:
        await ws.send_bytes(b"\0" + b"word\n" * 50_000)
        await ws.send_bytes(b"\xff\0")
        found = await heard(ws)
    assert (found[1], found[2]) == (b"WORD\n" * 50_000, b"err\n") and b'"message":"5"' in found[3]

    url = (await client.Exec(container_id=id_, cmd=command, stdin=True, stdout=True, stderr=True)).url
    async with upgraded(url, V4) as spdy:
        s = {kind: await spdy.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "stderr")}
        await spdy.send(s["stdin"], b"word\n" * 50_000, fin=True)
        await spdy.until(lambda: s["error"] in spdy.over)
        assert spdy.heard[s["stdout"]] == b"WORD\n" * 50_000 and b'"message":"5"' in spdy.heard[s["error"]]

    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do read -t 1 x; done"
    url = (await client.Exec(container_id=id_, cmd=["sh", "-c", script], stdin=True, stdout=True, tty=True)).url
    async with websocket(url, V5) as ws:
        found = {}
        await until(ws, found, 1, b"ready")
        await ws.send_bytes(b'\4{"Width":97,"Height":31}')
        await heard(ws, found)
    assert b"31 97" in found[1] and b"Success" in found[3]

    url = (await client.Attach(container_id=id_, stdout=True)).url
    async with websocket(url, V4) as ws:
        again = ["sh", "-c", "until nc localhost 8080; do :; done"]  # the server listens anew for each client
        await client.ExecSync(container_id=id_, cmd=again, timeout=30, within=LIMIT)
        await until(ws, {}, 1, b"served")


async def ports(client: Client, sandbox: str) -> None:
    """A server in the pod that listens, and a port where nobody does."""
    async with upgraded((await client.PortForward(pod_sandbox_id=sandbox)).url, "portforward.k8s.io") as spdy:
        async with asyncio.timeout(LIMIT):
            for number in itertools.count(2):  # the server listens anew for each client
                data, failed = await connection(spdy, 8080, str(number))
                await spdy.until(lambda both={data, failed}: both <= spdy.over)
                if not spdy.heard[failed]:
                    break
                assert b"port 8080 within the pod: Connection refused" in spdy.heard[failed]
        assert spdy.heard[data] == b"hello\n"
        data, failed = await connection(spdy, 8081, "1")
        await spdy.until(lambda: {data, failed} <= spdy.over)
        assert b"port 8081 within the pod: Connection refused" in spdy.heard[failed]


def kubelet_runs_a_pod(tmp_path: Path, handler: str, *options: str) -> None:
    """By a hyperd that ends with it; nothing is left."""

    async def through(daemon: Daemon) -> None:
        async with channel(daemon.run / "cri.sock") as opened:
            await pod(Client(opened), tmp_path, handler)

    (tmp_path / "hyperd.toml").write_text(f'cri = true\ncri_kubelet = "{tmp_path}/kubelet"\n')
    with launched(tmp_path / "root", "--config", str(tmp_path / "hyperd.toml"), "--no-factory", *options) as daemon:
        assert (daemon.run / "cri.sock").stat().st_mode & 0o777 == 0o660
        daemon.ctl("pull", "-q", "builtin:busybox")
        asyncio.run(through(daemon))
        left = daemon.leftovers()
        assert (left["containers"], left["pods"], left["machines"]) == ([], [], [])


def test_a_pod_as_a_kubelet_runs_it(tmp_path: Path) -> None:
    kubelet_runs_a_pod(tmp_path, "")
