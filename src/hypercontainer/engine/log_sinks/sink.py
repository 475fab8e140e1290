# SPDX-License-Identifier: Apache-2.0
"""The port to what takes a container's log; its facet: a sink whose content counts, and can be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

NAMES = {1: "stdout", 2: "stderr"}
LINE_MAX = 16 << 10  # bytes; a longer line that has not ended yet is split, as Docker and containerd do


@dataclass(frozen=True)
class Piece:
    """Some output of one stream, as it came at one time."""

    stream: int  # 1 stdout, 2 stderr
    time: int  # nanoseconds since the epoch
    data: bytes  # lines; the last may not have ended
    partial: bool = False  # the last has not ended, and goes on in the next piece

    def lines(self) -> Iterator[tuple[bytes, bool]]:
        """Each line without its end, in parts of at most LINE_MAX, and whether it goes on."""
        whole, newline, rest = self.data.rpartition(b"\n")
        if newline:
            for line in whole.split(b"\n"):
                yield from _parts(line, False)
        if rest:
            yield from _parts(rest, self.partial)


def _parts(line: bytes, goes_on: bool) -> Iterator[tuple[bytes, bool]]:
    """Of at most LINE_MAX."""
    while len(line) > LINE_MAX:
        yield line[:LINE_MAX], True
        line = line[LINE_MAX:]
    yield line, goes_on


class LogSink(Protocol):
    """What takes a log. Nothing of it waits."""

    def open(self) -> None:
        """Before the first piece; again after an `OSError`. Idempotent. :raise OSError: it cannot take anything now."""

    def write(self, piece: Piece) -> None:
        """All of it, or nothing. :raise OSError: nothing of it was written."""

    def flush(self) -> None:
        """What is held back goes out, as far as it can."""

    def reopen(self) -> None:
        """Go on anew: its file was moved away by whoever rotates it. :raise OSError: it goes on in the old one."""

    def close(self) -> None:
        """Let go of everything; nothing is raised. Idempotent."""


class NullSink:
    """For `--log-driver none`."""

    def open(self) -> None: ...

    def write(self, piece: Piece) -> None: ...

    def flush(self) -> None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """How far a sink is filled: which file, and how long it is."""

    inode: int
    size: int


@runtime_checkable
class Keeps(Protocol):
    """A sink that knows, when it is open, how far it is filled: what was not accounted for can be taken back."""

    def place(self) -> Place:
        """Where what was written so far ends, for the account beside the log."""

    def back_to(self, place: Place) -> None:
        """Take away what came after a place, if that is still there; nothing is raised."""
