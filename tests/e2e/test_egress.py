# SPDX-License-Identifier: Apache-2.0
"""Pods that may reach some hosts, by their names, and nothing else: real machines, real servers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import wait_for
from .egress.world import CURL, RESET, Outside, worlds

SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with worlds(tmp_path_factory.mktemp("egress"), "e") as found:
        yield found


@pytest.fixture
def world(shared_world: Outside) -> Iterator[Outside]:
    shared_world.arrivals()
    yield shared_world
    shared_world.daemon.remove_all()


def refusals(world: Outside, name: str) -> list[tuple[str, str]]:
    """Hosts and ports of the events of a pod."""
    lines = world.daemon.out("events", "--since", "1h", "--until", "0s", "--format", "json").splitlines()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines]
    mine = [t["attributes"] for t in told if t["action"] == "egress_refused" and t["attributes"]["name"] == name]
    return [(a["host"], a["port"]) for a in mine]


def test_a_pod_reaches_the_hosts_that_it_may(world: Outside) -> None:
    hosts = ("--allow-host", "API.example.test", "--allow-host", "*.sub.example.test:8443")
    world.daemon.ctl("run", "-d", "--name", "a", *hosts, "-p", "8090:8000", "tools", "python3", "-m", "http.server")
    for url, host in (
        ("http://api.example.test/x", "api.example.test"),
        ("https://api.example.test/x", "api.example.test"),
        ("https://deep.sub.example.test:8443/", "deep.sub.example.test:8443"),
    ):
        assert json.loads(world.sh("a", f"{CURL} -k {url}"))["host"] == host
    served = [told["host"] for told in world.arrivals() if told["kind"] == "http"]
    assert served == ["api.example.test", "api.example.test", "deep.sub.example.test:8443"]
    wait_for(lambda: "Directory listing" in world.fetch("http://127.0.0.1:8090/"), "the published port")

    # Names, addresses, ports and protocols of others.
    assert "Could not resolve" in world.sh("a", f"{CURL} -k https://evil.test/ 2>&1")
    said = world.sh("a", f"{CURL} --connect-to ::203.0.113.2 http://evil.test/ 2>&1")
    assert said == "hyperd: evil.test is out of this pod's reach: it is none of the hosts that the pod may reach"
    assert "access denied" in world.sh("a", f"{CURL} -k --connect-to ::203.0.113.2 https://evil.test/ 2>&1")
    said = world.sh("a", "curl -sS -m 30 http://203.0.113.2:22/ 2>&1")
    assert RESET.match(said), said
    assert world.arrivals() == []
    expected = {("evil.test", "53"), ("evil.test", "80"), ("evil.test", "443"), ("203.0.113.2", "22")}
    assert expected <= set(refusals(world, "a"))


def test_what_a_pod_reaches_and_tries_is_counted(world: Outside) -> None:
    world.daemon.ctl("run", "-d", "--name", "s", "--allow-host", "api.example.test", "tools", *SLEEP)
    assert "api.example.test" in world.sh("s", f"{CURL} http://api.example.test/")
    world.sh("s", f"{CURL} --connect-to ::203.0.113.2 http://evil.test/")
    for address, port in (("203.0.113.2", 4433), ("169.254.169.254", 80)):
        told = f's.sendto(b"x", ("{address}", {port}))'
        world.sh("s", f"python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); {told}'")

    def found() -> dict[str, int]:
        (stats,) = json.loads(world.daemon.out("stats", "--no-stream", "--format", "json", "s"))
        return dict(stats["egress"])

    wait_for(lambda: found()["refusedPackets"] >= 2 and found()["rxBytes"] > 0, "the counts")
    counted = found()
    assert (counted["connections"], counted["refused"]) >= (1, 1)
    assert counted["txBytes"] > 50
    wait_for(lambda: {("203.0.113.2", "4433"), ("169.254.169.254", "80")} <= set(refusals(world, "s")), "the events")


def workers(world: Outside) -> list[int]:
    """The proxies' processes of this daemon."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if b"hypercontainer.network.egress.worker" in (path / "cmdline").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return [pid for pid in found if world.daemon.process.pid in _ancestors(pid)]


def _ancestors(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        while pid > 1:
            yield pid
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_proxy_that_dies_is_followed_by_another(world: Outside) -> None:
    world.daemon.ctl("run", "-d", "--name", "b", "--allow-host", "api.example.test", "tools", *SLEEP)
    assert workers(world) == []
    assert "api.example.test" in world.sh("b", f"{CURL} http://api.example.test/")
    (first,) = workers(world)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: "api.example.test" in world.sh("b", f"{CURL} http://api.example.test/"), "another proxy")
    assert first not in workers(world)
    world.daemon.ctl("rm", "-f", "b")
    assert workers(world) == []


