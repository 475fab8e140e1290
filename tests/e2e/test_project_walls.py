# SPDX-License-Identifier: Apache-2.0
"""Pods of two projects, in networks of the same name: real machines, and what one can do to reach the other."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hypercontainer.client.transport import Connection

from .conftest import DEADLINE, launched, wait_for
from .test_networks import SERVE, World, namespaces

_ANY, _OWN = 8081, 8082  # ports of blue's that are published: on all addresses, and on blue's own gateway
MARK = "a-word-of-reds"
# What a pod asks for, all at once; what answers is a line of its own.
_ASK = """
say() {{ what=$1; shift; "$@" >/dev/null 2>&1 </dev/null && echo "$what"; }}
for a in {addresses}; do
  say "ping $a" ping -c 2 -W 3 $a &
  say "tcp $a 80" nc -w 4 $a 80 &
done
for a in {gateways}; do
  say "tcp $a {own}" nc -w 4 $a {own} &
  say "tcp $a {any}" nc -w 4 $a {any} &
  say "dns $a" timeout 4 nslookup web $a &
done
for a in {arp}; do say "arp $a" arping -f -c 2 -w 3 -I eth0 $a & done
wait
"""
# All frames that a device of the host sees until the end of its input; how many, and those with one of these in them.
_WATCH = """
    import select, socket, sys
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(({device!r}, 0))
    marks, seen, found = [bytes.fromhex(m) for m in {marks!r}], 0, []
    print("ready", flush=True)
    while True:
        for ready in select.select([s, sys.stdin], [], [])[0]:
            if ready is sys.stdin:
                sys.exit(print(seen, *found))
            frame = s.recv(65536); seen += 1
            found += [frame.hex() for m in marks if m in frame]
"""


@dataclass
class Place:
    """A project's pod, and the network that it is in."""

    project: str
    ip: str
    ip6: str
    mac: str
    gateway: str
    gateway6: str
    bridge: str
    tap: str


@dataclass
class Projects(World):
    """Two of them, whose pods, networks and volumes have the same names."""

    red: Place
    blue: Place

    def inside(self, place: Place, script: str) -> str:
        return self.daemon.ctl("--project", place.project, "exec", "web", "sh", "-c", script, check=False).stdout

    def asks(self, who: Place, whom: Place) -> set[str]:
        script = _ASK.format(
            addresses=" ".join((whom.ip, whom.ip6, whom.gateway, whom.gateway6)), own=_OWN, any=_ANY,
            gateways=f"{whom.gateway} {whom.gateway6}", arp=f"{whom.ip} {whom.gateway}",
        )  # fmt: skip
        return set(self.inside(who, script).splitlines())

    @contextlib.contextmanager
    def watching(self, device: str, *marks: str) -> Iterator[list[str]]:
        """Frames of a device of the host while the block runs; afterwards their number, and those with a mark."""
        script = textwrap.dedent(_WATCH.format(device=device, marks=marks))
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", script]
        found: list[str] = []
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
            try:
                assert watch.stdout and watch.stdout.readline() == "ready\n"
                yield found
                found += watch.communicate("", timeout=DEADLINE)[0].split()
            finally:
                watch.kill()


def _place(world: World, project: str) -> Place:
    told = json.loads(world.daemon.out("--project", project, "network", "inspect", "app"))[0]
    four, six = told["pods"]["web"]
    container = json.loads(world.daemon.out("--project", project, "pod", "inspect", "web"))[0]
    (attachment,) = container["pod"]["attachments"]
    network = told["network"]
    return Place(project, four, six, attachment["mac"], network["gateway"], network["gateway6"], network["bridge"],
                 attachment["tap"])  # fmt: skip


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projects]:
    root = tmp_path_factory.mktemp("projects") / "root"
    with (
        namespaces("-prj") as host,
        launched(root, "--network", "bridge", prefix=("ip", "netns", "exec", host)) as daemon,
    ):
        world = World(host, daemon)
        for name in ("red", "blue"):
            daemon.ctl("organisation", "create", name)
            daemon.ctl("project", "create", "web", "--organisation", name)
            web = ("--project", f"{name}/web")
            daemon.ctl(*web, "pull", "-q", "builtin:busybox")
            daemon.ctl(*web, "network", "create", "--ipv6", "app")
            ports = ("-p", f"{_ANY}:80") if name == "blue" else ()
            words = ("--name", "web", "--hostname", name, "--network", "app", "--privileged", *ports)
            daemon.ctl(*web, "run", "-d", *words, "busybox", *SERVE)
        red, blue = _place(world, "red/web"), _place(world, "blue/web")
        daemon.ctl("--project", blue.project, "ports", "add", "web", "-p", f"{blue.gateway}:{_OWN}:80")
        yield Projects(host, daemon, red, blue)
        for name in ("red", "blue"):
            daemon.ctl("--project", f"{name}/web", "rm", "-f", "web")
            daemon.ctl("--project", f"{name}/web", "network", "rm", "app")


