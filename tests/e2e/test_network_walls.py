# SPDX-License-Identifier: Apache-2.0
"""What must not be reached: real packets from a hostile pod, a neighbour of the host's network, and a container."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hypercontainer.client.transport import Connection

from .conftest import BIN, DEADLINE, launched, wait_for
from .test_networks import SERVE, SLEEP, World, namespaces

ADDRESSES = ("127.0.0.1", "127.0.0.53", "127.1.2.3", "169.254.1.1", "169.254.169.254")
# Answers whatever comes to any of them, by TCP on ports 53 and 9000, by UDP on port 53.
_SERVER = """
    import select, socket
    addresses, udp, tcp = {addresses!r}, [], []
    for a in addresses:
        for port in (53, 9000):
            tcp.append(socket.create_server((a, port)))
        udp.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)); udp[-1].bind((a, 53))
    print("ready", flush=True)
    while True:
        for s in select.select(tcp + udp, [], [])[0]:
            if s in tcp: s.accept()[0].close()
            else: s.sendto(b"answer", s.recvfrom(512)[1])
"""
# Prints who answered, by sending to all and waiting once.
_PROBE = """
    import select, socket, sys, time
    waiting = {{}}
    for a in {addresses!r}:
        for port in {ports!r}:
            s = socket.socket(); s.setblocking(False)
            if s.connect_ex((a, port)) in (0, 115): waiting[s] = f"tcp {{a}}:{{port}}"
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try: s.sendto(b"question", (a, 53)); waiting[s] = f"udp {{a}}:53"
        except OSError: pass
    end = time.monotonic() + {seconds}
    while waiting and time.monotonic() < end:
        writable = [s for s in waiting if s.type == socket.SOCK_STREAM]
        datagrams = [s for s in waiting if s.type == socket.SOCK_DGRAM]
        r, w, _ = select.select(datagrams, writable, [], end - time.monotonic() if end > time.monotonic() else 0)
        for s in w:
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0: print(waiting[s])
            del waiting[s]
        for s in r:
            try: s.recv(512); print(waiting[s])
            except OSError: pass
            del waiting[s]
