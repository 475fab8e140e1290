# SPDX-License-Identifier: Apache-2.0
"""The NIC of a machine that waits for a pod: there is one, and it leads nowhere yet."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from . import tap


@dataclass
class IdleNic:
    """Whose machine has ended, closes it; whose machine became a pod's, too."""

    kind: str  # of NicKind, or none
    tap: str = ""  # the interface on this host
    peer: socket.socket | None = None  # the far end of a stream
    fd: int = -1  # for the launch only, of a tap or a stream

    @classmethod
    def make(cls, kind: str) -> IdleNic:
        """:raise PermissionDenied: a tap without CAP_NET_ADMIN."""
        if kind == "stream":
            ours, theirs = socket.socketpair()
            return cls(kind, peer=ours, fd=theirs.detach())
        if kind == "tap":
            name = f"hw{secrets.token_hex(6)}"
            return cls(kind, tap=name, fd=tap.create_tap(name))
        return cls(kind)

    def launched(self) -> None:
        """The hypervisor has its own descriptor by now. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Idempotent."""
        self.launched()
        if self.peer:
            self.peer.close()