def test_one_reaches_nothing_of_the_others(projects: Projects) -> None:
    red, blue = projects.red, projects.blue
    assert len({red.ip, blue.ip, red.gateway, blue.gateway, red.bridge, blue.bridge}) == 6
    # Who asks is not blind: all of it answers blue, and what is published on all addresses answers everybody.
    all_of_it = {f"ping {blue.ip}", f"tcp {blue.ip} 80", f"ping {blue.ip6}", f"tcp {blue.ip6} 80"}
    all_of_it |= {f"ping {blue.gateway}", f"dns {blue.gateway}", f"arp {blue.gateway}"}
    all_of_it |= {f"tcp {blue.gateway} {port}" for port in (_ANY, _OWN)}
    answered: set[str] = set()

    def all_has() -> bool:
        answered.update(projects.asks(blue, blue))  # not all of it in one second of a busy host
        return all_of_it <= answered

    wait_for(all_has, "blue's own answers", DEADLINE)
    assert projects.fetch(f"http://{blue.gateway}:{_OWN}/") == "blue"
    url = f"http://{red.gateway}:{_ANY}/"
    wait_for(lambda: projects.inside(red, f"timeout 20 wget -q -O - {url}").strip() == "blue", "the published port")
    assert projects.asks(red, blue) == set()


def test_names_are_a_projects_own(projects: Projects) -> None:
    red, blue = projects.red, projects.blue
    for mine, other, name in ((red, blue, "blue"), (blue, red, "red")):
        told = ""

        def both(mine: Place = mine) -> bool:
            nonlocal told
            told = projects.inside(mine, "nslookup -type=a web; nslookup -type=aaaa web; cat /etc/hosts")
            return mine.ip in told and mine.ip6 in told

        wait_for(both, "the project's own names")
        assert other.ip not in told and other.ip6 not in told
        asked = "".join(f"timeout 4 nslookup {what} {mine.gateway} & " for what in (name, other.ip, other.ip6))
        answers = projects.inside(mine, f"({asked} wait) 2>/dev/null")
        assert "= web" not in answers and f"Address: {other.ip}" not in answers, answers


def test_subnets_do_not_overlap(projects: Projects) -> None:
    ctl, subnet = projects.daemon.ctl, projects.red.gateway.removesuffix(".1") + ".0/25"
    create = ("--project", "blue/web", "network", "create", "--subnet", subnet, "mine")
    assert "overlaps" in ctl(*create, check=False).stderr  # as the administrator is told
    token = projects.daemon.out("--project", "blue/web", "token", "create", "t", "--scope", "operate").split()[-1]
    for asked in (subnet, "10.99.0.0/24"):  # a project may not choose, so it learns nothing by trying
        body = json.dumps({"name": "mine", "subnets": [asked]}).encode()
        headers = {"Authorization": f"Bearer {token}"}
        answer = Connection(str(projects.daemon.socket)).request("POST", "/v1/networks", headers, body)
        assert answer.status == 403 and b"overlaps" not in answer.read()


_FORGE = """
ip addr add {theirs}/32 dev eth0; ip route replace {theirs_net} via {gateway} dev eth0
for a in {them} 224.0.0.1 255.255.255.255 {broadcast}; do
  ping -c 2 -w 2 -I {theirs} $a & ping -c 2 -w 2 -b $a &
  echo {mark} | nc -u -w 1 $a 9 & echo {mark} | nc -u -w 1 -s {theirs} $a 9 &
done
for a in ff02::1%eth0 ff05::1 {six}; do ping6 -c 2 -w 2 $a & done
arping -c 2 -w 2 -I eth0 -s {theirs} {them} & arping -U -c 2 -w 2 -I eth0 {theirs} & arping -c 2 -w 2 -I eth0 {them} &
wait
ip addr del {theirs}/32 dev eth0
ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up
ping -c 2 -w 2 {them}; arping -c 2 -w 2 -I eth0 {them}
ip link set eth0 down; ip link set eth0 address {own_mac}; ip link set eth0 up
ip addr add {own_six}/64 dev eth0; ip route replace default via {gateway}; ip -6 route replace default via {gateway_six}
"""


@pytest.mark.slow
def test_forged_and_multicast_frames_do_not_come_there(projects: Projects) -> None:
    red, blue = projects.red, projects.blue
    marks = [red.mac.replace(":", ""), MARK.encode().hex()]
    script = _FORGE.format(
        theirs=f"{blue.gateway.removesuffix('.1')}.77", theirs_net=f"{blue.gateway.removesuffix('.1')}.0/24",
        gateway=red.gateway, them=blue.ip, six=blue.ip6, mark=MARK, mac=blue.mac,
        broadcast=f"{blue.gateway.removesuffix('.1')}.255", own_mac=red.mac, own_six=red.ip6, gateway_six=red.gateway6,
    )  # fmt: skip
    with projects.watching(red.tap, *marks) as sent, projects.watching(blue.tap, *marks) as came:
        projects.inside(red, script)
        projects.fetch(f"http://{blue.ip}/")
    assert len(sent) > 10, sent  # red has said it
    assert int(came[0]) >= 2 and came[1:] == [], came  # blue has heard the host, and nothing of red
    assert projects.fetch(f"http://{blue.ip}/") == "blue"
