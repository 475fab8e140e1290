# SPDX-License-Identifier: Apache-2.0
"""Deployments of real machines: connections in turn, and none that fails while replicas are replaced."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .test_networks import SERVE, World, shared_world, world

__all__ = ["shared_world", "world"]
URL = "http://127.0.0.1:8091/"
ASK = "until [ -e {stop} ]; do curl -s -m 5 {url} || echo FAILED; done"


def replicas(world: World) -> list[str]:
    """Names of the containers of `web` that are ready."""
    (found,) = json.loads(world.daemon.out("deployment", "inspect", "web"))
    return [m["name"] for m in found["members"] if m["state"] == "ready"]


def test_one_replica_behind_an_address(world: World) -> None:
    ctl, out = world.daemon.ctl, world.daemon.out
    ctl("network", "create", "one-net")
    ctl("deployment", "create", "--name", "web", "--network", "one-net", "-p", "8091:80", "busybox", *SERVE)
    (name,) = replicas(world)
    host = out("exec", name, "hostname")
    assert world.fetch(URL).strip() == host
    (info,) = json.loads(out("deployment", "inspect", "web"))
    assert world.fetch(f"http://{info['address']}/").strip() == host
    assert "8091:80/tcp" in out("deployment", "ls") and "complete" in out("deployment", "ls")
    assert ctl("network", "rm", "one-net", check=False).returncode == 1
    done = ctl("deployment", "update", "web", "--wait-limit", "60s", "busybox", "sh", "-c", "exit 7", check=False)
    assert done.returncode == 1 and "ended with 7" in done.stderr and replicas(world) == [name]
    ctl("deployment", "rm", "web")
    assert world.fetch(URL) == "" and out("ps", "-aq") == ""
    assert "spread" not in world.rules() and info["address"] not in world.host("ip", "-4", "addr")
    ctl("network", "rm", "one-net")


@pytest.mark.slow
def test_no_connection_fails_while_replicas_are_replaced(world: World, tmp_path: Path) -> None:
    ctl, out = world.daemon.ctl, world.daemon.out
    ctl("network", "create", "many-net")
    ctl("network", "create", "elsewhere")
    ctl("deployment", "create", "--name", "web", "--replicas", "2", "--network", "many-net", "-p", "8091:80",
        "--update-monitor", "1s", "busybox", *SERVE)  # fmt: skip
    first = replicas(world)
    assert {world.fetch(URL).strip() for _ in range(4)} == {out("exec", name, "hostname") for name in first}
    ctl("run", "-d", "--name", "friend", "--network", "many-net", "busybox", "sleep", "1000")
    ctl("run", "-d", "--name", "stranger", "--network", "elsewhere", "busybox", "sleep", "1000")
    (info,) = json.loads(out("deployment", "inspect", "web"))
    get = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 3 nc {info['address']} 80 | tail -n 1"
    assert len({world.sh("friend", get) for _ in range(2)}) == 2
    assert info["address"] in world.sh("friend", "nslookup web | tail -n 3")
    assert world.sh("stranger", get) == ""
    stop, asked = tmp_path / "stop", tmp_path / "asked"
    slow = "mkdir /w; sleep 1; echo second > /w/index.html; httpd -f -p 80 -h /w"  # it answers later than it runs
    with asked.open("w") as to:
        asking = subprocess.Popen(
            ["ip", "netns", "exec", world.name, "sh", "-c", ASK.format(stop=stop, url=URL)], stdout=to
        )
        try:
            ctl("deployment", "update", "web", "busybox", "sh", "-c", slow)
            assert not set(replicas(world)) & set(first)
            assert world.fetch(URL).strip() == "second"
        finally:
            stop.touch()
            asking.wait(timeout=30)
    answers = asked.read_text().split()
    assert "FAILED" not in answers and answers[-1] == "second" and len(answers) > 20
    ctl("kill", replicas(world)[0])
    ctl("deployment", "scale", "web", "3")
    assert len(replicas(world)) == 3
    ctl("deployment", "rm", "web")
    ctl("rm", "-f", "friend", "stranger")
    ctl("network", "rm", "many-net", "elsewhere")
