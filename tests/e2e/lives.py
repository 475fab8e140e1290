# SPDX-License-Identifier: Apache-2.0
"""A host whose hyperd dies at numbered steps (`dying.py`), and a pod on it that has nothing to do with that."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.unit.layouts import Maker
from tests.vm.conftest import machines

from .conftest import Daemon, launched, wait_for

IMAGE = "oci:LAYOUT:bomb"  # the name that tests/unit/layouts.py gives
_DYING = (sys.executable, Path(__file__).parent / "dying.py")
_PORT = 9000
_QUIET = 0.4  # seconds without a step after which a verb has made all of its steps
_COUNT = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done"
_POD = {
    "id": "neighbour",
    "containers": [
        {"name": "counter", "image": "busybox", "command": ["sh", "-c", _COUNT]},
        {"name": "ends", "image": "busybox", "command": ["sh", "-c", f"exit $(nc -l -p {_PORT})"]},
    ],
    "resource": {"vcpu": 1, "memory": 64},
}


class Steps:
    """The line to a daemon that counts its steps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX)
        self._unread = b""

    def __enter__(self) -> Steps:
        self._sock.settimeout(20)
        self._sock.connect(str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._path.unlink(missing_ok=True)

    def _line(self) -> str:
        while b"\n" not in self._unread:
            if not (data := self._sock.recv(1 << 16)):
                raise EOFError(self._unread)
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def at(self, number: int) -> None:
        """Count from here, and die at this one; below 0: do not."""
        self._sock.sendall(b"at %d\n" % number)
        assert self._line() == "ok"

    def count(self) -> int:
        """Steps since then."""
        self._sock.sendall(b"count\n")
        return int(self._line())

    def sites(self) -> list[str]:
        """What they were; none is counted any more."""
        self._sock.sendall(b"sites\n")
        found: list[str] = json.loads(self._line())
        return found

    def died(self, within: float) -> str:
        """At which step; "" where it lives yet after some seconds."""
        if not self._unread and not select.select([self._sock], [], [], within)[0]:
            return ""
        return self._line()


class Host:
    """Daemons one after the other on one state; each is the next one of that which was killed."""

    def __init__(self, tmp: Path, run: Path, netns: str) -> None:
        self.tmp, self.run, self._netns = tmp, run, netns
        self._daemon = contextlib.ExitStack()
        self.size = 40  # MB, of a machine that the factory has not made yet
        self.codes: list[int] = []  # with which `ends` has ended, each while no daemon was there
        self.open()
        self.out("pull", "-q", "builtin:busybox")
        (tmp / "pod.json").write_text(json.dumps(_POD))
        self.out("run", "-p", str(tmp / "pod.json"))
        self._machine = machines(run)
        found = json.loads(self.out("network", "inspect", "bridge"))[0]["pods"]
        [self._address] = [a[0] for name, a in found.items() if name == "neighbour"]
        self._ends_with(1)
        assert self.out("wait", "ends") == "1"
        make_layout(tmp / "layout")

    def open(self) -> None:
        """Start the next daemon."""
        self._daemon.close()
        control = self.run / "steps.sock"
        control.unlink(missing_ok=True)
        made = launched(self.tmp / "root", "--network", "bridge", run=self.run,
                        prefix=("ip", "netns", "exec", self._netns), program=(*_DYING, control))  # fmt: skip
        self.daemon: Daemon = self._daemon.enter_context(made)
        self.steps = self._daemon.enter_context(Steps(control))

    def close(self) -> None:
        """In good order, with all that it runs."""
        self.daemon.remove_all()
        self.out("pod", "rm", "-f", "neighbour")
        self.out("factory", "drain")
        self.daemon.world.check()
        self._daemon.close()
        assert self.daemon.world.nothing() == []

    def words(self, words: Sequence[str]) -> list[str]:
        """Of a command line, with what those in capitals stand for."""
        return [w.replace("LAYOUT", str(self.tmp / "layout")).replace("SIZE", f"{self.size}m") for w in words]

    def out(self, *words: str) -> str:
        return self.daemon.out(*self.words(words))

    def quietly(self, *words: str) -> None:
        """Whether or not there is something to do."""
        self.daemon.ctl(*self.words(words), check=False)

    def kill(self) -> None:
        self.daemon.stop(signal.SIGKILL)

    def _ends_with(self, code: int) -> None:
        """Tell `ends` its exit status, from the host's side of its network: no daemon is needed."""
        words = f"exec 3<>/dev/tcp/{self._address}/{_PORT} && echo {code} >&3"

        def told() -> bool:
            command = ["ip", "netns", "exec", self._netns, "bash", "-c", words]
            return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0

        wait_for(told, "the neighbour's ear")

    def before_death(self) -> None:
        """The neighbour has something to do while no daemon is there."""
        self.out("start", "ends")

    def meanwhile(self) -> None:
        """No daemon is there: the neighbour ends with a status that no other end has."""
        code = len(self.codes) % 120 + 2
        self._ends_with(code)
        self.codes.append(code)

    def check(self) -> None:
        """:raise AssertionError: a thing without an owner, or the neighbour was touched."""
        self.daemon.world.check()
        assert set(self._machine) <= set(machines(self.run)), "the neighbour's machine ended"
        assert self.out("inspect", "-f", "{{.State.Status}}", "counter") == "running"
        assert self.out("wait", "ends") == str(self.codes[-1])

    def check_all(self) -> None:
        """What the neighbour did in all that time is known, once."""
        self.out("stop", "-t", "0", "counter")
        lines = self.out("logs", "counter").splitlines()
        assert lines == [f"line {n}" for n in range(len(lines))] and lines
        told = self.out("events", "--since", "24h", "--until", "--format", "json", "-f", "event=die").splitlines()
        ends = [e["attributes"] for e in map(json.loads, told) if e["attributes"].get("name") == "ends"]
        assert [int(e["exit_code"]) for e in ends] == [1, *self.codes]

    def finish_verb(self) -> int:
        """How many steps there were since `steps.at`, when no more of them come."""
        seen, last = -1, time.monotonic()

        def quiet() -> bool:
            nonlocal seen, last
            now = self.steps.count()
            if now != seen:
                seen, last = now, time.monotonic()
            return time.monotonic() - last > _QUIET

        wait_for(quiet, "a daemon at rest")
        print("\n".join(self.steps.sites()))
        return seen


def make_layout(directory: Path) -> None:
    """An image of which the built-in one's program is the only file."""
    archive = directory.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "busybox")
    maker = Maker(directory)
    maker.image(maker.layer([archive.read_bytes()]))


@contextlib.contextmanager
def host(tmp: Path, netns: str) -> Iterator[Host]:
    """Clean at the end, and looked at as a whole."""
    with tempfile.TemporaryDirectory(prefix="hye") as run:
        made = Host(tmp, Path(run), netns)
        try:
            yield made
        finally:
            if made.daemon.process.poll() is not None:  # a test failed while none was there
                made.open()
            made.check_all()
            made.close()
