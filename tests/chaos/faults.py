# SPDX-License-Identifier: Apache-2.0
"""What happens to hyperd, QEMU, the guest's channel and the disk; each gives whether there was something to hurt.

A verb that was cut off may have come about or not: what it was done to is removed, so that a seed is one sequence.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.e2e.conftest import BIN, wait_for

from .check import files
from .host import SLOW
from .model import KILLED, LOST, PROGRAM, Box

if TYPE_CHECKING:
    from .storm import Storm

Fault = Callable[["Storm"], bool]
FAULTS: dict[str, Fault] = {}
_START = 5.0  # seconds that hyperd has for its start, whatever stands still
_ANSWER = 1.0  # seconds for what asks no guest


def fault(name: str) -> Callable[[Fault], Fault]:
    def register(step: Fault) -> Fault:
        FAULTS[name] = step
        return step

    return register


def margin() -> float:
    """How much longer things take here than on a machine that has a core for each of them."""
    return max(2.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


@fault("hyperd killed")
def hyperd_killed(s: Storm) -> bool:
    """Nobody who runs notices."""
    s.host.end()
    took = s.host.start()
    assert took < _START * margin(), f"hyperd's start took {took:.1f} s"
    if box := s.any(s.model.of("running")):
        files(s.host, s.model, box)
    return True


@fault("hyperd left (SIGHUP)")
def hyperd_left(s: Storm) -> bool:
    s.host.end(signal.SIGHUP)
    s.host.start()
    return True


@fault("hyperd killed in a verb")
def hyperd_killed_in_a_verb(s: Storm) -> bool:
    name = s.name("cut")
    words = s.chance.choice(_CUT)
    for before in ("create", "start"):
        if words[0] in _AFTER[before]:
            known = ["--name", name, "busybox", "sh", "-c", PROGRAM, "sh", name] if before == "create" else [name]
            s.do(before, *known)
    seconds = s.chance.uniform(0.05, 2.0)
    s.says(f"hyperctl {' '.join(words)}, cut off after {seconds:.2f} s".format(name=name))
    command = [str(BIN / "hyperctl"), *(w.format(name=name) for w in words)]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=s.host.daemon.environment, stdin=null, stdout=null, stderr=null) as client:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(seconds)
            s.host.end()
        finally:
            client.kill()
    s.host.start()
    s.host.ctl("rm", "-f", name)
    s.host.ctl("volume", "rm", name)
    s.host.ctl("network", "rm", name)
    return True


_CUT = (
    ("run", "-d", "--name", "{name}", "-v", "{name}:/data", "-p", "80", "busybox", "sleep", "1000"),
    ("run", "--rm", "--name", "{name}", "busybox", "true"),
    ("create", "--name", "{name}", "busybox", "true"),
    ("start", "{name}"),
    ("rm", "{name}"),
    ("stop", "-t", "1", "{name}"),
    ("restart", "-t", "0", "{name}"),
    ("rm", "-f", "{name}"),
    ("exec", "{name}", "sleep", "100"),
    ("pause", "{name}"),
    ("cp", "/etc/services", "{name}:/"),
    ("network", "create", "{name}"),
    ("volume", "create", "{name}"),
)
_AFTER = {
    "create": ("start", "rm", "stop", "restart", "exec", "pause", "cp"),
    "start": ("stop", "restart", "exec", "pause"),
}


@fault("QEMU killed")
def qemu_killed(s: Storm) -> bool:
    box = s.any(_calm(s))
    if box:
        files(s.host, s.model, box)  # by now it is on its disk
        os.kill(s.machine(box), signal.SIGKILL)
        s.model.machine_ended(box)
    return bool(box)


@fault("QEMU killed while hyperd is away")
def qemu_killed_meanwhile(s: Storm) -> bool:
    """Nobody saw its end: the next hyperd says so; `always` starts it again, as after the host's reboot."""
    box = s.any([b for b in _calm(s) if b.policy != "on-failure"])
    if box:
        pid = s.machine(box)
        s.host.end()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}/exe"), "the machine's end", SLOW)
        s.host.start()
        s.model.machine_ended(box)
    return bool(box)


