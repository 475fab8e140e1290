# SPDX-License-Identifier: Apache-2.0
"""The end of what a guest writes to its serial port.

A guest may write without end, so nothing of it is stored by QEMU: it sends the
text to whoever is connected, and drops it while nobody is. The daemon keeps
the last of it in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

_READ = 64 << 10
_KEPT = 8192  # bytes
_DRAINED = 16  # reads at most when the words are asked for: more than a socket holds


class Console:
    """A connection to a machine's serial port, as long as that lives."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._text = b""
        self.heard = 0  # bytes so far

    def open(self, path: Path) -> None:
        """Begin to listen; a machine that cannot be reached, or of a daemon that stored the text, has no words here."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            return
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._read)

    def _read(self) -> bool:
        """Take what is there; False when there is nothing, or the machine has ended."""
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
        self.heard += len(data)
        self._text = (self._text + data)[-_KEPT:]
        return bool(data)

    def tail(self) -> bytes:
        """The last few kilobytes."""
        for _ in range(_DRAINED):
            if not self._read():
                break
        return self._text

    def close(self) -> None:
        """Hear no more; what was heard stays. Idempotent."""
        if self._sock is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
