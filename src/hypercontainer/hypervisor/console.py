# SPDX-License-Identifier: Apache-2.0
"""The end of what a guest writes to its serial port.

A guest may write without end, so no hypervisor stores it: QEMU sends the text
to whoever is connected, and drops it while nobody is; Firecracker's goes to a
named pipe, which holds 64 KiB, and is dropped while nobody reads; Xen's
xenconsoled has a terminal. The daemon keeps the last of it in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

_READ = 64 << 10
_KEPT = 8192  # bytes
_COMPLAINT = b"I/O error, dev "  # how Linux tells of a request that failed (block/blk-mq.c)
_DRAINED = 16  # reads at most when the words are asked for: more than a socket holds


class Console:
    """A connection to a machine's serial port, as long as that lives."""

    def __init__(self) -> None:
        self._fd = -1
        self._text = b""
        self.heard = 0  # bytes so far
        self.complains = False  # of a disk, since this was last set back; anybody in the guest may have said it

    def open(self, path: Path) -> None:
        """Begin to listen; a machine that cannot be reached, or of a daemon that stored the text, has no words here."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            return
        self._listen(sock.detach())

    def open_pipe(self, path: Path) -> None:
        """The same for a named pipe, which its writer holds open for both, so that it has no end."""
        with contextlib.suppress(OSError):
            self._listen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def open_terminal(self, path: Path) -> None:
        """The same for a terminal, whose other end holds it open; it does not become this process's own."""
        with contextlib.suppress(OSError):
            self._listen(os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))

    def _listen(self, fd: int) -> None:
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> bool:
        """Take what is there; False when there is nothing, or the machine has ended."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
        self.heard += len(data)
        self.complains |= _COMPLAINT in self._text[-len(_COMPLAINT) :] + data
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
        if self._fd >= 0:
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
