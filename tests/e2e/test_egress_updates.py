# SPDX-License-Identifier: Apache-2.0
"""Another egress policy for a pod that runs: what stays allowed goes on, the rest ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import e2b
import pytest

from hypercontainer.sdk import Sandbox

from .conftest import wait_for
from .egress.world import CURL, OUTSIDE, RESET, Outside, worlds
from .test_e2b import serving

# Connections that send a byte again and again, and get it back; each says how often, and with what it ended.
TALK = """
import socket, threading, time, sys
def talk(name, where):
    s = socket.create_connection((where, 80)); s.settimeout(120)
    s.sendall(f"GET / HTTP/1.1\\r\\nHost: {name}\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n".encode())
    got = b""
    while b"\\r\\n\\r\\n" not in got: got += s.recv(1)
    n = 0
    try:
        while True:
            s.sendall(b"x")
            if not s.recv(1): raise OSError("closed")
            n += 1; print(name, n, flush=True); time.sleep(0.2)
    except OSError as error: print(name, "ended", error, flush=True)
for word in sys.argv[1:]: threading.Thread(target=talk, args=word.split("=")).start()
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with worlds(tmp_path_factory.mktemp("updates"), "u") as found:
        yield found


def counted(world: Outside, pod: str, name: str) -> int:
    """How often that connection has had its byte back."""
    numbers = [line.split()[1] for line in world.daemon.out("logs", pod).splitlines() if line.startswith(f"{name} ")]
    return max((int(n) for n in numbers if n.isdecimal()), default=0)


def ended(world: Outside, pod: str, name: str) -> bool:
    return f"{name} ended" in world.daemon.out("logs", pod)


def goes_on(world: Outside, pod: str, name: str) -> None:
    before = counted(world, pod, name)
    wait_for(lambda: counted(world, pod, name) > before + 1, f"{name} to go on")
    assert not ended(world, pod, name)


def test_hosts_of_a_pod_that_runs(world: Outside) -> None:
    api, other = "api.example.test", "other.example.test"
    talk = [f"{name}={name}" for name in (api, other)]
    world.daemon.ctl("run", "-d", "--name", "a", "--allow-host", api, "--allow-host", other, "tools",
                     "python3", "-c", TALK, *talk)  # fmt: skip
    for name in (api, other):
        goes_on(world, "a", name)
    assert world.daemon.out("update", "--allow-host", api, "--allow-host", "deep.sub.example.test", "a") == "a"
    wait_for(lambda: ended(world, "a", other), "the connection to the host that is none any more")
    goes_on(world, "a", api)
    said = world.sh("a", f"{CURL} --connect-to ::{OUTSIDE} http://{other}/")
    assert said == f"hyperd: {other} is out of this pod's reach: it is none of the hosts that the pod may reach"
    assert json.loads(world.sh("a", f"{CURL} http://deep.sub.example.test/"))["host"] == "deep.sub.example.test"
    told = world.daemon.out("events", "--since", "1h", "--until", "0s", "--format", "json").splitlines()
    reasons = [json.loads(line)["attributes"].get("reason", "") for line in told]
    assert "the pod may not reach it any more" in reasons


def test_a_pod_that_gets_a_policy_and_loses_it(world: Outside) -> None:
    world.daemon.ctl("run", "-d", "--name", "b", "tools", "python3", "-c", TALK, f"raw={OUTSIDE}")
    goes_on(world, "b", "raw")
    world.daemon.ctl("update", "--egress", "none", "b")
    wait_for(lambda: ended(world, "b", "raw"), "the connection by an address")
    world.arrivals()
    said = world.sh("b", f"curl -sS -m 30 http://{OUTSIDE}/ 2>&1")
    assert RESET.match(said), said
    assert world.arrivals() == []
    Sandbox.connect("b", host=str(world.daemon.socket)).set_egress(None)
    assert json.loads(world.sh("b", f"{CURL} http://{OUTSIDE}/"))["host"] == OUTSIDE


def test_by_e2bs_client(world: Outside) -> None:
    api, other = "api.example.test", "other.example.test"
    with serving(world.daemon) as client:
        made = e2b.Sandbox.create("tools", **client)
        name = made.sandbox_id
        assert json.loads(world.sh(name, f"{CURL} http://{OUTSIDE}/"))["host"] == OUTSIDE
        made.update_network({"allow_out": [api], "deny_out": [e2b.ALL_TRAFFIC]})
        assert json.loads(world.sh(name, f"{CURL} http://{api}/"))["host"] == api
        assert "out of this pod's reach" in world.sh(name, f"{CURL} --connect-to ::{OUTSIDE} http://{other}/")
        made.update_network({"allow_internet_access": False})
        said = world.sh(name, f"curl -sS -m 30 http://{OUTSIDE}/ 2>&1")
        assert RESET.match(said), said
        with pytest.raises(e2b.SandboxException, match="to addresses, when that is said as it is created"):
            made.update_network({"deny_out": ["10.0.0.0/8"]})
        made.update_network({})
        assert json.loads(world.sh(name, f"{CURL} http://{OUTSIDE}/"))["host"] == OUTSIDE
        assert made.kill()
