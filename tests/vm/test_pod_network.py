# SPDX-License-Identifier: Apache-2.0
"""Services, white lists, ports, names and network interfaces of pods, and volumes over NFS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import Conflict, HyperError, InvalidArgument, NotFound
from hypercontainer.model.pods import Service, ServiceBackend
from hypercontainer.model.specs import ContainerSpec, PortMapping

from .conftest import DEADLINE
from .test_pods import SLEEP, Pods, pods

__all__ = ["pods"]


def server(name: str, port: int) -> dict[str, object]:
    """A container that answers every connection with its name."""
    return {"name": name, "command": ["sh", "-c", f"while :; do echo {name} | nc -l -p {port}; done"],
            "healthCheck": {"shell": f"netstat -ltn | grep -q :{port}", "interval": 0.1, "retries": 50}}  # fmt: skip


async def ask(pods: Pods, container: str, address: str, port: int, times: int) -> list[str]:
    """What a service answers, one connection after the other."""
    script = (
        f"n=0; while [ $n -lt {times} ]; do r=$(nc -w 5 {address} {port} </dev/null); "
        '[ -n "$r" ] && echo $r && n=$((n + 1)); done'
    )
    return (await pods.exec(container, script)).split()


async def test_services_take_turns(pods: Pods) -> None:
    hosts = [{"hostIP": "127.0.0.1", "hostPort": p} for p in (9001, 9002, 9003)]
    id_ = await pods.run(
        services=[{"serviceIP": "10.254.0.24", "servicePort": 80, "hosts": hosts}],
        containers=[
            server("one", 9001),
            server("two", 9002),
            server("three", 9003),
            {
                "name": "client",
                "command": SLEEP,
                "dependsOn": [{"container": n, "condition": "healthy"} for n in ("one", "two", "three")],
            },
        ],
    )
    services = pods.engine.services
    answers = await ask(pods, "client", "10.254.0.24", 80, 9)
    assert {answers.count(n) for n in ("one", "two", "three")} <= {2, 3, 4} and len(set(answers)) == 3
    with pytest.raises(Conflict, match="exists already"):
        await services.add(id_, services.of(id_))
    late = Service(
        service_ip="10.254.0.25", service_port=81, hosts=[ServiceBackend(host_ip="127.0.0.1", host_port=9002)]
    )
    await services.add(id_, [late])
    assert set(await ask(pods, "client", "10.254.0.25", 81, 2)) == {"two"}
    await services.remove(id_, "10.254.0.24", 80, "tcp")
    assert (await pods.lab.exec("client", "nc", "-w", "1", "10.254.0.24", "80")).code != 0
    with pytest.raises(NotFound, match="no service 10.254.0.24:80/tcp"):
        await services.remove(id_, "10.254.0.24", 80, "tcp")
    assert set(await ask(pods, "client", "10.254.0.25", 81, 2)) == {"two"}
    with pytest.raises(InvalidArgument, match="different IP versions"):
        await services.replace(
            id_, [Service(service_ip="::1", service_port=1, hosts=[ServiceBackend(host_ip="10.0.0.1", host_port=1)])]
        )


class NoSuchName(asyncio.DatagramProtocol):
    """A name server that knows no name; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        self.transport.sendto(data[:2] + b"\x81\x83" + data[4:], addr)