"""


def python(namespace: str, script: str, timeout: float = 30) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Walls(World):
    """Pods `a` in network one and `b` in two, a namespace as a pod of one, and a neighbour of the host."""

    pod: str
    neighbour: str
    gateway: str
    gateway6: str

    def probe(self, namespace: str, *ports: int, seconds: float = 1.5) -> str:
        return python(namespace, _PROBE.format(addresses=ADDRESSES, ports=ports, seconds=seconds))


def _as_any_host_may(namespace: str, device: str, gateway: str) -> None:
    """Send packets for the loopback to the gateway, as a root of another machine can."""
    commands = f"""ip link set lo down
        sysctl -qw net.ipv4.conf.{device}.route_localnet=1 net.ipv4.conf.all.rp_filter=0
        ip route replace 127.0.0.0/8 via {gateway} dev {device}
        ip route replace 169.254.0.0/16 via {gateway} dev {device}"""
    for command in commands.splitlines():
        subprocess.run(["ip", "netns", "exec", namespace, *command.split()], check=True)


@contextlib.contextmanager
def _pod(host: str, bridge: str, address: str, gateway: str) -> Iterator[str]:
    """A namespace with a NIC on the bridge."""
    name = f"hy-pod-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(
            ["ip", "-n", host, "link", "add", "p0", "type", "veth", "peer", "name", "eth0", "netns", name], check=True
        )
        for where, words in (
            (host, f"link set p0 master {bridge} up"),
            (name, f"addr add {address}/24 dev eth0"),
            (name, "link set eth0 up"),
            (name, f"route add default via {gateway}"),
        ):
            subprocess.run(["ip", "-n", where, *words.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(namespaces("w"))
        root = tmp_path_factory.mktemp("walls") / "root"
        daemon = stack.enter_context(launched(root, "--network", "bridge", prefix=("ip", "netns", "exec", host)))
        daemon.ctl("pull", "-q", "builtin:busybox")
        daemon.ctl("network", "create", "--ipv6", "one")
        daemon.ctl("network", "create", "two")
        daemon.ctl("run", "-d", "--name", "a", "--network", "one", "busybox", *SLEEP)
        daemon.ctl(
            "run",
            "-d",
            "--name",
            "b",
            "--hostname",
            "b",
            "--network",
            "two",
            "-p",
            "127.0.0.1:8080:80",
            "-p",
            "8081:80",
            "busybox",
            *SERVE,
        )
        one = json.loads(daemon.out("network", "inspect", "one"))[0]["network"]
        address = one["gateway"].removesuffix(".1") + ".200"
        pod = stack.enter_context(_pod(host, one["bridge"], address, one["gateway"]))
        for words in ("addr add 169.254.169.254/32 dev lo", "addr add 169.254.1.1/16 dev up0"):
            subprocess.run(["ip", "-n", host, *words.split()], check=True)
        neighbour = host.replace("host", "out")
        _as_any_host_may(pod, "eth0", one["gateway"])
        _as_any_host_may(neighbour, "down0", "203.0.113.1")
        script = textwrap.dedent(_SERVER.format(addresses=ADDRESSES))
        server = stack.enter_context(
            subprocess.Popen(["ip", "netns", "exec", host, sys.executable, "-c", script], stdout=subprocess.PIPE)
        )
        stack.callback(server.kill)
        assert server.stdout and server.stdout.readline() == b"ready\n"
        yield Walls(host, daemon, pod, neighbour, one["gateway"], one["gateway6"])


def test_the_probe_sees_what_answers(walls: Walls) -> None:
    """On the host all of them do: the other tests of this file are not blind."""
    found = walls.probe(walls.name, 53, 9000).split("\n")
    for a in ADDRESSES:
        assert {f"tcp {a}:53", f"tcp {a}:9000", f"udp {a}:53"} <= set(found)
    wait_for(lambda: walls.fetch("http://127.0.0.1:8080/") == "b", "the published port")


def test_loopback_and_link_local_addresses_do_not_answer_a_pod(walls: Walls) -> None:
    assert walls.probe(walls.pod, 53, 8080, 8081, 9000) == ""


def test_loopback_does_not_answer_a_neighbour(walls: Walls) -> None:
    loopback = [line for line in walls.probe(walls.neighbour, 53, 8080, 8081, 9000).split("\n") if " 127." in line]
    assert loopback == []
    # Nor a published port at a link-local address, which the host has like any of its own.
    assert ":808" not in walls.probe(walls.neighbour, 8080, 8081)
    assert python(walls.neighbour, "import socket; socket.create_connection(('203.0.113.1', 8081), 5)") == ""


def test_ports_of_the_ipv6_loopback_do_not_answer(walls: Walls) -> None:
    """A frame for ::1, made by hand."""
    script = """
        import socket, struct
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(({device!r}, 0x86dd)); s.settimeout(1)
        mac, mine = bytes.fromhex({mac!r}), s.getsockname()[4]
        source, target = socket.inet_pton(socket.AF_INET6, {source!r}), socket.inet_pton(socket.AF_INET6, "::1")
        def sums(data):
            n = sum(struct.unpack(f"!{{len(data) // 2}}H", data))
            while n >> 16: n = (n & 0xffff) + (n >> 16)
            return 0xffff - n
        tcp = struct.pack("!HHIIBBHHH", 4000, 8081, 1, 0, 0x50, 2, 1000, 0, 0)
        check = sums(source + target + struct.pack("!IBBBB", len(tcp), 0, 0, 0, 6) + tcp)
        tcp = tcp[:16] + struct.pack("!H", check) + tcp[18:]
        s.send(mac + mine + b"\\x86\\xdd" + struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + source + target + tcp)
        try:
            while True:
                frame = s.recv(2048)
                if frame[20] == 6 and frame[54:58] == struct.pack("!HH", 8081, 4000): print("answered")
        except TimeoutError: pass
    """
    for namespace, device, where in ((walls.pod, "eth0", "one"), (walls.neighbour, "down0", "up0")):
        bridge = (
            json.loads(walls.daemon.out("network", "inspect", "one"))[0]["network"]["bridge"]
            if where == "one"
            else where
        )
        mac = walls.host("cat", f"/sys/class/net/{bridge}/address").replace(":", "")
        assert python(namespace, script.format(device=device, mac=mac, source="2001:db8::2")) == ""


def test_a_container_reaches_no_metadata_and_no_port_of_the_hosts_loopback(walls: Walls) -> None:
    assert walls.sh("a", "timeout 3 sh -c 'echo x | nc -w 2 169.254.169.254 9000' && echo reached") == ""
    assert walls.sh("a", "nslookup -timeout=2 a 169.254.169.254 >/dev/null && echo reached") == ""
    assert walls.sh("a", f"timeout 60 wget -q -O - http://{walls.gateway}:8081/") == "b"


def test_a_networks_name_server_answers_its_pods_and_the_host_only(walls: Walls) -> None:
    assert walls.host("dig", "+short", f"@{walls.gateway}", "-q", "a") != ""
    subprocess.run(["ip", "-n", walls.neighbour, "route", "add", walls.gateway, "via", "203.0.113.1"], check=True)
    ask = ["dig", "+short", "+time=1", "+tries=1", f"@{walls.gateway}", "-q", "a"]
    for extra in ([], ["+tcp"]):
        done = subprocess.run(
            ["ip", "netns", "exec", walls.neighbour, *ask, *extra], capture_output=True, text=True, check=False
        )
        assert done.returncode == 9, done.stdout  # no answer
    assert walls.sh("b", f"nslookup -timeout=2 a {walls.gateway} >/dev/null && echo answered") == ""


def test_a_host_address_is_no_rule_of_the_firewall(walls: Walls) -> None:
    """It is refused when it is asked for, not when the container starts."""
    evil = "127.0.0.1 } } chain stolen { type filter hook input priority 0; "
    rules = walls.rules()
    for address in (evil, "fe80::1%0 } chain stolen {", "nowhere", "1.2.3"):
        body = {
            "image": "busybox",
            "network": "one",
            "ports": [{"containerPort": 80, "hostPort": 1, "hostIp": address}],
        }
        response = Connection(str(walls.daemon.socket)).request("POST", "/v1/containers", {}, json.dumps(body).encode())
        assert response.status == 400 and b"invalid host address" in response.read()
    made = walls.daemon.ctl(
        "network", "create", "--subnet", "fd01::/64", "--gateway", "fd01::1%0 } chain stolen {", "evil", check=False
    )
    assert made.returncode and "invalid gateway" in made.stderr
    assert "stolen" not in walls.rules() and len(walls.rules()) == len(rules)


# -- floods ------------------------------------------------------------------------------

_FLOOD = """
    import select, socket, struct, threading, time
    question = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"\\x01x\\x00\\x00\\x01\\x00\\x01"
    family = socket.AF_INET6 if ":" in {server!r} else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM); s.connect(({server!r}, 53)); s.setblocking(False)
    answered = sent = 0
    start = time.monotonic()
    while time.monotonic() < start + {seconds}:
        for _ in range(20):
            try: s.send(question); sent += 1
            except OSError: pass
        while select.select([s], [], [], 0.0005)[0]:
            s.recv(512); answered += 1
    print(sent, answered)