def test_a_fork_has_the_policy_of_its_pod(world: Outside) -> None:
    world.daemon.ctl("run", "-d", "--name", "c", "--allow-host", "api.example.test", "tools", *SLEEP)
    world.daemon.ctl("pod", "fork", "c", "--name", "d")
    assert "api.example.test" in world.sh("d", f"{CURL} http://api.example.test/")
    world.arrivals()
    assert "out of this pod's reach" in world.sh("d", f"{CURL} --connect-to ::203.0.113.2 http://evil.test/")
    assert "Could not resolve" in world.sh("d", f"{CURL} http://evil.test/ 2>&1")
    assert world.arrivals() == []


SECRET = "sk-live-0123456789abcdef-canary"


def in_memory(world: Outside, pod: str, *words: bytes) -> list[bool]:
    """Which of these are in the memory of a pod's machine, as its hypervisor has it."""
    pid = json.loads(world.daemon.out("pod", "inspect", pod))[0]["pod"]["vm"]["pid"]
    found = [False] * len(words)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            with contextlib.suppress(OSError, ValueError, OverflowError):
                for at in range(first, last, 1 << 24):
                    memory.seek(at)
                    data = memory.read(min(last - at, (1 << 24) + 64))
                    found = [was or word in data for was, word in zip(found, words, strict=True)]
    return found


def test_a_secret_goes_to_its_host_and_is_never_in_the_pod(world: Outside, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    secret = f"TOKEN={tmp_path / 'token'}@api.example.test"
    world.daemon.ctl("run", "-d", "--name", "s", "--inject-secret", secret, "--allow-host", "other.example.test",
                     "tools", *SLEEP)  # fmt: skip
    world.arrivals()
    send = f'{CURL} -H "Authorization: Bearer $TOKEN" -u "me:$TOKEN"'
    assert "api.example.test" in world.sh("s", f'{CURL} -H "Authorization: Bearer $TOKEN" https://api.example.test/a')
    assert "api.example.test" in world.sh("s", f'{CURL} -u "me:$TOKEN" https://api.example.test/b')
    (bearer, basic) = [told["headers"] for told in world.arrivals() if told["kind"] == "http"]
    assert bearer["authorization"] == f"Bearer {SECRET}"
    assert basic["authorization"] == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    # Many servers send that header back.
    said = world.sh("s", f'{CURL} -D - -o /dev/null -H "X-Request-Id: $TOKEN" https://api.example.test/d')
    assert [told["headers"]["x-request-id"] for told in world.arrivals() if told["kind"] == "http"] == [SECRET]
    assert SECRET not in said
    assert "hypercontainer-secret-" in said
    # Others get the placeholder; and the CA is asked for the host's only.
    assert "other.example.test" in world.sh("s", f"{send} -k https://other.example.test/c")
    assert "out of this pod's reach" in world.sh("s", f"{CURL} https://api.example.test/ -H 'Host: other.example.test'")
    told = world.arrivals()
    assert SECRET not in json.dumps(told)
    assert "hypercontainer-secret-" in json.dumps(told)
    placeholder = world.sh("s", "echo $TOKEN").encode()
    assert in_memory(world, "s", SECRET.encode(), placeholder) == [False, True]
    shown = world.daemon.out("inspect", "s") + world.daemon.out("pod", "inspect", "s")
    shown += world.daemon.out("events", "--since", "1h", "--until", "0s")
    assert SECRET not in shown
    assert base64.b64encode(SECRET.encode()).decode() not in shown
    small = 8 << 20  # disks are larger, and sparse
    kept = [p for p in world.daemon.root.rglob("*") if p.is_file() and p.stat().st_size < small]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_a_secret_by_a_podfile_and_by_docker(world: Outside, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    container = {"name": "p-web", "image": "tools", "command": list(SLEEP)}
    injected = {"secret": "token", "host": "api.example.test", "header": "Authorization", "env": "TOKEN"}
    podfile = {"id": "p", "containers": [container], "allowHosts": ["other.example.test"],
               "secrets": [{"name": "token", "file": "token"}], "injectSecrets": [injected]}  # fmt: skip
    (tmp_path / "pod.json").write_text(json.dumps(podfile))
    world.daemon.ctl("run", "-p", str(tmp_path / "pod.json"))
    label = "hypercontainer.inject-secret=TOKEN@api.example.test"
    world.daemon.docker("run", "-d", "--name", "d", "-e", f"TOKEN={SECRET}", "--label", label, "tools", *SLEEP)
    for name in ("p-web", "d"):
        world.arrivals()
        world.sh(name, f'{CURL} -H "Authorization: Bearer $TOKEN" https://api.example.test/')
        heard = [told["headers"]["authorization"] for told in world.arrivals() if told["kind"] == "http"]
        assert heard == [f"Bearer {SECRET}"]
        assert world.sh(name, "echo $TOKEN").startswith("hypercontainer-secret-")
        assert SECRET not in world.daemon.out("inspect", name)
    assert json.loads(world.sh("p-web", f"{CURL} http://other.example.test/"))["host"] == "other.example.test"
    world.daemon.ctl("pod", "rm", "-f", "p")