@fault("process killed in the guest")
def process_killed(s: Storm) -> bool:
    """From inside: by a neighbour in its pod."""
    pods = [s.model.members(p) for p in s.model.pods]
    pair = s.any([p for p in pods if all(b.state == "running" for b in p)])
    if pair:
        victim, beside = s.chance.sample(pair, 2)
        script = f"kill -9 $(grep -lz '^{victim.name}$' /proc/[0-9]*/cmdline | cut -d/ -f3)"
        s.do("exec", beside.name, "sh", "-c", script)
        s.model.ended(victim, KILLED)
    return bool(pair)


@fault("QEMU stopped for a moment")
def qemu_stopped(s: Storm) -> bool:
    box = s.any(_calm(s))
    if box:
        pid = s.machine(box)
        os.kill(pid, signal.SIGSTOP)
        try:
            _answers_meanwhile(s, box)
        finally:
            os.kill(pid, signal.SIGCONT)
        files(s.host, s.model, box)
    return bool(box)


@fault("QEMU stopped, then killed by name")
def qemu_stopped_and_killed(s: Storm) -> bool:
    box = s.any([b for b in _calm(s) if not b.pod])
    if box:
        os.kill(s.machine(box), signal.SIGSTOP)
        began = time.monotonic()
        s.do("kill", box.name)
        took = time.monotonic() - began
        assert took < 5 * margin(), f"kill took {took:.1f} s"
        s.model.ended(box, KILLED, LOST, wanted=True)
    return bool(box)


@fault("QEMU stopped while hyperd is killed")
def both(s: Storm) -> bool:
    box = s.any(_calm(s))
    if box:
        pid = s.machine(box)
        os.kill(pid, signal.SIGSTOP)
        try:
            s.host.end()
            took = s.host.start()
            assert took < _START * margin(), f"hyperd's start took {took:.1f} s"
            _answers_meanwhile(s, box)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: s.host.ctl("exec", box.name, "true").returncode == 0, "the machine's answer", SLOW)
    return bool(box)


@fault("guest's channel broken")
def channel_broken(s: Storm) -> bool:
    box = s.any(_calm(s))
    if box:
        s.host.break_channel(s.pod(box))
        wait_for(lambda: s.host.ctl("exec", box.name, "true").returncode == 0, "the connection", SLOW)
        files(s.host, s.model, box)
    return bool(box)


@fault("disk full")
def disk_full(s: Storm) -> bool:
    """What runs goes on and can be ended; nothing new begins; all is written when there is space."""
    for each in s.model.of("running"):
        s.do("exec", each.name, "sync")  # a guest that writes where there is no space stands still
    fill = s.host.fill()
    try:
        done = s.host.ctl("run", "--rm", "busybox", "true")  # what is given up for lack of space may make room for it
        assert done.returncode == 0 or (done.returncode == 125 and "no space left" in done.stderr), done
        box = s.any(s.model.of("running"))
        killed = s.any([b for b in s.model.of("running") if s.chance.random() < 0.3])
        if killed:
            s.do("kill", killed.name)
            s.model.ended(killed, KILLED, wanted=True)
        elif box:
            assert s.do("exec", box.name, "echo", "yes").stdout == "yes\n"
    finally:
        fill.unlink()
    wait_for(lambda: s.do("run", "--rm", "busybox", "echo", "fine").stdout == "fine\n", "space", SLOW)
    return True


def _calm(s: Storm) -> list[Box]:
    """Those that run, and whose policy does not wait long yet."""
    return [b for b in s.model.of("running") if b.again < 3]


def _answers_meanwhile(s: Storm, box: Box) -> None:
    for words in (("ps",), ("inspect", box.name), ("logs", box.name)):
        began = time.monotonic()
        s.do(*words)
        took = time.monotonic() - began
        assert took < _ANSWER * margin(), f"{words} took {took:.1f} s"
