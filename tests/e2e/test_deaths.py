# SPDX-License-Identifier: Apache-2.0
"""hyperd gets SIGKILL just before a change that a verb makes to its host, on real virtual machines.

The next one finds or undoes all that the verb had begun, the verb can be given again, and a pod beside it was not
touched. The suite tries a step of some verbs, `make deaths` every step of all. `tests/engine/test_deaths.py` has the
same over fakes, for every verb and every step.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import BIN, DEADLINE, Daemon, launched
from .lives import IMAGE, Host, host
from .test_networks import namespaces

EACH = int(os.environ.get("HYPER_TEST_DEATHS", "1"))  # steps of each verb; 0: all
_SUITE = ("run -d", "exec", "rm -f", "pull", "network connect", "factory warm")  # the verbs when nobody asks for more
_LATE = 3.0  # seconds in which a step may yet come when the verb has answered
_RUN = ("run", "-d", "--name", "x", "busybox", "sleep", "1000")
_DATA = (("rm", "-f", "x"), ("volume", "rm", "data"))
_POD = (("network", "create", "net"), ("pod", "create", "-n", "x"), ("pod", "start", "x"))


@dataclass(frozen=True)
class Verb:
    """A command, and those that set its scene."""

    command: tuple[str, ...]
    steps: int  # about how many it takes
    before: tuple[tuple[str, ...], ...] = ()
    tidy: tuple[tuple[str, ...], ...] = (("rm", "-f", "x"),)  # what they leave; some of it may not be there
    status: int = 1  # of a client whose daemon ended


VERBS = {
    "create": Verb(("create", "--name", "x", "-v", "data:/data", "busybox", "true"), 17, tidy=_DATA),
    "start": Verb(("start", "x"), 57, (("create", "--name", "x", "busybox", "sleep", "1000"),)),
    "run -d": Verb(("run", "-d", "--name", "x", "-p", "8080:80", "-v", "data:/data", "busybox", "sleep", "1000"), 80,
                   tidy=_DATA, status=125),
    "run --rm": Verb(("run", "--rm", "--isolation", "fresh", "--name", "x", "busybox", "true"), 59, status=125),
    "exec": Verb(("exec", "x", "true"), 8, (_RUN,)),
    "stop": Verb(("stop", "-t", "0", "x"), 27, (_RUN,)),
    "rm -f": Verb(("rm", "-f", "x"), 28, (_RUN,)),
    "pull": Verb(("pull", "-q", IMAGE), 21, tidy=(("image-prune", "-af"),)),
    "network create": Verb(("network", "create", "net"), 3, tidy=(("network", "rm", "net"),)),
    "network connect": Verb(("network", "connect", "net", "x"), 18, _POD,
                            (("pod", "rm", "-f", "x"), ("network", "rm", "net"))),
    "ports add": Verb(("ports", "add", "-p", "8081:81", "x"), 9, (_RUN,)),
    "volume snapshot": Verb(("volume", "snapshot", "create", "-n", "x", "data"), 12,
                            (("run", "-d", "--name", "x", "-v", "data:/data", "busybox", "sleep", "1000"),),
                            (("volume", "snapshot", "rm", "x"), *_DATA)),
    "factory warm": Verb(("factory", "warm", "-n", "1", "-m", "SIZE"), 83, tidy=(("factory", "drain"),)),
}  # fmt: skip


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with namespaces("deaths") as name, host(tmp_path_factory.mktemp("deaths"), name) as made:
        yield made


def _client(lives: Host, verb: Verb) -> subprocess.Popen[bytes]:
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    words = lives.words(verb.command)
    return subprocess.Popen([BIN / "hyperctl", *words], env=lives.daemon.environment, stdin=null, stdout=null,
                            stderr=pipe)  # fmt: skip


def _tidy(lives: Host, verb: Verb) -> None:
    for words in verb.tidy:
        lives.quietly(*words)


def _set(lives: Host, verb: Verb) -> None:
    _tidy(lives, verb)
    lives.size += 1
    for words in verb.before:
        lives.out(*words)


def _again(lives: Host, verb: Verb) -> int:
    """The verb, as if nothing had been; how many steps it takes."""
    _set(lives, verb)
    lives.steps.at(-1)
    lives.out(*verb.command)
    return lives.finish_verb()


def _die(lives: Host, verb: Verb, at: int) -> str:
    """The step at which the daemon died; "" where it took fewer, and was killed when all was done."""
    _set(lives, verb)
    lives.before_death()
    lives.steps.at(at)
    with _client(lives, verb) as client:
        end = time.monotonic() + DEADLINE
        while not (site := lives.steps.died(0.05)) and client.poll() is None:
            assert time.monotonic() < end, f"{verb.command} took more than {DEADLINE:g} s"
        site = site or lives.steps.died(_LATE)
        lives.kill()
        assert client.wait(DEADLINE) in (0, verb.status)
        assert client.stderr
        said = client.stderr.read().decode()
    told = [line for line in said.splitlines() if line.startswith("hyperctl: ")]
    assert "Traceback" not in said and len(told) == (client.returncode != 0), said
    return site


@pytest.mark.turns(1 if "HYPER_TEST_DEATHS" in os.environ else 2)
@pytest.mark.parametrize("name", VERBS if "HYPER_TEST_DEATHS" in os.environ else _SUITE)
def test_a_death_at(lives: Host, count: Callable[[str], None], name: str) -> None:
    verb = VERBS[name]
    steps, lost = verb.steps, []
    chosen = itertools.count() if EACH == 0 else (steps * (n + 1) // (EACH + 1) for n in range(EACH))
    for at in chosen:
        if at >= steps:
            break
        site = _die(lives, verb, at)
        lives.meanwhile()
        lives.open()
        try:
            lives.check()
            steps = _again(lives, verb)
        except AssertionError as error:
            lost.append(f"step {at} of {steps}, {site}: {error}")
        count(f"deaths in {name} (of {steps} steps)" if site else f"deaths after {name}")
    _tidy(lives, verb)
    assert not lost, "\n".join(lost)


CLIENTS = {
    "attach": (("attach", "x"), 1),
    "logs -f": (("logs", "-f", "x"), 1),
    "exec": (("exec", "x", "sh", "-c", "echo up; sleep 1000"), 1),
    "wait": (("wait", "x"), 1),
    "events": (("events", "--since", "1h"), 1),
    "pull": (("pull", "ADDRESS/silent:1"), 1),
    "run": (("run", "--name", "y", "busybox", "sh", "-c", "echo up; sleep 1000"), 125),
}


def _asked(daemon: Daemon, silent: socket.socket, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """A client that hyperd has heard, and that waits for what does not come."""
    words = tuple(w.replace("ADDRESS", f"localhost:{silent.getsockname()[1]}") for w in words)
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen([BIN / "hyperctl", *words], env=daemon.environment, stdin=null, stdout=pipe, stderr=pipe)


def test_clients_of_a_daemon_that_dies(tmp_path: Path) -> None:
    """Each ends at once, with one sentence and its verb's status; what they had asked for can be asked of the next."""
    with tempfile.TemporaryDirectory(prefix="hye") as run, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            daemon.ctl("pull", "-q", "builtin:busybox")
            tick = "while :; do echo up; sleep 0.2; done"
            daemon.ctl("run", "-d", "--name", "x", "busybox", "sh", "-c", tick)
            clients = {name: _asked(daemon, silent, words) for name, (words, _) in CLIENTS.items()}
            for name in ("attach", "logs -f", "exec", "events", "run"):
                out = clients[name].stdout
                assert out and out.readline(), f"{name} says nothing"
            with silent.accept()[0]:  # the pull has begun
                daemon.stop(signal.SIGKILL)
            for name, client in clients.items():
                err = client.communicate(timeout=DEADLINE)[1].decode()
                told = [line for line in err.splitlines() if line.startswith("hyperctl: ")]
                assert (client.returncode, len(told)) == (CLIENTS[name][1], 1), f"{name}: {client.returncode} {err}"
                assert "Traceback" not in err and "hyperd" in told[0], f"{name}: {err}"
        with launched(tmp_path / "root", run=Path(run)) as daemon:
            assert daemon.out("exec", "x", "echo", "on") == "on"
            daemon.remove_all()
