# SPDX-License-Identifier: Apache-2.0
"""A hyperd that is killed at a step: `python dying.py SOCKET [OPTION OF hyperd]...`.

A step is a change to the host (`tests/steps.py`; and the calls of `_TOLD`, of which the interpreter tells nothing): the
process gets SIGKILL just before it. Who connects to SOCKET says `at N`, from where steps are counted anew, and hears
`ok`; `count`, and hears how many there were; `sites`, and hears them as a JSON array; and, when step N comes, what it
is, before the connection ends with the process.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # for `tests`

from tests.steps import is_change, place

_OFTEN = ("WINDOW", "STATS")  # frames whose number depends on the weather
_PIECES = ("write", "pwrite", "ftruncate", "copy_file_range")  # of a file that is written
_LOGS = ("logs.py:", "files.py:")  # where a neighbour's output is written down, all the time
_MARK = "steps of a daemon"  # the thread that answers; what it does is no step
_TOLD = (
    ("os", "", "write"), ("os", "", "pwrite"), ("os", "", "ftruncate"), ("os", "", "copy_file_range"),
    ("os", "", "kill"), ("fcntl", "", "ioctl"),
    ("hypercontainer.state.database", "Database", "_writing"),
    ("hypercontainer.hypervisor.qemu.monitor", "Monitor", "_send"),
    ("hypercontainer.guest.connection", "Connection", "send_frame"),
    ("hypercontainer.network.nftables", "_Library", "run"), ("pyroute2.netlink.core", "AsyncCoreSocket", "send"),
)  # fmt: skip


class Steps:
    """Counts them since it was last told a number, and dies at that number."""

    def __init__(self) -> None:
        self.at = -1
        self.sites: list[str] | None = None
        self._lock = threading.Lock()
        self._peer: socket.socket | None = None

    def step(self, what: str) -> None:
        if self.sites is None or threading.current_thread().name == _MARK:
            return
        where = place(4)
        site = f"{what}, {where}"
        with self._lock:
            if self.sites is None or (what in _PIECES and (where.startswith(_LOGS) or site in self.sites[-1:])):
                return  # the second piece of a file is as the first
            here = len(self.sites)
            self.sites.append(site)
            if here != self.at:
                return
            assert self._peer
            self._peer.sendall(self.sites[here].encode() + b"\n")
            os.kill = _KILL
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()

    def answer(self, listener: socket.socket) -> None:
        while True:
            self._peer = listener.accept()[0]
            for line in self._peer.makefile():
                word, *number = line.split()
                if word == "at":
                    with self._lock:
                        self.at, self.sites = int(number[0]), []
                    self._peer.sendall(b"ok\n")
                elif word == "count":
                    self._peer.sendall(b"%d\n" % len(self.sites or ()))
                else:
                    with self._lock:
                        told, self.sites = self.sites, None
                    self._peer.sendall(json.dumps(told).encode() + b"\n")


_KILL = os.kill
_steps = Steps()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if is_change(event, args):
        _steps.step(event)


def _told(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def told(*args: Any, **how: Any) -> Any:
        what = args[1].name if name in ("send_frame", "_send") else name
        if what not in _OFTEN:
            _steps.step(what)
        return call(*args, **how)

    return told


def main() -> None:
    path = sys.argv.pop(1)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_steps.answer, args=(listener,), name=_MARK, daemon=True).start()
    for module, owner, name in _TOLD:
        found = importlib.import_module(module)
        where = getattr(found, owner) if owner else found
        setattr(where, name, _told(name, getattr(where, name)))
    sys.addaudithook(_audit)
    from hypercontainer.hyperd.main import main as hyperd

    sys.argv[0] = "hyperd"
    hyperd()


if __name__ == "__main__":
    main()
