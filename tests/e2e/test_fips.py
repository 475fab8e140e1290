# SPDX-License-Identifier: Apache-2.0
"""Floating addresses: real packets between pods and a neighbour of their host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import DEADLINE, launched, wait_for
from .test_networks import SERVE, SLEEP, World, namespaces

_CONFIG = """
[fips]
pools = ["203.0.113.16/30", "2001:db8::10/126"]
interface = "up0"
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "hyperd.toml").write_text(_CONFIG)
    with namespaces("-fip") as name:
        options = ("--network", "bridge", "--config", str(tmp_path / "hyperd.toml"))
        with launched(tmp_path / "root", *options, prefix=("ip", "netns", "exec", name)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            yield World(name, daemon)
        assert "203.0.113.16" not in subprocess.run(
            ["ip", "-n", name, "addr"], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip


def outside(world: World, *command: str) -> str:
    """On the host's neighbour."""
    where = world.name.replace("hy-host", "hy-out")
    done = subprocess.run(
        ["ip", "netns", "exec", where, *command], capture_output=True, text=True, timeout=DEADLINE, check=False
    )  # fmt: skip
    return done.stdout.strip()


def fetched(world: World, address: str) -> str:
    return outside(world, "curl", "-s", "-g", "-m", "5", f"http://{address}/")


def test_a_pod_is_reached_by_its_address_and_speaks_by_it(host: World) -> None:
    ctl, out = host.daemon.ctl, host.daemon.out
    four, six = out("fip", "allocate", "--name", "shop"), out("fip", "allocate", "-6")
    assert (four, six) == ("203.0.113.16", "2001:db8::10")
    ctl("run", "-d", "--name", "web", "--hostname", "web", "busybox", *SERVE)
    ctl("run", "-d", "--name", "other", "busybox", *SLEEP)
    ctl("fip", "attach", "shop", "web")
    ctl("fip", "attach", six, "web")
    wait_for(lambda: fetched(host, four) == "web", "the pod's answer by its address")
    assert fetched(host, f"[{six}]") == "web" and host.fetch(f"http://{four}/") == "web"
    assert host.sh("other", f"timeout 30 wget -q -O - http://{four}/") == "web"
    assert seen_from(host, "web", "203.0.113.2") == four and seen_from(host, "other", "203.0.113.2") == "203.0.113.1"
    host.host("nft", "flush", "ruleset")
    wait_for(lambda: fetched(host, four) == "web", "the rules that were flushed")
    ctl("fip", "detach", "shop")
    assert fetched(host, four) == "" and four not in host.host("ip", "addr")
    assert (
        "no network of this host"
        in ctl("run", "-d", "--name", "x", "--network", "none", "busybox", *SLEEP).stderr
        + ctl("fip", "attach", "shop", "x", check=False).stderr
    )
    ctl("fip", "attach", "shop", "other")
    assert seen_from(host, "other", "203.0.113.2") == four
    host.daemon.remove_all()
    ctl("fip", "release", four, six)
    assert out("fip", "ls", "-q") == ""


def seen_from(world: World, pod: str, address: str) -> str:
    """As whom a neighbour sees a pod."""
    server = (
        "import socket; s = socket.create_server(('" + address + "', 9000)); s.settimeout(30); print('up', flush=True);"
        " print(s.accept()[1][0])"
    )
    where = world.name.replace("hy-host", "hy-out")
    with subprocess.Popen(
        ["ip", "netns", "exec", where, "python3", "-c", server], stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout and listening.stdout.readline() == "up\n"
        world.sh(pod, f"echo | nc -w 5 {address} 9000")
        return listening.communicate(timeout=DEADLINE)[0].strip()
