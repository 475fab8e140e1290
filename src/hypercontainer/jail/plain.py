# SPDX-License-Identifier: Apache-2.0
"""No jail: another user, for root. The program sees the host's files and processes."""

from __future__ import annotations

import os
import subprocess
from functools import partial

from ..errors import Unavailable
from ..sys import process
from ..sys.confine import die_with_parent, enter, entrances
from .jail import Born, Order, Started, ignore


class PlainJail:
    """Where a jail is switched off, or the host does not let a user have one."""

    confines = False

    def hindrance(self) -> str:
        return ""

    async def spawn(self, order: Order, born: Born = ignore) -> Started:
        root = os.geteuid() == 0
        try:
            with entrances(order.control_groups) as groups:
                child = self._start(order, groups, root=root)
        except OSError as error:
            raise Unavailable(f"{order.args[0]} cannot be started: {error.strerror}") from error
        # Whoever asked reaps by pidfd; Popen must not warn about a child that it believes to run.
        child.returncode = 0
        started = Started(child.pid, process.start_time(child.pid))
        born(started)
        return started

    @staticmethod
    def _start(order: Order, groups: list[int], *, root: bool) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            order.args,
            stdin=order.input if order.input >= 0 else subprocess.DEVNULL,
            stdout=order.output,
            stderr=order.errors if order.errors >= 0 else order.output,
            pass_fds=order.descriptors,
            start_new_session=True,  # it outlives the daemon
            env=dict(order.environment),
            user=order.user if root else None,
            group=order.user if root else None,
            extra_groups=order.groups if root else None,
            # It makes a fork of a vfork, and is left out where there is nothing to do.
            preexec_fn=partial(_begin, groups, dies=order.dies_with_us) if groups or order.dies_with_us else None,
        )


def _begin(groups: list[int], *, dies: bool) -> None:
    enter(groups)
    if dies:
        die_with_parent()
