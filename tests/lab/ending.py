# SPDX-License-Identifier: Apache-2.0
"""In the lab: end the machine whose guest the emulator hung, when the lab's host says that there is one (`lookout.py`).

Which one it is, is seen by who has the processor. It is written down, so that what failed because of it is run again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_RECORD = Path("/run/lab-ended")
_SPAN = 0.1  # seconds of the lab's time, which may take ten of a processor then
_LEAST = 0.05  # of that span; others in the lab have their turns as well, and less of the host's processor for them
_VCPU = "anon_inode:kvm-vcpu"


def ended() -> int:
    """How many machines were ended so far; on another host than the lab, none."""
    with contextlib.suppress(OSError):
        return len(_RECORD.read_text().splitlines())
    return 0


def machines() -> list[int]:
    """Processes that have a processor of KVM's."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _has_vcpu(entry)]


def _has_vcpu(entry: Path) -> bool:
    with contextlib.suppress(OSError):  # it ended meanwhile
        return any(os.readlink(fd).startswith(_VCPU) for fd in (entry / "fd").iterdir())
    return False


def ran(pid: int) -> int:
    """Nanoseconds for which its threads have had a processor; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return sum(int(f.read_text().split()[0]) for f in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return 0


def busiest() -> int | None:
    """The machine that has had most of the processor for a while, if any had it at all."""
    before = {pid: ran(pid) for pid in machines()}
    begun = time.monotonic_ns()
    time.sleep(_SPAN)
    used = {pid: ran(pid) - was for pid, was in before.items()}
    most = max(used, key=used.__getitem__, default=None)
    return most if most and used[most] > _LEAST * (time.monotonic_ns() - begun) else None


def end_one() -> str:
    """Which one; "" where none has the processor."""
    pid = busiest()
    if pid is None:
        return ""
    name = f"{Path(f'/proc/{pid}/comm').read_text().strip()} (process {pid})"
    with open(_RECORD, "a") as record:  # before whoever waits for the machine hears of its end
        record.write(f"{name}\n")
    os.kill(pid, signal.SIGKILL)
    return name


def main() -> None:
    port = os.open(sys.argv[1], os.O_RDWR)
    while True:
        if os.read(port, 100):
            os.write(port, f"{end_one()}\n".encode())
        else:  # nobody is connected
            time.sleep(1)


if __name__ == "__main__":
    main()