async def test_services_over_udp(pods: Pods) -> None:
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(
        NoSuchName, local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    try:
        await pods.run(
            network="user:host-loopback",
            services=[
                {
                    "serviceIP": "10.254.0.30",
                    "servicePort": 53,
                    "protocol": "udp",
                    "hosts": [{"hostIP": "10.0.2.2", "hostPort": port}],
                }
            ],
            containers=[{"name": "a", "command": SLEEP}],
        )
        found = await pods.lab.exec("a", "nslookup", "some-name.example.", "10.254.0.30")
        assert "NXDOMAIN" in found.out + found.err and any(b"some-name" in q for q in names.asked)
    finally:
        transport.close()


async def test_services_over_ipv6_without_a_network(pods: Pods) -> None:
    await pods.run(
        network="none",
        services=[{"serviceIP": "fd00::1", "servicePort": 80, "hosts": [{"hostIP": "::1", "hostPort": 8080}]}],
        containers=[{"name": "six", "command": ["sh", "-c", "while :; do echo six | nc -l -p 8080; done"]}],
    )  # fmt: skip
    assert await ask(pods, "six", "fd00::1", 80, 2) == ["six", "six"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        number: int = s.getsockname()[1]
        return number


async def fetch(port: int) -> bytes:
    """All that a connection to a port of this host answers; b"" when it is refused or closed."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await asyncio.wait_for(reader.read(100), 15)
        finally:
            writer.close()
    except (OSError, TimeoutError):
        return b""


async def answers(port: int, text: bytes) -> None:
    async def wait() -> None:
        while await fetch(port) != text:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), DEADLINE)


async def test_ports_are_added_and_removed_at_run_time(pods: Pods) -> None:
    first, second = free_port(), free_port()
    id_ = await pods.run(
        portmappings=[{"hostPort": str(first), "containerPort": "9001"}], containers=[server("a", 9001)]
    )
    await answers(first, b"a\n")
    added = PortMapping(container_port=9001, host_port=second)
    assert await pods.engine.pods.add_ports(id_, [added]) == [PortMapping(container_port=9001, host_port=first), added]
    await answers(second, b"a\n")
    with pytest.raises(Conflict, match="Address already in use"):
        await pods.engine.pods.add_ports(id_, [PortMapping(container_port=1, host_port=first)])
    await pods.engine.pods.remove_ports(id_, [added])
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", second)
    await answers(first, b"a\n")


async def test_a_taken_port_stops_the_start(pods: Pods) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        id_ = await pods.create(
            portmappings=[{"hostPort": port, "containerPort": 80}], containers=[{"name": "a", "command": SLEEP}]
        )
        with pytest.raises(Conflict, match=f"cannot publish 0.0.0.0:{port}/tcp: Address already in use"):
            await pods.engine.pods.start(id_)


@pytest.mark.turns(2)
@pytest.mark.parametrize(("network", "reached"), [("10.0.2.0/24", True), ("192.0.2.0/24", False)])
@pytest.mark.parametrize("kind", ["internalNetworks", "externalNetworks"])
async def test_white_lists(pods: Pods, kind: str, network: str, reached: bool) -> None:
    port = free_port()
    await pods.run(
        portmappings=[{"hostPort": port, "containerPort": 9001}],
        portmappingWhiteLists={kind: [network]},
        containers=[server("a", 9001)],
    )
    if reached:
        await answers(port, b"a\n")
    else:
        await pods.exec("a", "until nc -w 2 127.0.0.1 9001 </dev/null | grep -q a; do :; done")
        assert await fetch(port) == b""


async def test_names(pods: Pods) -> None:
    await pods.run(
        hostname="web.example",
        dns=["192.0.2.53"],
        dnsSearch=["a.example"],
        dnsOptions=["ndots:3"],
        hosts=[{"ip": "192.0.2.7", "names": ["far", "away"]}],
        containers=[{"name": "a", "command": SLEEP, "aliases": ["short"]}],
    )
    assert await pods.exec("a", "hostname; cat /etc/hostname") == "web.example\nweb.example"
    assert await pods.exec("a", "cat /etc/resolv.conf") == "nameserver 192.0.2.53\nsearch a.example\noptions ndots:3"
    hosts = await pods.exec("a", "cat /etc/hosts")
    assert "192.0.2.7\tfar away" in hosts and "127.0.0.1\tshort" in hosts


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A network namespace with a bridge br-test that has 192.168.77.1/24."""
    name = "hyper-test"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link set lo up",
            "link add br-test type bridge",
            "addr add 192.168.77.1/24 dev br-test",
            "link set br-test up",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


_BRIDGED = """
import asyncio, os, sys, time
from pathlib import Path
from tests.vm.conftest import DEADLINE, Lab
from tests.vm.test_pods import Pods, SLEEP
from hypercontainer.engine.paths import Paths
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine

async def main() -> None:
    config = Config(
        root=sys.argv[1], run=sys.argv[2], network="user", user_network="slirp", boot_timeout=DEADLINE,
        accelerator=os.environ.get("HYPER_TEST_ACCELERATOR", "auto"),
    )
    Paths(config.root_path, config.run_path).create()
    engine = build_engine(config)
    await engine.open()
    pods = Pods(Lab(engine))
    try:
        id_ = await pods.run(
            containers=[{"name": "a", "command": SLEEP}],
            interfaces=[
                {
                    "bridge": "br-test", "ip": "192.168.77.9/24", "gateway": "192.168.77.1",
                    "mac": "52:54:00:aa:bb:cc", "mtu": 1400, "ifname": "tap-test",
                },
                {"mac": "52:54:00:00:11:22"},
            ],
        )
        look = "cd /sys/class/net; cat eth0/address eth0/mtu eth1/address"
        print(await pods.exec("a", f"{look}; ping -c 1 -W 5 192.168.77.1 >/dev/null && echo pong"))
        print(Path("/sys/class/net/tap-test/master").resolve().name)
        await pods.engine.pods.remove(id_, force=True)
        deadline = time.monotonic() + DEADLINE
        while Path("/sys/class/net/tap-test").exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        print(Path("/sys/class/net/tap-test").exists())
    finally:
        for pod in engine.registry.pods():
            await engine.pods.remove(pod.id, force=True)
        await engine.close(keep_running=False)

asyncio.run(main())
"""


def test_network_interfaces_on_bridges(root: Path, run_dir: Path, repository: Path, lab_image: None) -> None:

    with namespace() as name:
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", _BRIDGED, root, run_dir],
            capture_output=True, text=True, timeout=4 * DEADLINE, check=False, cwd=repository,
        )  # fmt: skip
    assert done.stdout.split() == ["52:54:00:aa:bb:cc", "1400", "52:54:00:00:11:22", "pong", "br-test", "False"], (
        done.stderr
    )


async def test_bad_bridges(pods: Pods) -> None:
    id_ = await pods.create(
        containers=[{"name": "a", "command": SLEEP}], interfaces=[{"bridge": "none", "ip": "10.0.0.2/24"}]
    )
    with pytest.raises(NotFound, match="there is no bridge 'none'"):
        await pods.engine.pods.start(id_)
    with pytest.raises(InvalidArgument, match="has no address"):
        await pods.create(containers=[], interfaces=[{"bridge": "none"}])


async def test_a_refused_container_gives_its_name_back(pods: Pods) -> None:
    with pytest.raises(NotFound, match="no such network: nosuch"):
        await pods.engine.containers.create(ContainerSpec(image="busybox", name="again", network="nosuch"))
    assert (await pods.engine.containers.create(ContainerSpec(image="busybox", name="again"))).name == "again"


# -- NFS ------------------------------------------------------------------------------


@pytest.fixture
def nfs(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """nfs-ganesha on loopback; its port, and the directory that it exports as /export."""
    port, config = free_port(), tmp_path / "ganesha.conf"
    export = tmp_path / "export"
    export.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "nfs-test", export], check=True)
    config.write_text(f"""
        NFS_CORE_PARAM {{
            NFS_Port = {port}; Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Bind_addr = 127.0.0.1;
        }}
        NFSv4 {{ Grace_Period = 1; Graceless = true; RecoveryRoot = "{tmp_path}/recovery"; }}
        EXPORT {{ Export_Id = 1; Path = "{export}"; Pseudo = "/export"; Access_Type = RW; Squash = None; SecType = sys;
                  FSAL {{ Name = VFS; }} }}
    """)
    (tmp_path / "recovery").mkdir()
    log = tmp_path / "ganesha.log"
    args = ["ganesha.nfsd", "-F", "-f", str(config), "-L", str(log), "-p", str(tmp_path / "pid")]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield port, export
    finally:
        process.kill()
        process.wait(10)
        subprocess.run(["umount", "-l", export], check=True)


