# SPDX-License-Identifier: Apache-2.0
"""Which system call ended a process by its filter, as the kernel's log has it.

A record of /dev/kmsg is `HEAD;TEXT` (Documentation/ABI/testing/dev-kmsg of Linux), the text here
`audit: type=1326 audit(SECONDS.MS:N): ... pid=PID ... sig=31 arch=ARCHITECTURE syscall=NUMBER ...` (kernel/auditsc.c,
audit_seccomp), by the host's clock. It is not there where an audit daemon takes such lines, where many come in a
moment, and where hyperd has another PID namespace than the host or may not read the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import signal
import time
from collections.abc import Iterable, Iterator

from .calls import NUMBERS

_LOG = "/dev/kmsg"
_RECORD = 8192  # bytes, the longest that the kernel gives
_ATTEMPTS, _PAUSE = 6, 0.05  # the line is written by a thread of the kernel, a moment after the process's end
_RECENT = 60.0  # seconds; numbers of processes are used again
_LINE = re.compile(rb"^[^;]*;audit: type=1326 audit\((\d+)\.\d+:\d+\):.*? pid=(\d+) .*? sig=(\d+) .*? syscall=(\d+) ")


def named(number: int, machine: str = "") -> str:
    """`open (2)`, say, of the host or another machine (`uname -m`)."""
    column = ["x86_64", "aarch64"].index(machine or platform.machine())
    name = next((name for name, numbers in NUMBERS.items() if numbers[column] == number), "unknown")
    return f"{name} ({number})"


def search(records: Iterable[bytes], pid: int, since: float) -> int | None:
    """The number of the call for which this process was ended, at `since` by the host's clock or later."""
    found = None
    for record in records:
        match = _LINE.match(record)
        if match and int(match[1]) >= int(since) and (int(match[2]), int(match[3])) == (pid, signal.SIGSYS):
            found = int(match[4])
    return found


def _records() -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        fd = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while True:
                with contextlib.suppress(BrokenPipeError):  # records that were overwritten meanwhile
                    yield os.read(fd, _RECORD)
        finally:
            os.close(fd)


async def forbidden_call(pid: int, *, expected: bool) -> str:
    """Name and number of the call for which a process was ended just now; "" where the log does not have it.

    It is looked for again for a moment where it is `expected`.
    """
    since = time.time() - _RECENT
    for _ in range(_ATTEMPTS if expected else 1):
        number = await asyncio.to_thread(lambda: search(_records(), pid, since))
        if number is not None:
            return named(number)
        await asyncio.sleep(_PAUSE)
    return ""
