# SPDX-License-Identifier: Apache-2.0
"""Taps that are sockets: what both fakes of this host's networks are made on."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field

from ..errors import Conflict, Unavailable


@dataclass
class FakeTap:
    """It is there as long as somebody has its descriptor."""

    ours: socket.socket
    bridge: str = ""
    rate: int = 0

    @property
    def held(self) -> bool:
        try:
            return self.ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


@dataclass
class FakeTaps:
    """Those of one host; they outlive a daemon."""

    taps: dict[str, FakeTap] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)  # descriptors -> inodes, of whoever opened them

    def present(self) -> list[str]:
        """Names of the taps that somebody holds."""
        for name in [n for n, t in self.taps.items() if not t.held]:
            self.taps.pop(name).ours.close()
        return sorted(self.taps)

    def is_there(self, name: str) -> bool:
        """As `present`, of one."""
        return name in self.taps and self.taps[name].held

    def tap(self, name: str) -> FakeTap:
        """:raise Unavailable: it is not there."""
        if not self.is_there(name):
            raise Unavailable(f"this host's network refused a change: no interface {name}")
        return self.taps[name]

    def create_tap(self, name: str) -> int:
        """Its descriptor, which the caller owns. :raise Conflict: the name is taken."""
        if name in self.present():
            raise Conflict(f"the interface name {name!r} is taken on this host")
        ours, theirs = socket.socketpair()
        self.taps[name] = FakeTap(ours)
        self._open[theirs.fileno()] = os.fstat(theirs.fileno()).st_ino
        return theirs.detach()

    def daemon_died(self) -> None:
        """The descriptors that it had open are closed."""
        for fd, inode in self._open.items():
            with contextlib.suppress(OSError):
                if os.fstat(fd).st_ino == inode:
                    os.close(fd)
        self._open.clear()

    def close(self) -> None:
        for one in self.taps.values():
            one.ours.close()
        self.taps.clear()
