# SPDX-License-Identifier: Apache-2.0
"""Beside the lab, on its host: has the emulator hung a guest of a machine in it (docs/development.md)?

The lab's processor and those of the guests in it are one thread of QEMU, whose monitor shows the registers of whichever
runs. A guest that waits for a lock which the code that it interrupted holds shows the same ones at each look, with its
interrupts off, while QEMU uses a processor. Then a program in the lab, which sees the machines there, is told to end
the one that runs (`tests/lab/ending.py`); where that does not answer, the lab is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.errors import HyperError
from hypercontainer.hypervisor.qemu.monitor import Monitor

LOOKS = 10  # in a row, that show the same
_BETWEEN = 1.0  # seconds of a processor that QEMU has used between two of them
_ANSWER = 120.0  # such seconds within which the lab says what it has ended; its own clock nearly stands still
_NONE = 3  # times that the lab finds none, after which it is ended
_PAUSE = 0.5  # seconds of this host's
_LOOP = 64  # bytes, of code that waits for a lock
_AT = re.compile(r"\b[RE]IP=([0-9a-f]+) [RE]FL=([0-9a-f]+) .*\bCPL=(\d).*\bHLT=(\d)")
_INTERRUPTS = 0x200  # the flag IF
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Look:
    """What the processor was at."""

    place: int
    registers: str  # general ones
    waits: bool  # in a kernel, with interrupts off, and not halted

    @classmethod
    def of(cls, text: str) -> Look | None:
        """Of the monitor's `info registers`."""
        found = _AT.search(text)
        if not found:
            return None
        place, flags = int(found[1], 16), int(found[2], 16)
        return cls(place, text[: found.start()], not flags & _INTERRUPTS and found[3] == "0" and found[4] == "0")

    def like(self, other: Look) -> bool:
        """Whether between these two nothing went on but a short loop."""
        near = abs(self.place - other.place) < _LOOP
        return self.waits and other.waits and near and self.registers == other.registers


class Sign:
    """So many looks in a row that are like the first of them."""

    def __init__(self) -> None:
        self._first: Look | None = None
        self._count = 0

    def seen(self, look: Look | None) -> bool:
        """Whether this look was the last one that it takes; it begins anew then."""
        if look and self._first and look.like(self._first):
            self._count += 1
        else:
            self._first, self._count = look, 1
        if self._count < LOOKS:
            return False
        self._first, self._count = None, 0
        return True


class Lookout:
    """Looks for as long as QEMU runs; in a thread of its own."""

    def __init__(self, work: Path, process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
        """`work` has QEMU's sockets, `say` is for what it finds."""
        self._work, self._process, self._say = work, process, say
        self._over = threading.Event()
        self._none = 0  # times that the lab found none
        self.gave_up = False  # the lab did not answer, and was ended

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        thread = threading.Thread(target=lambda: asyncio.run(self._watch()), name="lookout", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    async def _watch(self) -> None:
        while not self._ended():
            with contextlib.suppress(HyperError, OSError):  # not there yet; gone; too busy to answer
                async with Monitor(self._work / "qmp.sock") as monitor:
                    await self._look(monitor)
            await asyncio.sleep(_PAUSE)

    async def _look(self, monitor: Monitor) -> None:
        """The connection to the lab's program is there before it is needed: that then need not look for one."""
        reader, writer = await asyncio.open_unix_connection(self._work / "ending.sock")
        sign = Sign()
        try:
            while not self._ended():
                await self._used(_BETWEEN)
                text = await monitor.execute("human-monitor-command", {"command-line": "info registers"})
                if sign.seen(Look.of(text)):
                    self._say(f"a processor waits in one place without interrupts, in {LOOKS} looks: {place(text)}")
                    writer.write(b"end\n")
                    await self._hear(reader)
        finally:
            writer.close()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """What the lab has ended; or it is ended itself."""
        answer, late = asyncio.create_task(reader.readline()), asyncio.create_task(self._used(_ANSWER))
        await asyncio.wait({answer, late}, return_when=asyncio.FIRST_COMPLETED)
        late.cancel()
        if self._ended():
            answer.cancel()
        elif answer.done() and (named := answer.result().decode().strip()):
            self._say(f"the emulator hung a guest; its machine was ended, {named}: docs/development.md")
        elif answer.done() and self._none < _NONE - 1:
            self._none += 1
            self._say("no machine has the processor: it goes on")
        else:
            answer.cancel()
            said = "finds no machine that has the processor" if answer.done() else "does not answer"
            self._say(f"the emulator hung a guest, and the lab {said}; it is ended: docs/development.md")
            self.gave_up = True
            self._process.kill()

    async def _used(self, seconds: float) -> None:
        """Until QEMU has used so much of a processor, or is gone."""
        begun = processor_time(self._process.pid)
        while not self._ended() and processor_time(self._process.pid) < begun + seconds:
            await asyncio.sleep(_PAUSE)

    def _ended(self) -> bool:
        return self._over.is_set() or self._process.poll() is not None


def place(text: str) -> str:
    """Where the processor was, of the monitor's `info registers`."""
    found = _AT.search(text)
    return found[0] if found else ""


def processor_time(pid: int) -> float:
    """Seconds of a processor that a process has used; 0 when it is gone (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def waited_for_processor(pid: int) -> float:
    """Seconds for which a process was ready to run and did not: of the thread that waited longest (schedstat)."""
    waited = [0]
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            waited.append(int(path.read_text().split()[1]))
    return max(waited) / 1e9
