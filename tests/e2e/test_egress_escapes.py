# SPDX-License-Identifier: Apache-2.0
"""Ways out of a pod with an egress policy, tried by root in a real machine while others listen (egress/attempts.py)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import wait_for
from .egress import attempts_in
from .egress.world import Outside, worlds

_LOCAL = """
    import socket, threading
    def serve(port):
        s = socket.create_server(("0.0.0.0", port))
        while True:
            c, who = s.accept(); print("tcp", port, who[0], flush=True); c.sendall(b"ESCAPED"); c.recv(100); c.close()
    def datagrams():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 9000))
        while True:
            data, who = s.recvfrom(2048); print("udp", who[0], flush=True); s.sendto(b"ESCAPED", who)
    for port in {ports}: threading.Thread(target=serve, args=(port,)).start()
    threading.Thread(target=datagrams).start()
    {more}
    print("ready", flush=True)
"""
_SNIFF = """threading.Thread(target=sniff).start()"""
_SNIFFER = """
    def sniff():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        while True:
            data, about = s.recvfrom(2048)
            if about[2] != socket.PACKET_OUTGOING and b"ESCAPED" in data: print("frame", data[:14].hex(), flush=True)
"""
OPEN = ("http_to_an_address", "http_for_another_host", "a_second_request", "tls_for_another_host", "tls_without_a_name",
        "tls_in_pieces", "tls_with_a_hidden_name", "dns_of_others_by_udp", "dns_over_tls", "icmp_echo",
        "to_the_neighbour_by_tcp", "to_the_neighbour_by_udp", "ports_that_others_publish")  # fmt: skip
HOSTS = ("api.example.test", "rebind.test", "private.test", "metadata.test", "gateway.test", "host.test")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with worlds(tmp_path_factory.mktemp("escapes"), "x") as found:
        yield found


def expected(told: dict[str, Any]) -> bool:
    """What an allowed host gets by the attempts that begin with something that may be."""
    if told["kind"] == "packet6":
        return bool(told["protocol"] == 0)  # this host's own, of multicast
    if told["kind"] == "dns":
        return told["name"] in HOSTS and told["type"] in (1, 28)
    if told["kind"] == "http":
        return told["host"] in (HOSTS[0], f"{HOSTS[0]}:443") and "ESCAPED" not in json.dumps(told)
    return told["kind"] == "tcp" and told["port"] in (80, 443)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_way_out_is_shut(world: Outside, tmp_path: Path) -> None:
    local = textwrap.dedent(_LOCAL)
    heard = tmp_path / "host"
    with (
        open(heard, "wb") as out,
        subprocess.Popen(
            ["ip", "netns", "exec", world.name, sys.executable, "-c", local.format(ports=(80, 9000), more="")],
            stdout=out,
        ) as host,
    ):
        try:
            _try_all(world, textwrap.dedent(_SNIFFER) + local.format(ports=(9000,), more=_SNIFF))
        finally:
            host.kill()
    assert heard.read_text() == "ready\n"  # nobody reached this host


RIGHTS = ("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")
ALLOWED = tuple(word for name in HOSTS for word in ("--allow-host", name))


def _try_all(world: Outside, neighbour: str) -> None:
    daemon = world.daemon
    where = _neighbour(world, neighbour)
    _restricted(world, "a")
    _shut(world, "a", where)

    # The same attempts are not blind: without a policy they get something, or are heard outside.
    daemon.ctl("run", "-d", "--name", "f", *RIGHTS, "tools", "sleep", "1000")
    daemon.ctl("cp", str(attempts_in), "f:/attempts.py")
    free = _made(world, "f", *where, *OPEN)
    assert [name for name, (got, _) in free.items() if not got] == []
    assert len([told for told in world.arrivals() if not expected(told)]) >= len(OPEN) // 2
    assert "udp" in daemon.out("logs", "n")
    daemon.remove_all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_way_out_is_shut_wherever_a_pod_comes_from(world: Outside) -> None:
    """A fork, one that was restored, one that was suspended, and one of the pool."""
    daemon = world.daemon
    where = _neighbour(world, textwrap.dedent(_SNIFFER) + textwrap.dedent(_LOCAL).format(ports=(9000,), more=_SNIFF))
    _restricted(world, "a")
    daemon.ctl("snapshot", "create", "a", "--name", "saved")
    daemon.ctl("pod", "fork", "a", "--name", "fork")
    _shut(world, "fork", where)
    daemon.ctl("rm", "-f", "fork")
    daemon.ctl("pod", "suspend", "a")
    daemon.ctl("pod", "resume", "a")
    _shut(world, "a", where)
    daemon.ctl("rm", "-f", "a")
    daemon.ctl("pod", "restore", "saved", "--name", "restored")
    _shut(world, "restored", where)
    daemon.ctl("rm", "-f", "restored")
    daemon.ctl("factory", "warm", "-n", "1")
    before = _from_pool(world)
    _restricted(world, "p")
    assert _from_pool(world) == before + 1
    _shut(world, "p", where)


def _from_pool(world: Outside) -> int:
    return int(json.loads(world.daemon.out("factory", "status", "--format", "json"))["started"]["pool"])


def _neighbour(world: Outside, program: str) -> tuple[str, ...]:
    """A pod beside those that try, without a policy: what they are told of it."""
    world.daemon.ctl("run", "-d", "--name", "n", *RIGHTS, "-p", "8091:9000", "tools", "python3", "-uc",
                     "import socket, threading\n" + program)  # fmt: skip
    wait_for(lambda: "ready" in world.daemon.out("logs", "n"), "the neighbour")
    mac = re.findall("link/ether ([0-9a-f:]+)", world.sh("n", "ip link show eth0"))[0]
    (four, *_) = world.addresses("bridge", "n")
    return "/attempts.py", "192.168.123.1", four, mac


def _restricted(world: Outside, name: str) -> None:
    world.daemon.ctl("run", "-d", "--name", name, *RIGHTS, *ALLOWED, "tools", "sleep", "1000")
    world.daemon.ctl("cp", str(attempts_in), f"{name}:/attempts.py")


def _shut(world: Outside, pod: str, where: tuple[str, ...]) -> None:
    """It gets nothing, and nobody hears anything of it."""
    world.arrivals()
    found = _made(world, pod, *where)
    assert len(found) >= 48
    assert {name: got for name, (got, _) in found.items() if got} == {}
    assert [name for name, (_, why) in found.items() if "PermissionError" in why] == []
    assert [told for told in world.arrivals() if not expected(told)] == []
    assert world.daemon.out("logs", "n").split("\n")[-1] == "ready"  # the neighbour heard nothing


def _made(world: Outside, pod: str, *words: str) -> dict[str, tuple[str, str]]:
    """By name: what an attempt got, and why nothing."""
    said = world.daemon.ctl("exec", pod, "python3", *words)
    return {told["name"]: (told["got"], told["why"]) for told in map(json.loads, said.stdout.splitlines())}
