# SPDX-License-Identifier: Apache-2.0
"""Networks: a daemon in a network namespace of the test's own, real pods, real traffic."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import BIN, DEADLINE, Daemon, launched, wait_for
from .test_pods import app_layout, load

__all__ = ["app_layout"]
SLEEP = ("sleep", "1000")
SERVE = ("sh", "-c", "mkdir /w; hostname > /w/index.html; httpd -f -p 80 -h /w")


@dataclass
class World:
    """A host (a namespace with a daemon), and something outside of it."""

    name: str
    daemon: Daemon

    def host(self, *command: str, check: bool = True, input: str | None = None) -> str:
        """Run something on the host; its output."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            input=input,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def fetch(self, url: str) -> str:
        return self.host("curl", "-s", "-g", "-m", "5", url, check=False)

    def rules(self) -> str:
        return self.host("nft", "list", "ruleset")

    def sh(self, pod: str, script: str) -> str:
        """In a pod; the output, whatever the status."""
        return self.daemon.ctl("exec", pod, "sh", "-c", script, check=False).stdout.strip()

    def addresses(self, network: str, pod: str) -> list[str]:
        found: dict[str, list[str]] = json.loads(self.daemon.out("network", "inspect", network))[0]["pods"]
        return found[pod]


@contextlib.contextmanager
def namespaces(tag: str = "") -> Iterator[str]:
    """A host, with a way to 203.0.113.2 and 2001:db8::2 outside."""
    host, outside = f"hy-host{tag}-{os.getpid()}", f"hy-out{tag}-{os.getpid()}"

    def ip(where: str, words: str) -> None:
        subprocess.run(["ip", "-n", where, *words.split()], check=True)

    for name in (host, outside):
        subprocess.run(["ip", "netns", "add", name], check=True)
        ip(name, "link set lo up")
    try:
        subprocess.run(
            ["ip", "-n", host, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", outside],
            check=True,
        )
        for where, device, four, six in (
            (host, "up0", "203.0.113.1", "2001:db8::1"),
            (outside, "down0", "203.0.113.2", "2001:db8::2"),
        ):
            ip(where, f"addr add {four}/24 dev {device}")
            ip(where, f"addr add {six}/64 dev {device} nodad")
            ip(where, f"link set {device} up")
        ip(host, "route add default via 203.0.113.2")
        yield host
    finally:
        for name in (host, outside):
            subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with namespaces() as name:
        root = tmp_path_factory.mktemp("networks") / "root"
        with launched(root, "--network", "bridge", prefix=("ip", "netns", "exec", name)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            yield World(name, daemon)
        assert (
            subprocess.run(["ip", "-n", name, "-br", "link"], capture_output=True, text=True, check=True).stdout.count(
                "\n"
            )
            == 2
        )


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """Clean afterwards: the rules are as they were."""
    shared_world.host(
        "nft", "add table inet others; add chain inet others kept; add rule inet others kept counter accept"
    )
    before = shared_world.rules()
    yield shared_world
    daemon = shared_world.daemon
    daemon.remove_all()
    for pod in daemon.out("pod", "ls", "-q").split():
        daemon.ctl("pod", "rm", "-f", pod)
    daemon.ctl("network", "prune", "-f")
    daemon.ctl("network", "rm", "bridge", check=False)  # the daemon's own, which may not be there, is not pruned
    counters = re.compile(r"packets \d+ bytes \d+")
    assert counters.sub("", shared_world.rules()) == counters.sub("", before)
    assert "hyper0" not in shared_world.host("ip", "-br", "link")
    # The kernel takes a tap away a moment after the process that held it.
    wait_for(lambda: "ht" not in shared_world.host("ip", "-br", "link"), "the end of all taps")
    daemon.world.check()


def test_rm_f_during_a_start_takes_the_tap_and_its_rules(world: World) -> None:
    """Whoever wins; the world is compared with what was before."""
    daemon = world.daemon
    for n in range(8):
        daemon.ctl("create", "--name", "raced", "-p", "8080:80", "busybox", *SLEEP)
        command = [BIN / "hyperctl", "start", "raced"]
        with subprocess.Popen(
            command, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as start:
            with contextlib.suppress(subprocess.TimeoutExpired):
                start.wait(0.2 + 0.04 * n)  # from before the request to after its answer
            daemon.ctl("rm", "-f", "raced")
            said = start.communicate(timeout=DEADLINE)[0]
        assert start.returncode in (0, 1) and "Traceback" not in said, said
        wait_for(lambda: "ht" not in world.host("ip", "-br", "link"), "the end of its tap")
        assert "8080" not in world.rules()


def test_three_pods_on_two_networks(world: World) -> None:
    ctl = world.daemon.ctl
    ctl("network", "create", "--ipv6", "one")
    ctl("network", "create", "two")
    ctl("run", "-d", "--name", "a", "--network", "one", "-p", "8080:80", "-p", "5353:5353/udp", "busybox", *SERVE)
    ctl("run", "-d", "--name", "b", "--network", "one", "busybox", *SLEEP)
    ctl("run", "-d", "--name", "c", "--network", "two", "busybox", *SERVE)
    (a4, a6), (b4, _), (c4,) = (world.addresses(n, p) for n, p in (("one", "a"), ("one", "b"), ("two", "c")))
    # Within a network, by name and address, both IP versions.
    for target in (a4, "a"):
        assert " 0% packet loss" in world.sh("b", f"ping -c 1 -W 5 {target}")
    assert " 0% packet loss" in world.sh("b", f"ping6 -c 1 -W 5 {a6}")
    page = world.sh("a", "hostname")
    wait_for(lambda: world.sh("b", "timeout 30 wget -q -O - http://a/") == page, "the other pod's page")
    assert world.sh("b", f"timeout 30 wget -q -O - http://[{a6}]/") == page
    assert (
        a6 in world.sh("b", "nslookup -type=aaaa a")
        and a4 in world.sh("b", "nslookup -type=a a")
        and "name = a" in world.sh("b", f"nslookup {a4}")
    )
    gateway = json.loads(world.daemon.out("network", "inspect", "one"))[0]["network"]["gateway"]
    assert (
        world.host("dig", "+short", f"@{gateway}", "b") == b4
        and world.host("dig", "+short", f"@{gateway}", "-q", "a", "-t", "AAAA") == a6
    )
    assert world.host("dig", "+short", "+tcp", f"@{gateway}", "-x", a4) == "a."
    # Between networks: neither names nor addresses.
    assert "NXDOMAIN" in world.sh("c", "nslookup a")
    assert (
        world.sh("c", f"timeout 2 wget -q -O - http://{a4}/; timeout 2 ping -c 1 -W 1 {a4} >/dev/null && echo reached")
        == ""
    )
    assert world.sh("a", f"timeout 2 wget -q -O - http://{c4}/") == ""
    # Published: from the host by every address, from outside, from pods of other networks, and from itself.
    for where in ("127.0.0.1", "[::1]", "203.0.113.1", gateway, "[2001:db8::1]"):
        assert world.fetch(f"http://{where}:8080/") == page, where
    out = world.name.replace("host", "out")
    for where in ("203.0.113.1", "[2001:db8::1]"):
        done = subprocess.run(
            ["ip", "netns", "exec", out, "curl", "-s", "-g", "-m", "5", f"http://{where}:8080/"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == page, where
    for pod in ("a", "b", "c"):
        assert world.sh(pod, "timeout 30 wget -q -O - http://203.0.113.1:8080/") == page, pod
    # The host's own services stay closed.
    server = subprocess.Popen(
        ["ip", "netns", "exec", world.name, sys.executable, "-m", "http.server", "9999"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: "listing" in world.fetch("http://127.0.0.1:9999/"), "the host's own server")
        assert (
            world.sh(
                "b", f"timeout 2 wget -q -O - http://{gateway}:9999/; timeout 2 wget -q -O - http://203.0.113.1:9999/"
            )
            == ""
        )
    finally:
        server.kill()
        server.wait()
    # The way out, both IP versions; what comes back finds its way.
    assert " 0% packet loss" in world.sh("b", "ping -c 1 -W 5 203.0.113.2")
    assert " 0% packet loss" in world.sh("b", "ping6 -c 1 -W 5 2001:db8::2")
    # A taken port names its owner.
    clash = ctl("run", "--rm", "-p", "8080:80", "busybox", "true", check=False)
    assert clash.returncode == 125 and "0.0.0.0:8080/tcp: Address already in use by pod a" in clash.stderr


def test_the_daemons_own_network(world: World) -> None:
    ctl = world.daemon.ctl
    assert ctl("run", "--rm", "busybox", "ip", "addr", "show", "eth0").stdout.count("inet 192.168.123.") == 1
    ctl("pod", "create", "-n", "plain")
    ctl("pod", "start", "plain")
    assert "hyper0" in world.host("ip", "-br", "link")
    ctl("pod", "rm", "-f", "plain")
    assert ctl("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").stdout == "lo\n"
    assert "10.0.2.15" in ctl("run", "--rm", "--network", "user", "busybox", "ip", "addr").stdout
    ctl("network", "rm", "bridge")


def test_internal_networks_and_egress_policy(world: World) -> None:
    ctl = world.daemon.ctl
    ctl("network", "create", "--internal", "closed")
    ctl("network", "create", "open")
    ctl("run", "-d", "--name", "inside", "--network", "closed", "busybox", *SLEEP)
    ctl("run", "-d", "--name", "also", "--network", "closed", "busybox", *SLEEP)
    ctl("run", "-d", "--name", "strict", "--network", "open", "--allow", "203.0.113.2:7001", "busybox", *SLEEP)
    reach = "timeout 3 sh -c 'echo x | nc -w 2 203.0.113.2 {}' && echo reached"
    out = world.name.replace("host", "out")
    code = (
        "import socket,sys\ns=[socket.create_server(('', p)) for p in (7001, 7002)]\nimport select\n"
        "while True:\n [x.accept()[0].close() for x in select.select(s,[],[])[0]]"
    )
    server = subprocess.Popen(["ip", "netns", "exec", out, sys.executable, "-c", code])
    try:
        wait_for(lambda: world.sh("strict", reach.format(7001)) == "reached", "the destination that is allowed")
        assert (
            world.sh("strict", reach.format(7002)) == ""
            and world.sh("strict", "ping -c 1 -W 1 203.0.113.2 >/dev/null && echo reached") == ""
        )
        assert world.sh("inside", reach.format(7001)) == ""
        assert " 0% packet loss" in world.sh("inside", "ping -c 1 -W 5 also")
    finally:
        server.kill()
        server.wait()


def test_addresses_aliases_and_several_nics(world: World) -> None:
    ctl = world.daemon.ctl
    ctl(
        "network",
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--gateway",
        "10.77.0.254",
        "--ip-range",
        "10.77.0.64/26",
        "--mtu",
        "1400",
        "fixed",
    )
    ctl("network", "create", "other")
    ctl(
        "run",
        "-d",
        "--name",
        "x",
        "--network",
        "fixed",
        "--ip",
        "10.77.0.9",
        "--mac-address",
        "0a:00:00:00:00:09",
        "--network-alias",
        "db",
        "busybox",
        *SLEEP,
    )
    ctl(
        "run",
        "-d",
        "--name",
        "y",
        "--network",
        "fixed",
        "--network",
        "other",
        "--dns-search",
        "example.org",
        "--add-host",
        "far:192.0.2.1",
        "busybox",
        *SLEEP,
    )
    assert world.addresses("fixed", "x") == ["10.77.0.9"] and world.addresses("fixed", "y") == ["10.77.0.64"]
    nic = world.sh("x", "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip route | head -1")
    assert nic.split("\n")[:2] == ["0a:00:00:00:00:09", "1400"] and "default via 10.77.0.254" in nic
    assert " 0% packet loss" in world.sh("y", "ping -c 1 -W 5 db")
    assert world.sh("y", "ls /sys/class/net").split() == ["eth0", "eth1", "eth2", "lo"]  # the last to join one by
    assert "UP" not in world.sh("y", "ip link show eth2").split(">")[0]
    assert "search example.org" in world.sh("y", "cat /etc/resolv.conf") and "192.0.2.1\tfar" in world.sh(
        "y", "cat /etc/hosts"
    )
    taken = ctl("run", "--rm", "--network", "fixed", "--ip", "10.77.0.9", "busybox", "true", check=False)
    assert taken.returncode == 125 and "address 10.77.0.9 of network fixed is taken" in taken.stderr
    busy = ctl("network", "rm", "fixed", check=False)
    assert busy.returncode == 1 and "network fixed is in use by" in busy.stderr
    ctl("stop", "-t", "0", "x")
    ctl("network", "connect", "--alias", "second", "other", "x")
    ctl("start", "x")
    assert " 0% packet loss" in world.sh("y", "ping -c 1 -W 5 second")
    ctl("stop", "-t", "0", "x")
    ctl("network", "disconnect", "fixed", "x")
    ctl("start", "x")
    assert world.sh("x", "ls /sys/class/net").split() == ["eth0", "eth1", "lo"]


def test_round_robin(world: World) -> None:
    world.daemon.ctl("network", "create", "rr")
    for n in ("r1", "r2"):
        world.daemon.ctl("run", "-d", "--name", n, "--network", "rr", "--network-alias", "both", "busybox", *SLEEP)
    gateway = json.loads(world.daemon.out("network", "inspect", "rr"))[0]["network"]["gateway"]
    first = {world.host("dig", "+short", f"@{gateway}", "both").split()[0] for _ in range(6)}
    assert len(first) == 2


def test_ports_come_and_go(world: World) -> None:
    ctl = world.daemon.ctl
    ctl("run", "-d", "--name", "many", "-p", "20000-20199:20000-20199", "-p", "127.0.0.1:30000:80", "busybox", *SERVE)
    assert world.rules().count("tcp . 20") >= 200
    wait_for(lambda: world.fetch("http://127.0.0.1:30000/") != "", "the page")
    assert not world.fetch("http://203.0.113.1:30000/")
    ctl("ports", "add", "many", "-p", "30001:80")
    wait_for(lambda: world.fetch("http://127.0.0.1:30001/") != "", "the added port")
    ctl("ports", "delete", "many", "-p", "20000-20199:20000-20199")
    assert "tcp . 20" not in world.rules() and world.fetch("http://127.0.0.1:30001/")


def test_rates(world: World) -> None:
    world.daemon.ctl("run", "-d", "--name", "slow", "--ingress-rate", "8m", "--egress-rate", "4m", "busybox", *SLEEP)
    tap = next(line.split()[0] for line in world.host("ip", "-br", "link").splitlines() if line.startswith("ht"))
    assert "rate 8Mbit" in world.host("tc", "qdisc", "show", "dev", tap)
    assert "limit rate over 500000 bytes/second" in world.rules()


def test_networks_outlive_the_daemon(world: World, tmp_path: Path) -> None:
    """After a crash pods still reach each other and the outside, and the next daemon cleans up what belongs to none."""
    with (
        namespaces_again() as name,
        launched(tmp_path / "root", "--network", "bridge", prefix=("ip", "netns", "exec", name)) as daemon,
    ):
        second = World(name, daemon)
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "a", "-p", "8080:80", "busybox", *SERVE)
        wait_for(lambda: second.fetch("http://127.0.0.1:8080/") != "", "the page")
        before = second.rules()
        daemon.stop(signal.SIGKILL)
        assert second.fetch("http://127.0.0.1:8080/") and second.rules() == before
        second.host("ip", "link", "add", "hy-0123456789", "type", "bridge")
        with launched(
            tmp_path / "root", "--network", "bridge", run=daemon.run, prefix=("ip", "netns", "exec", name)
        ) as again:
            third = World(name, again)
            assert third.rules() == before and "hy-0123456789" not in third.host("ip", "-br", "link")
            assert third.fetch("http://127.0.0.1:8080/") and third.fetch("http://[::1]:8080/")
            again.ctl("rm", "-f", "a")
        assert third.rules() == ""


@contextlib.contextmanager
def namespaces_again(tag: str = "") -> Iterator[str]:
    """One with nothing but its loopback."""
    name = f"hy-more{tag}-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


_HOSTILE = """
import fcntl, socket, struct, sys, time
mac, own, own6, victim, gateway, victim6 = sys.argv[1:7]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
m = bytes.fromhex(mac.replace(":", "")); other = bytes.fromhex("0a6666666666"); all_ = b"\\xff" * 6
ip = socket.inet_aton; six = lambda a: socket.inet_pton(socket.AF_INET6, a)
def checksum(d):
    d += b"\\0" * (len(d) % 2); t = sum(struct.unpack(">%dH" % (len(d) // 2), d))
    t = (t >> 16) + (t & 0xffff); return ~(t + (t >> 16)) & 0xffff
def v4(src, dst, payload, proto=17):
    h = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0, ip(src), ip(dst))
    return h[:10] + struct.pack(">H", checksum(h)) + h[12:] + payload
def udp(sport, dport, data): return struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data
def v6(src, dst, payload):
    pseudo = six(src) + six(dst) + struct.pack(">II", len(payload), 58)
    c = checksum(pseudo + payload); payload = payload[:2] + struct.pack(">H", c) + payload[4:]
    return struct.pack(">IHBB", 6 << 28, len(payload), 58, 255) + six(src) + six(dst) + payload
def arp(src_mac, src_ip, op=2):
    return struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, op, src_mac, ip(src_ip), all_, ip(victim))
M = b"EVIL-MARK"
router = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + M
neighbour = struct.pack(">BBHI16s", 136, 0, 0, 0x60000000, six(victim6)) + M
frames = [
    all_ + m + b"\\x08\\x06" + arp(m, gateway),                     # I am the gateway
    all_ + m + b"\\x08\\x06" + arp(other, own),                     # with another's hardware address
    all_ + other + b"\\x08\\x00" + v4(own, victim, udp(1, 9, M)),    # from another NIC
    all_ + m + b"\\x08\\x00" + v4("198.51.100.9", victim, udp(1, 9, M)),  # from another address
    all_ + m + b"\\x08\\x00" + v4(own, "255.255.255.255", udp(67, 68, M)),  # a DHCP server
    all_ + m + b"\\x86\\xdd" + v6("fe80::1", "ff02::1", router),
    all_ + m + b"\\x86\\xdd" + v6(own6, "ff02::1", neighbour),  # I am the victim
    all_ + m + b"\\x81\\x00\\x00\\x05\\x08\\x00" + v4(own, victim, udp(1, 9, M)),  # in a VLAN
]
for _ in range(5):
    for f in frames: s.send(f)
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(20000):
    try: d.sendto(b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\1\\0\\1", (gateway, 53))
    except OSError: pass
print("done")
"""
_SNIFF = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind((sys.argv[1], 0))
print("listening", flush=True)
bad = bytes.fromhex("0a6666666666")
while True:
    f = s.recv(2000)
    gateway, mac = socket.inet_aton(sys.argv[2]), bytes.fromhex(sys.argv[3].replace(":", ""))
    gateway_arp = f[12:14] == b"\\x08\\x06" and f[28:32] == gateway and f[6:12] == mac
    if b"EVIL-MARK" in f or bad in f or gateway_arp:
        print("caught", f.hex(), flush=True)
"""


def test_a_hostile_guest(world: World, app_layout: Path) -> None:
    """Raw frames from a privileged container: spoofed ARP, ND, sources, DHCP, routers, VLANs, a flood of questions."""
    ctl = world.daemon.ctl
    load(world.daemon, app_layout, "app")
    ctl("network", "create", "--ipv6", "field")
    ctl("run", "-d", "--privileged", "--name", "evil", "--network", "field", "app", *SLEEP)
    ctl("run", "-d", "--privileged", "--name", "victim", "--network", "field", "app", *SLEEP)
    ctl("run", "-d", "--name", "bystander", "--network", "field", "busybox", *SLEEP)
    (own, own6), (victim, victim6) = world.addresses("field", "evil"), world.addresses("field", "victim")
    network = json.loads(world.daemon.out("network", "inspect", "field"))[0]["network"]
    mac = world.sh("evil", "cat /sys/class/net/eth0/address")
    watch = [network["gateway"], mac]
    ctl("exec", "-d", "victim", "sh", "-c", 'exec python3 -c "$0" eth0 $1 $2 > /seen', _SNIFF, *watch)
    on_host = subprocess.Popen(
        ["ip", "netns", "exec", world.name, sys.executable, "-c", _SNIFF, network["bridge"], *watch],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: "listening" in world.sh("victim", "cat /seen"), "the victim's ear")
        assert on_host.stdout is not None and on_host.stdout.readline() == "listening\n"
        neighbours = world.host("ip", "neigh", "show", "dev", network["bridge"])
        attack = ctl("exec", "evil", "python3", "-c", _HOSTILE, mac, own, own6, victim, network["gateway"], victim6)
        assert attack.stdout == "done\n"
        # While the flood goes on others are answered.
        begin = time.monotonic()
        assert victim in world.sh("bystander", "nslookup victim")
        assert time.monotonic() - begin < 30
        assert world.sh("victim", "cat /seen") == "listening"
        assert "0a:66:66:66:66:66" not in world.host("ip", "neigh") and len(neighbours) >= 0
    finally:
        on_host.kill()
        rest, _ = on_host.communicate()
    assert "caught" not in rest


_FIFTY = """
import asyncio, os, subprocess, sys
from pathlib import Path
from hypercontainer.engine.paths import Paths
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.model.network import NetworkSpec
from hypercontainer.model.specs import ContainerSpec, PortMapping
from hypercontainer.network import tap

def links(): return subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout.count("ht")

async def main():
    config = Config(root=sys.argv[1], run=sys.argv[2], network="bridge")
    Paths(config.root_path, config.run_path).create()
    engine = build_engine(config)
    await engine.open()
    await engine.pull("builtin:busybox")[1]
    await engine.networks.create(NetworkSpec(name="n", ipv6=True))
    fds = []
    for i in range(50):
        spec = ContainerSpec(image="busybox", network="n", ports=[PortMapping(container_port=80, host_port=21000 + i)])
        pod = engine.registry.pod((await engine.containers.create(spec)).pod)
        pod = engine._sandboxes.update(pod.id, ports=engine._network.claim(pod, pod.spec.ports))
        await engine._network.prepare(pod)
        await engine._network.enforce(pod)
        (link,) = engine._network.links(pod)
        fds.append(await tap.open_tap(link.tap, engine.registry.network("n").bridge))
    addresses = {a.ip for p in engine.registry.pods() for a in p.attachments}
    print(len(addresses), links())
    for pod in engine.registry.pods():
        await engine._network.release(pod.id)
    for fd in fds:
        os.close(fd)
    for c in engine.registry.containers():
        await engine.containers.remove(c.id)
    await engine.networks.remove("n")
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout
    print(links(), len(rules), len(engine.registry.networks()))
    await engine.close(keep_running=False)

asyncio.run(main())
"""


def test_fifty_pods_leave_nothing(tmp_path: Path, repository: Path) -> None:
    with namespaces_again() as name:
        done = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", _FIFTY, tmp_path / "root", tmp_path / "run"],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            cwd=repository,
        )
        assert done.stdout.split("\n")[:2] == ["50 50", "0 0 0"], done.stderr


def test_cni(world: World, tmp_path: Path) -> None:
    """A configuration of the host's attaches a pod, and leaves nothing behind."""
    directory = Path("/etc/cni/net.d")
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "99-hyper-test.conflist"
    plugin = {
        "type": "bridge",
        "bridge": "cni-test",
        "isGateway": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "subnet": "10.99.0.0/24",
            "dataDir": str(tmp_path),
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    config.write_text(json.dumps({"cniVersion": "0.4.0", "name": "hyper-test", "plugins": [plugin]}))
    try:
        world.daemon.ctl("run", "-d", "--name", "plugged", "--network", "cni:hyper-test", "busybox", *SERVE)
        assert "10.99.0.2/24" in world.sh("plugged", "ip addr show eth0") and "default via 10.99.0.1" in world.sh(
            "plugged", "ip route"
        )
        wait_for(lambda: world.fetch("http://10.99.0.2/") != "", "the pod's page over the plugin's bridge")
        assert " 0% packet loss" in world.sh("plugged", "ping -c 1 -W 5 10.99.0.1")
        world.daemon.ctl("rm", "-f", "plugged")
        assert "hyc-" not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        missing = world.daemon.ctl("run", "--rm", "--network", "cni:none", "busybox", "true", check=False)
        assert missing.returncode == 125 and "no CNI network 'none' in /etc/cni/net.d" in missing.stderr
    finally:
        config.unlink()
        if made:
            directory.rmdir()
        world.host("ip", "link", "del", "cni-test", check=False)


def test_a_running_pod_joins_and_leaves_networks(world: World) -> None:
    ctl = world.daemon.ctl
    for name in ("home", "away"):
        ctl("network", "create", "--ipv6", name)
    ctl("run", "-d", "--name", "far", "--network", "away", "busybox", *SLEEP)
    ctl("pod", "create", "-n", "mover", "--network", "home")
    ctl("pod", "start", "mover")
    ctl("run", "-d", "--pod", "mover", "--name", "m", "busybox", *SLEEP)
    assert " 0% packet loss" not in world.sh("m", "ping -c 1 -W 1 " + world.addresses("away", "far")[0])
    ctl("network", "connect", "--alias", "guest", "away", "mover")
    assert " 0% packet loss" in world.sh("m", "ping -c 1 -W 5 " + world.addresses("away", "far")[0])
    assert " 0% packet loss" in world.sh("m", "ping6 -c 1 -W 5 " + world.addresses("away", "far")[1])
    assert " 0% packet loss" in world.sh("far", "ping -c 1 -W 5 guest")
    ctl("network", "disconnect", "away", "mover")
    assert " 0% packet loss" not in world.sh("m", "ping -c 1 -W 1 " + world.addresses("away", "far")[0])
    ctl("network", "connect", "away", "mover")
    assert " 0% packet loss" in world.sh("m", "ping -c 1 -W 5 " + world.addresses("away", "far")[0])
    third = ctl("network", "connect", "bridge", "mover", check=False)
    assert third.returncode == 1 and "its virtual machine has no spare network interface: stop it first" in third.stderr
    ctl("pod", "rm", "-f", "mover")
    ctl("network", "rm", "bridge")


def test_a_running_container_joins_and_leaves_networks(world: World) -> None:
    """By Docker's own client; of one machine that was booted, and of one that waited."""

    def docker(*args: str, check: bool = True) -> str:
        done = world.daemon.docker(*args, check=check)
        return done.stdout.strip() if check else done.stderr.strip()

    for name, subnet in (("front", "10.87.0.0/24"), ("back", "10.88.0.0/24")):
        docker("network", "create", "--subnet", subnet, name)
    docker("run", "-d", "--name", "far", "--network", "back", "busybox", *SLEEP)
    for name in ("booted", "waited"):
        if name == "waited":
            world.daemon.ctl("factory", "warm", "--network", "front", "-n", "1")
        docker("run", "-d", "--name", name, "--network", "front", "-p", "8086:80", "busybox", *SERVE)
        docker("network", "connect", "--alias", "guest", "--ip", "10.88.0.77", "back", name)
        assert " 0% packet loss" in world.sh("far", "ping -c 1 -W 5 guest")
        assert " 0% packet loss" in world.sh(name, "ping -c 1 -W 5 far")
        assert "default via 10.87.0.1 dev eth0" in world.sh(name, "ip route")
        assert docker("inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", name) == "10.88.0.77"
        assert "10.88.0.77/24" in docker("network", "inspect", "back")
        again = docker("network", "connect", "back", name, check=False)
        assert f"endpoint with name {name} already exists in network back" in again
        refused = docker("network", "connect", "bridge", name, check=False)
        assert f"{name} is running, and its virtual machine has no spare network interface" in refused
        docker("network", "disconnect", "front", name)
        assert "default via 10.88.0.1 dev eth1" in world.sh(name, "ip route")
        assert " 0% packet loss" in world.sh(name, "ping -c 1 -W 5 203.0.113.2")
        docker("network", "disconnect", "back", name)
        assert world.sh(name, "ip -4 -o addr show | grep -v ' lo '") == "" == world.sh(name, "ip route")
        docker("network", "connect", "front", name)
        docker("network", "connect", "back", name)
        assert " 0% packet loss" in world.sh(name, "ping -c 1 -W 5 far")
        wait_for(lambda: world.fetch("http://127.0.0.1:8086/") != "", "the page at its published port")
        docker("restart", "-t", "0", name)
        assert " 0% packet loss" in world.sh(name, "ping -c 1 -W 5 far")
        docker("rm", "-f", name)
    events = docker("events", "--since", "5m", "--until", "0s", "--filter", "type=network", "--format", "{{.Action}}")
    assert {"connect", "disconnect"} <= set(events.split())


def test_a_podfile_in_networks(world: World, tmp_path: Path) -> None:
    world.daemon.ctl("network", "create", "--subnet", "10.88.0.0/24", "front")
    world.daemon.ctl("network", "create", "back")
    podfile = {
        "id": "shop",
        "network": "back",
        "networks": [{"name": "front", "ip": "10.88.0.7", "mac": "0a:00:00:00:00:07", "aliases": ["till"]}],
        "allow": ["10.0.0.0/8"],
        "ingressRate": "9m",
        "egressRate": "8m",
        "portmappings": [{"hostPort": 8084, "containerPort": 80}],
        "containers": [{"name": "shop-web", "image": "busybox", "command": list(SERVE), "aliases": ["web"]}],
    }
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(podfile))
    world.daemon.ctl("run", "-p", path)
    world.daemon.ctl("run", "-d", "--name", "asks", "--network", "front", "busybox", *SLEEP)
    for name in ("till", "web", "shop"):
        wait_for(
            lambda name=name: world.sh("asks", f"timeout 30 wget -q -O - http://{name}/") == "shop",
            f"an answer of {name}",
        )  # type: ignore[misc]
    assert world.sh("shop-web", "cat /sys/class/net/eth1/address") == "0a:00:00:00:00:07"
    assert (
        world.fetch("http://127.0.0.1:8084/") == "shop"
        and world.sh("shop-web", "ping -c 1 -W 1 203.0.113.2 >/dev/null && echo reached") == ""
    )
    assert "limit rate over 1000000 bytes/second" in world.rules()


def test_passt_where_it_is_installed(tmp_path: Path) -> None:
    """The user-mode network by passt: published ports, names, the same commands."""
    with (
        namespaces("-passt") as name,
        launched(
            tmp_path / "root", "--network", "user", "--user-network", "passt", prefix=("ip", "netns", "exec", name)
        ) as daemon,
    ):
        host = World(name, daemon)
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
        wait_for(lambda: host.fetch("http://203.0.113.1:8080/") != "", "the page, published by passt")
        assert "10.0.2.15" in host.sh("web", "ip addr show eth0") and "nameserver 10.0.2.3" in host.sh(
            "web", "cat /etc/resolv.conf"
        )
        refused = daemon.ctl("ports", "add", "web", "-p", "8081:80", check=False)
        assert refused.returncode == 1 and "passt publishes ports only when it starts" in refused.stderr
        daemon.ctl("stop", "-t", "0", "web")
        assert daemon.ctl("ports", "add", "web", "-p", "8081:80").stdout.count("80") >= 2
        daemon.ctl("start", "web")
        wait_for(lambda: host.fetch("http://203.0.113.1:8081/") != "", "the page at its second port")


def test_passt_of_what_goes_on_from_a_saved_pod(tmp_path: Path) -> None:
    """A connection reaches it each time; the first one does, but on a busy host, as passt sends nothing again."""
    with (
        namespaces("-saved") as name,
        launched(
            tmp_path / "root", "--network", "user", "--user-network", "passt", prefix=("ip", "netns", "exec", name)
        ) as daemon,
    ):
        host = World(name, daemon)
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("run", "-d", "--name", "web", "--idle-timeout", "1s", "-p", "8080:80", "busybox", *SERVE)
        for _ in range(3):
            wait_for(lambda: "Suspended" in daemon.ctl("ps").stdout, "it is suspended")
            wait_for(lambda: "0.0.0.0:8080" in host.host("ss", "-Hltn"), "somebody listens for it")
            wait_for(lambda: host.fetch("http://203.0.113.1:8080/") != "", "the page of what goes on")
        daemon.ctl("run", "-d", "--name", "busy", "-p", "8081:80", "busybox", *SERVE)
        wait_for(lambda: host.fetch("http://203.0.113.1:8081/") != "", "the page")
        daemon.ctl("pod", "fork", "--name", "child", "busy")
        port = json.loads(daemon.out("inspect", "child"))[0]["ports"][0]["hostPort"]
        wait_for(lambda: host.fetch(f"http://203.0.113.1:{port}/") != "", "the page of the fork")


@pytest.mark.parametrize("megabytes", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_a_large_download_blocks_nothing(world: World, megabytes: int) -> None:
    """It comes in while other streams of the pod are answered."""
    out = world.name.replace("host", "out")
    code = (
        "import socket\ns=socket.create_server(('', 7100))\nc=s.accept()[0]\nb=bytes(1<<20)\n"
        f"for _ in range({megabytes}): c.sendall(b)\nc.close()"
    )
    sender = subprocess.Popen(["ip", "netns", "exec", out, sys.executable, "-c", code])
    try:
        world.daemon.ctl("run", "-d", "--name", "loads", "busybox", *SLEEP)
        world.daemon.ctl(
            "exec",
            "-d",
            "loads",
            "sh",
            "-c",
            "until nc 203.0.113.2 7100 > /dev/null; do :; done; cat /sys/class/net/eth0/statistics/rx_bytes > /got",
        )
        answered = 0
        while not world.sh("loads", "cat /got 2>/dev/null").strip():
            assert world.sh("loads", "echo here") == "here"
            answered += 1
        assert int(world.sh("loads", "cat /got")) > megabytes << 20 and answered >= 1
    finally:
        sender.kill()
        sender.wait()


def test_beside_docker(world: World) -> None:
    """Docker's firewall drops what it does not know; ours asks in the chain that is for others, and takes it back."""
    chains = (
        "add table ip filter; add chain ip filter DOCKER-USER; add rule ip filter DOCKER-USER counter return; "
        "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; "
        "add rule ip filter FORWARD jump DOCKER-USER"
    )
    world.host("nft", chains)
    before = world.rules()
    try:
        world.daemon.ctl("network", "create", "beside")
        world.daemon.ctl("run", "-d", "--name", "near", "--network", "beside", "busybox", *SLEEP)
        assert " 0% packet loss" in world.sh("near", "ping -c 1 -W 5 203.0.113.2")
        world.daemon.ctl("rm", "-f", "near")
        world.daemon.ctl("network", "rm", "beside")
        counters = re.compile(r"packets \d+ bytes \d+")
        assert counters.sub("", world.rules()) == counters.sub("", before)
    finally:
        world.host("nft", "delete table ip filter")


def test_udp_is_published_everywhere(world: World, app_layout: Path) -> None:
    load(world.daemon, app_layout, "app")
    world.daemon.ctl("network", "create", "--ipv6", "datagrams")
    echo = (
        "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\ns.bind(('::', 7777))\n"
        "while True:\n d, a = s.recvfrom(99); s.sendto(d[::-1], a)"
    )
    world.daemon.ctl(
        "run", "-d", "--name", "echo", "--network", "datagrams", "-p", "7007:7777/udp", "app", "python3", "-c", echo
    )
    ask = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(10)\ns.sendto(b'abc', (sys.argv[1], 7007))\nprint(s.recv(9).decode())"
    )
    for where in ("127.0.0.1", "::1", "203.0.113.1", "2001:db8::1"):
        wait_for(
            lambda where=where: world.host(sys.executable, "-c", ask, where, check=False) == "cba",
            f"an echo from {where}",
        )  # type: ignore[misc]
    out = world.name.replace("host", "out")
    done = subprocess.run(
        ["ip", "netns", "exec", out, sys.executable, "-c", ask, "203.0.113.1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "cba\n"
    assert world.sh("echo", f'python3 -c "{ask.replace(chr(10), ";")}" 203.0.113.1') == "cba"  # and itself