"""
# As many connections at once as may be, each with its question; what has no answer by then is given up.
_STREAMS = """
    import collections, select, socket, struct, time
    question = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"\\x01x\\x00\\x00\\x01\\x00\\x01"
    family = socket.AF_INET6 if ":" in {server!r} else socket.AF_INET
    poll, open_ = select.epoll(), collections.OrderedDict()
    answered = sent = 0
    start = time.monotonic()
    def drop(fd):
        poll.unregister(fd); open_.pop(fd).close()
    while time.monotonic() < start + {seconds}:
        for _ in range(20):
            s = socket.socket(family, socket.SOCK_STREAM); s.setblocking(False)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.connect_ex(({server!r}, 53)); sent += 1
            open_[s.fileno()] = s; poll.register(s, select.EPOLLOUT)
        for fd, event in poll.poll(0.0005):
            s = open_[fd]
            try:
                if event & select.EPOLLOUT:
                    s.send(struct.pack("!H", len(question)) + question); poll.modify(fd, select.EPOLLIN)
                    continue
                answered += s.recv(512) != b""
            except OSError: pass
            drop(fd)
        while len(open_) > 400: drop(next(iter(open_)))
    print(sent, answered)
"""


_FLOOD_SECONDS = float(os.environ.get("HYPER_TEST_FLOOD", "2"))  # 60 are 100,000 questions and more
_MOST = _FLOOD_SECONDS * 500 + 100 + 100  # answers: the rate, its burst, and what a busy machine takes longer


@pytest.fixture(params=[4, 6])
def server(walls: Walls, request: pytest.FixtureRequest) -> str:
    """The address of the pod's name server, of each kind that it has."""
    if request.param == 4:
        return walls.gateway
    words = ["ip", "-n", walls.pod, "addr", "replace", f"{walls.gateway6}ff/64", "dev", "eth0", "nodad"]
    subprocess.run(words, check=True)
    return walls.gateway6


def test_a_flood_of_questions_is_cut_off(walls: Walls, server: str) -> None:
    script = _FLOOD.format(server=server, seconds=_FLOOD_SECONDS)
    sent, answered = map(int, python(walls.pod, script, 30 + _FLOOD_SECONDS).split())
    print(f"{sent} questions by UDP to {server}: {answered} answers")
    assert sent > 3000  # on two busy CPUs, too
    assert 10 < answered <= _MOST


def test_a_flood_of_connections_is_cut_off(walls: Walls, server: str) -> None:
    script = _STREAMS.format(server=server, seconds=_FLOOD_SECONDS)
    sent, answered = map(int, python(walls.pod, script, 30 + _FLOOD_SECONDS).split())
    print(f"{sent} questions by TCP to {server}: {answered} answers")
    assert sent > 500  # on two busy CPUs, too
    assert 10 < answered <= _MOST