async def test_nfs(pods: Pods, nfs: tuple[int, Path]) -> None:
    port, export = nfs
    (export / "file").write_text("over nfs")
    volume = {"name": "n", "format": "nas", "source": "localhost:/export", "mountOptions": {"port": port}}
    mounting = {"containers": [{"name": "a", "command": SLEEP, "volumes": [{"volume": "n", "path": "/n"}]}]}
    walled = await pods.create(**mounting, volumes=[volume])
    with pytest.raises(HyperError, match="its NFS server is on this host's loopback, which the pod does not reach"):
        await pods.engine.pods.start(walled)
    await pods.engine.pods.remove(walled, force=True)
    id_ = await pods.run(network="user:host-loopback", **mounting, volumes=[volume])
    assert (
        await pods.exec("a", "cat /n/file; echo back > /n/new; awk '$2 == \"/n\" {print $3}' /proc/mounts")
        == "over nfsnfs4"
    )
    assert (export / "new").read_text() == "back\n"
    await pods.engine.pods.remove(id_, force=True)
    unresolved = {**volume, "source": "no-such-host.invalid:/export"}
    id_ = await pods.create(
        containers=[{"name": "a", "command": SLEEP, "volumes": [{"volume": "n", "path": "/n"}]}], volumes=[unresolved]
    )
    with pytest.raises(HyperError, match="the NFS server 'no-such-host.invalid' cannot be resolved"):
        await pods.engine.pods.start(id_)
