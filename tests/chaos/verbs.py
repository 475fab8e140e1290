# SPDX-License-Identifier: Apache-2.0
"""What people do, with what must come of it. Each verb gives whether there was something to do it with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from .model import ASKED, ENDED, KILLED, PROGRAM, Box

if TYPE_CHECKING:
    from .storm import Storm

Step = Callable[["Storm"], bool]
VERBS: dict[str, tuple[int, Step]] = {}  # with how often, among the others
BOXES, _PODS = 5, 1  # at a time: a machine takes 50 MiB of the host
_AGAIN = 3  # starts by a policy, as each waits longer


def verb(weight: int) -> Callable[[Step], Step]:
    def register(step: Step) -> Step:
        VERBS[step.__name__.rstrip("_")] = (weight, step)
        return step

    return register


def _new(s: Storm) -> tuple[Box, list[str]]:
    """A container that is to be, and its options."""
    box = Box(s.name("box"), policy=s.chance.choice(("no", "no", "always", "on-failure")))
    words = ["--name", box.name, "--restart", box.policy, "-m", "64m"]
    free = [v for v in s.model.volumes if not s.model.with_volume(v)]
    if free and s.chance.random() < 0.6:
        box.volume = s.chance.choice(free)
        words += ["-v", f"{box.volume}:/data"]
    if s.model.networks and s.chance.random() < 0.5:
        box.network = s.chance.choice(s.model.networks)
        words += ["--network", box.network]
    if s.chance.random() < 0.4:
        box.port = 8000 + s.number()
        words += ["-p", f"{box.port}:80"]
    return box, [*words, "busybox", "sh", "-c", PROGRAM, "sh", box.name]


@verb(3)
def create(s: Storm) -> bool:
    if len(s.model.boxes) >= BOXES:
        return False
    box, words = _new(s)
    s.do("create", *words)
    s.model.boxes[box.name] = box
    return True


@verb(9)
def run(s: Storm) -> bool:
    if len(s.model.boxes) >= BOXES:
        return False
    box, words = _new(s)
    s.do("run", "-d", *words)
    s.model.boxes[box.name] = box
    s.model.started(box)
    return True


@verb(2)
def run_rm(s: Storm) -> bool:
    status = s.chance.choice((0, 7, 126))
    done = s.do("run", "--rm", "busybox", "sh", "-c", f"echo $((6*7)); exit {status}", status=status)
    assert done.stdout == "42\n", done
    return True


@verb(7)
def start(s: Storm) -> bool:
    box = s.any(s.model.of("created", "exited"))
    if box:
        s.do("start", box.name)
        s.model.started(box)
    return bool(box)


@verb(3)
def stop(s: Storm) -> bool:
    box = s.any(s.model.of("running", "paused"))
    if box:
        at_once = s.chance.random() < 0.4
        s.do("stop", "-t", "0" if at_once else "60", box.name)
        s.model.ended(box, KILLED if at_once else ASKED, wanted=True)
    return bool(box)


@verb(2)
def kill(s: Storm) -> bool:
    box = s.any(s.model.of("running"))
    if box:
        s.do("kill", box.name)
        s.model.ended(box, KILLED, wanted=True)
    return bool(box)


@verb(3)
def finish(s: Storm) -> bool:
    """The program ends of itself: policies start it again."""
    box = s.any([b for b in s.model.of("running") if b.again < _AGAIN])
    if box:
        s.do("kill", "-s", "USR1", box.name)
        s.model.ended(box, ENDED)
    return bool(box)


@verb(4)
def say(s: Storm) -> bool:
    box = s.any(s.model.of("running"))
    if box:
        s.do("kill", "-s", "USR2", box.name)
        box.output.append("said")
    return bool(box)


@verb(3)
def restart(s: Storm) -> bool:
    box = s.any(s.model.of("running", "created", "exited"))
    if box:
        s.do("restart", "-t", s.chance.choice(("0", "60")), box.name)
        s.model.started(box)
    return bool(box)


@verb(4)
def exec_(s: Storm) -> bool:
    box = s.any(s.model.of("running"))
    if box:
        done = s.do("exec", box.name, "sh", "-c", "cat /root/log; exit 5", status=5)
        assert done.stdout.split() == [box.name] * box.starts, done
    return bool(box)


@verb(2)
def pause(s: Storm) -> bool:
    box = s.any(s.model.of("running"))
    if box:
        s.do("pause", box.name)
        box.state = "paused"
    return bool(box)


@verb(3)
def unpause(s: Storm) -> bool:
    box = s.any(s.model.of("paused"))
    if box:
        s.do("unpause", box.name)
        box.state = "running"
    return bool(box)


@verb(2)
def update(s: Storm) -> bool:
    box = s.any(s.model.alone("running", "created", "exited"))
    if box:
        box.policy = s.chance.choice(("no", "always", "on-failure"))
        s.do("update", "--pids-limit", str(s.chance.randrange(20, 99)), "--restart", box.policy, box.name)
    return bool(box)


@verb(3)
def cp(s: Storm) -> bool:
    """In, and out again."""
    box = s.any(s.model.of("running", "exited", "created"))
    if box:
        word = s.name("word")
        source, back = s.host.place / "there", s.host.place / "back"
        source.write_text(word * 1000)
        s.do("cp", source, f"{box.name}:/root/copied")
        s.do("cp", f"{box.name}:/root/copied", back)
        assert back.read_text() == word * 1000
        back.unlink()
    return bool(box)


@verb(3)
def rm(s: Storm) -> bool:
    box = s.any(s.model.alone("created", "exited"))
    if box:
        s.do("rm", box.name)
        del s.model.boxes[box.name]
    return bool(box)


@verb(2)
def rm_force(s: Storm) -> bool:
    box = s.any(s.model.alone("running", "paused"))
    if box:
        s.do("rm", "-f", box.name)
        del s.model.boxes[box.name]
    return bool(box)


@verb(2)
def refused(s: Storm) -> bool:
    """What cannot be, with its sentence."""
    cases: list[tuple[tuple[str, ...], int, str]] = []
    for box in s.model.alone("running"):
        cases += [
            (("rm", box.name), 1, "is running"),
            (("create", "--name", box.name, "busybox"), 1, "is taken by container"),
        ]
        if box.network:
            cases.append((("network", "rm", box.network), 1, box.network))
        if box.volume:
            cases.append((("volume", "rm", box.volume), 1, box.volume))
        if box.port:
            cases.append((("run", "--rm", "-p", f"{box.port}:80", "busybox", "true"), 125, "Address already in use"))
    for box in s.model.of("exited", "created"):
        cases += [(("exec", box.name, "true"), 1, "is not running"), (("pause", box.name), 1, "is not running")]
    for box in s.model.of("paused"):
        cases += [(("start", box.name), 1, "is paused"), (("pause", box.name), 1, "is paused already")]
    if not cases:
        return False
    words, status, says = s.chance.choice(cases)
    assert says in s.do(*words, status=status).stderr
    return True


# -- pods, networks, ports, volumes -------------------------------------------------------------


@verb(2)
def pod_run(s: Storm) -> bool:
    if len(s.model.pods) >= _PODS:
        return False
    pod = s.name("pod")
    members = [Box(f"{pod}-{end}", pod=pod) for end in "ab"]
    containers = [{"name": b.name, "image": "busybox", "command": ["sh", "-c", PROGRAM, "sh", b.name]} for b in members]
    file = s.host.place / "pod.json"
    file.write_text(json.dumps({"id": pod, "containers": containers, "resource": {"vcpu": 1, "memory": 128}}))
    s.do("pod", "run", file)
    s.model.pods.append(pod)
    for box in members:
        s.model.boxes[box.name] = box
        s.model.started(box)
    return True


@verb(2)
def pod_stop(s: Storm) -> bool:
    pod = s.any([p for p in s.model.pods if any(b.up for b in s.model.members(p))])
    if pod:
        s.do("pod", "stop", "-t", "60", pod)
        for box in s.model.members(pod):
            if box.up:
                s.model.ended(box, ASKED, wanted=True)
    return bool(pod)


@verb(2)
def pod_start(s: Storm) -> bool:
    pod = s.any([p for p in s.model.pods if not any(b.up for b in s.model.members(p))])
    if pod:
        s.do("pod", "start", pod)
        for box in s.model.members(pod):
            s.model.started(box)
    return bool(pod)


@verb(1)
def pod_rm(s: Storm) -> bool:
    pod = s.any(s.model.pods)
    if pod:
        s.do("pod", "rm", "-f", pod)
        for box in s.model.members(pod):
            del s.model.boxes[box.name]
        s.model.pods.remove(pod)
    return bool(pod)


@verb(1)
def network_create(s: Storm) -> bool:
    if len(s.model.networks) >= 2:
        return False
    name = s.name("net")
    s.do("network", "create", name)
    s.model.networks.append(name)
    return True


@verb(1)
def network_rm(s: Storm) -> bool:
    name = s.any([n for n in s.model.networks if not s.model.in_network(n)])
    if name:
        s.do("network", "rm", name)
        s.model.networks.remove(name)
    return bool(name)


@verb(2)
def network_visit(s: Storm) -> bool:
    """A container that runs joins a further network, and leaves it."""
    pairs = [(b, n) for b in s.model.alone("running") for n in s.model.networks if b.network not in ("", n)]
    if not pairs:
        return False
    box, network = s.chance.choice(pairs)
    s.says(f"hyperctl network connect {network} {box.name}")
    done = s.host.ctl("network", "connect", network, box.name)
    if done.returncode:  # a machine of the factory has one network interface
        assert "has no spare network interface: stop it first" in done.stderr, done
        return True
    assert box.name in s.do("network", "inspect", network).stdout
    s.do("network", "disconnect", network, box.name)
    return True


@verb(2)
def port(s: Storm) -> bool:
    """A container that runs gets a further port, which answers, and loses it."""
    box = s.any([b for b in s.model.alone("running") if not b.port])
    if box:
        number = 8000 + s.number()
        s.do("ports", "add", "-p", f"{number}:80", box.name)
        s.serves(box, number)
        s.do("ports", "delete", "-p", f"{number}:80", box.name)
        assert s.host.fetch(number) == ""
    return bool(box)


@verb(2)
def volume_create(s: Storm) -> bool:
    if len(s.model.volumes) >= 3:
        return False
    name = s.name("vol")
    s.do("volume", "create", "-s", "64m", name)
    s.model.volumes[name] = []
    return True


@verb(1)
def volume_rm(s: Storm) -> bool:
    name = s.any([v for v in s.model.volumes if not s.model.with_volume(v)])
    if name:
        s.do("volume", "rm", name)
        del s.model.volumes[name]
    return bool(name)
