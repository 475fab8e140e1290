# SPDX-License-Identifier: Apache-2.0
"""No jail: another user, for root. The program sees the host's files and processes.

hyperjail starts it all the same (hyperjail/src/main.c, "plain"): a fork of hyperd
itself, whose threads may hold any lock, could do nothing safely before the program
begins. gRPC's handlers of forks alone end every third such child.
"""

from __future__ import annotations

import os
import socket
import subprocess

from ..errors import Unavailable, Unsupported
from ..sys import process, tasks
from ..sys.confine import entrance
from .binaries import START, binary, start
from .jail import Born, Entry, Order, Started, ignore

_READ = 4096


class PlainJail:
    """Where a jail is switched off, or the host does not let a user have one."""

    confines = False

    def hindrance(self) -> str:
        return ""

    async def spawn(self, order: Order, born: Born = ignore) -> Started:
        report, theirs = socket.socketpair()
        with report:
            with theirs:
                args = [str(binary()), str(theirs.fileno()), *_words(order), "--", *order.args]
                child = start(args, order, order.environment, [theirs.fileno()])
            started = Started(child.pid, process.start_time(child.pid))
            try:
                born(started)
                # The program has begun when it has closed the report.
                said = await tasks.in_thread(lambda: _read(report))
            except TimeoutError:
                _end(child)
                raise Unavailable(f"{order.args[0]} did not start within {START:g} s") from None
            except BaseException:
                _end(child)
                raise
            if said:
                _end(child)
                raise Unavailable(f"{order.args[0]} cannot be started: {said.removeprefix('error ').strip()}")
        # Whoever asked reaps by pidfd; Popen must not warn about a child that it believes to run.
        child.returncode = 0
        return started

    async def add(self, started: Started, entry: Entry) -> None:
        raise Unsupported(f"{entry.source} cannot be shown to a program that runs without a jail")

    async def remove(self, started: Started, place: str) -> None:
        raise Unsupported(f"{place} cannot be taken from a program that runs without a jail")

    cover, uncover = add, remove


def _words(order: Order) -> list[str]:
    words = ["plain"]
    if os.geteuid() == 0:
        words += ["user", str(order.user), str(order.user)]
        for group in order.groups:
            words += ["group", str(group)]
    if order.dies_with_us:
        words.append("die-with-parent")
    for directory in order.control_groups:
        words += ["cgroup", str(entrance(directory))]
    return words


def _read(report: socket.socket) -> str:
    """All that hyperjail reports; nothing, where all went well.

    :raise TimeoutError: it does not come to an end.
    """
    report.settimeout(START)
    return b"".join(iter(lambda: report.recv(_READ), b"")).decode(errors="replace")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
