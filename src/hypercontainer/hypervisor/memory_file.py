# SPDX-License-Identifier: Apache-2.0
"""A file of memory that a machine's process was given: it is found there, also by a later daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import Unavailable


class MemoryFile(NamedTuple):
    """As the process was given it."""

    descriptor: int
    device: int
    inode: int

    @classmethod
    def of(cls, descriptor: int) -> MemoryFile:
        status = os.fstat(descriptor)
        return cls(descriptor, status.st_dev, status.st_ino)

    def open(self, pid: int, flags: int = os.O_RDONLY) -> int:
        """A descriptor of ours, of the file that the process has.

        What the number means by now is the process's choice: only the file that it was given is opened.

        :raise OSError: the process has ended, or hyperd may not. :raise Unavailable: it has another file there.
        """
        found = os.open(Path(f"/proc/{pid}/fd/{self.descriptor}"), os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(found)
            if (status.st_dev, status.st_ino) != (self.device, self.inode):
                raise Unavailable("the virtual machine does not have the file of its memory any more")
            return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC)
        finally:
            os.close(found)