def test_idle_connections_are_few_and_closed(walls: Walls) -> None:
    script = """
        import socket, time
        held = []
        for _ in range(60):
            try: held.append(socket.create_connection(({server!r}, 53), 2))
            except OSError: pass
        def open_(c):
            c.setblocking(False)
            try: return c.recv(1) != b""
            except BlockingIOError: return True
            except OSError: return False
        end = time.monotonic() + 3  # before any is closed for its age
        while sum(map(open_, held)) > 8 and time.monotonic() < end: time.sleep(0.05)
        print(len(held), sum(map(open_, held)), flush=True)
        end = time.monotonic() + 15
        while any(map(open_, held)) and time.monotonic() < end: time.sleep(0.1)
        print(sum(map(open_, held)))
    """
    made, opened, later = map(int, python(walls.pod, script.format(server=walls.gateway)).split())
    assert made > 20 and opened <= 8 and later == 0
    assert walls.host("dig", "+short", "+tcp", f"@{walls.gateway}", "-q", "a") != ""


# -- ports -------------------------------------------------------------------------------


def test_one_of_two_starts_at_once_gets_a_port(walls: Walls) -> None:
    """The other is told who has it."""
    command = [
        BIN / "hyperctl",
        "run",
        "-d",
        "--label",
        "race=1",
        "--network",
        "one",
        "-p",
        "8099:80",
        "busybox",
        *SLEEP,
    ]
    environment = walls.daemon.environment
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    done = [(p.communicate(timeout=DEADLINE), p.returncode) for p in started]
    winners = [out.strip() for (out, _), status in done if status == 0]
    errors = [err for (_, err), status in done if status]
    assert len(winners) == 1 and all("0.0.0.0:8099/tcp: Address already in use by pod " in e for e in errors), done
    walls.daemon.ctl("rm", "-f", *winners)
    # Its port is free again.
    assert walls.daemon.out("run", "--rm", "--network", "one", "-p", "8099:80", "busybox", "echo", "again") == "again"
    walls.daemon.ctl("rm", *walls.daemon.out("ps", "-aq", "-f", "label=race=1").split())


def test_a_flushed_firewall_is_mended_by_the_next_start(walls: Walls) -> None:
    walls.host("nft", "flush", "ruleset")
    walls.daemon.ctl("run", "--rm", "--network", "one", "busybox", "true")
    wait_for(lambda: walls.fetch("http://127.0.0.1:8080/") == "b", "the published port")
    assert walls.probe(walls.pod, 53, 8080, 8081, 9000) == ""


def test_ipv6_addresses_and_free_ports_are_published(walls: Walls) -> None:
    ctl = walls.daemon.ctl
    ctl(
        "run",
        "-d",
        "--name",
        "six",
        "--network",
        "one",
        "-p",
        "[2001:db8::1]:8090:80",
        "-p",
        "[::1]:8091:80",
        "-p",
        "0:80/TCP",
        "busybox",
        *SERVE,
    )
    name = walls.sh("six", "hostname")
    wait_for(lambda: walls.fetch("http://[2001:db8::1]:8090/") == name, "the port of one IPv6 address")
    assert walls.fetch("http://[::1]:8091/") == name and walls.fetch("http://203.0.113.1:8090/") == ""
    free = next(line for line in walls.daemon.out("ports", "ls", "six").splitlines() if line.startswith("0.0.0.0:"))
    number = free.split()[0].rpartition(":")[2]
    assert walls.fetch(f"http://127.0.0.1:{number}/") == name
    ctl("rm", "-f", "six")
    refused = ctl("run", "--rm", "--network", "two", "-p", "[2001:db8::1]:8090:80", "busybox", "true", check=False)
    assert refused.returncode == 125 and "network two has no IPv6" in refused.stderr


def test_the_host_has_a_name_on_request(walls: Walls) -> None:
    hosts = ("--add-host", "host.docker.internal:host-gateway", "--add-host", "far=192.0.2.1")
    read = ("busybox", "cat", "/etc/hosts")
    lines = walls.daemon.out("run", "--rm", "--network", "one", *hosts, *read)
    assert f"{walls.gateway}\thost.docker.internal" in lines and "192.0.2.1\tfar" in lines
    assert "10.0.2.2\thost.docker.internal" in walls.daemon.out(
        "run", "--rm", "--network", "user:host-loopback", *hosts, *read
    )
    refused = walls.daemon.ctl("run", "--rm", "--network", "user", *hosts, *read, check=False)
    assert refused.returncode == 125 and "use --network user:host-loopback" in refused.stderr
