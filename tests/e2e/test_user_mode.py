# SPDX-License-Identifier: Apache-2.0
"""The user-mode network, by passt and by slirp: what of the host a pod does not reach, and hosts without routes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import launched, wait_for
from .test_networks import SERVE, World, namespaces

# A guest may send what it likes: here a packet for 127.0.0.1 by its NIC.
_BY_THE_NIC = """
    ip addr del 127.0.0.1/8 dev lo
    echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
    ip route add 127.0.0.0/8 via 10.0.2.2
    ip route add 169.254.0.0/16 via 10.0.2.2
"""
_PLACES = ("10.0.2.2", "127.0.0.1", "127.0.0.53", "169.254.169.254")


def reached(world: World, network: str) -> list[str]:
    """The places of which a server of the host answers."""
    ask = " ".join(
        f"(echo x | timeout 20 nc -w 10 {place} 9000 | grep -q answer && echo {place}) &" for place in _PLACES
    )
    done = world.daemon.ctl(
        "run", "--rm", "--privileged", "--network", network, "busybox", "sh", "-c", f"{_BY_THE_NIC} {ask} wait; true"
    )
    return done.stdout.split()


@pytest.fixture(scope="module", params=["passt", "slirp"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(namespaces(request.param[0]))
        root = tmp_path_factory.mktemp("user") / "root"
        options = ("--network", "user", "--user-network", request.param)
        daemon = stack.enter_context(launched(root, *options, prefix=("ip", "netns", "exec", host)))
        daemon.ctl("pull", "-q", "builtin:busybox")
        subprocess.run(["ip", "-n", host, "addr", "add", "169.254.169.254/32", "dev", "lo"], check=True)
        # It reads first: closing with something unread resets the connection, and the answer may be lost.
        code = (
            "import socket\ns = socket.create_server(('', 9000))\nwhile True:\n"
            " c = s.accept()[0]; c.settimeout(60); c.recv(9); c.send(b'answer\\n'); c.close()"
        )
        server = stack.enter_context(subprocess.Popen(["ip", "netns", "exec", host, sys.executable, "-c", code]))
        stack.callback(server.kill)
        found = World(host, daemon)
        wait_for(lambda: ":9000" in found.host("ss", "-Hltn"), "the host's server")
        yield found
        wait_for(lambda: "hyper_user" not in found.rules(), "the end of the last pod's rules")


def test_the_hosts_loopback_is_out_of_reach(world: World) -> None:
    assert reached(world, "user") == []


def test_it_is_in_reach_on_request(world: World) -> None:
    found = reached(world, "user:host-loopback")
    assert "10.0.2.2" in found and len(found) > 1  # and so the test above is not blind


def test_what_a_pod_publishes_is_reached_by_the_loopback(world: World) -> None:
    world.daemon.ctl("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "-p", "8081:80", "busybox", *SERVE)
    name = world.sh("web", "hostname")
    for url in ("http://127.0.0.1:8080/", "http://127.0.0.1:8081/", "http://203.0.113.1:8081/"):
        wait_for(lambda url=url: world.fetch(url) == name, url)  # type: ignore[misc]
    taken = world.daemon.ctl("run", "--rm", "-p", "8081:80", "busybox", "true", check=False)
    assert (
        taken.returncode == 125
        and "0.0.0.0:8081/tcp: Address already in use by pod web: choose another host port" in taken.stderr
    )
    foreign = world.daemon.ctl("run", "--rm", "-p", "9000:80", "busybox", "true", check=False)
    assert foreign.returncode == 125 and "0.0.0.0:9000" in foreign.stderr and "ddress already in use" in foreign.stderr
    world.daemon.ctl("rm", "-f", "web")


@pytest.mark.parametrize("interface", [False, True])
def test_a_host_without_a_default_route(tmp_path: Path, interface: bool) -> None:
    """With no interface at all, or with one that leads nowhere."""
    host = f"hy-lone-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", host], check=True)
    try:
        subprocess.run(["ip", "-n", host, "link", "set", "lo", "up"], check=True)
        if interface:
            for words in ("link add d0 type bridge", "addr add 198.51.100.1/24 dev d0", "link set d0 up"):
                subprocess.run(["ip", "-n", host, *words.split()], check=True)
        with launched(tmp_path / "root", "--network", "user", prefix=("ip", "netns", "exec", host)) as daemon:
            world = World(host, daemon)
            daemon.ctl("pull", "-q", "builtin:busybox")
            daemon.ctl("run", "-d", "--name", "web", "-p", "8080:80", "busybox", *SERVE)
            name = world.sh("web", "hostname")
            wait_for(lambda: world.fetch("http://127.0.0.1:8080/") == name, "the published port")
            daemon.remove_all()
    finally:
        subprocess.run(["ip", "netns", "del", host], check=True)


def test_links_are_those_of_the_daemons_namespace(tmp_path: Path) -> None:
    """A daemon that shares its mounts, and so /sys, with another network namespace has its own bridges and taps."""
    with (
        namespaces("-sys") as host,
        launched(tmp_path / "root", "--network", "bridge", prefix=("nsenter", f"--net=/run/netns/{host}")) as daemon,
    ):
        daemon.ctl("pull", "-q", "builtin:busybox")
        world = World(host, daemon)
        daemon.ctl("network", "create", "n")
        daemon.ctl("run", "-d", "--name", "one", "--network", "n", "busybox", *SERVE)
        daemon.ctl("run", "-d", "--name", "two", "--network", "n", "--isolation", "fresh", "busybox", *SERVE)
        assert " 0% packet loss" in world.sh("one", "ping -c 1 -W 5 two")
        daemon.remove_all()
        daemon.ctl("network", "rm", "n")
        assert (
            "hy-"
            not in subprocess.run(["ip", "-n", host, "-br", "link"], capture_output=True, text=True, check=True).stdout
        )
