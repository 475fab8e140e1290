# SPDX-License-Identifier: Apache-2.0
"""What a build tells, as lines: BuildKit's trace, and the builder's before it.

BuildKit's messages are protobuf, `StatusResponse` of https://github.com/moby/buildkit/blob/master/api/services/control/
control.proto; the field numbers below are from there. The lines are those of `docker build --progress=plain`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TextIO

from ..errors import InvalidArgument
from ..model.protobuf import Fields, decoded, messages, text

NO_SPACE = "no space left on device"  # what programs say of a full disk, in small letters
OTHER_PROCESSOR = "exec format error"  # and of a program that is for another processor
_PATIENCE = 2.0  # seconds without an answer that are not explained
_WAITING = "waiting for the builder: the first build starts it, which takes some seconds, and a minute the first time"
_PARSE_ERROR = re.compile(r"parse error(?: on)? line (\d+)")
_BESIDE = 2  # lines that are shown before and after one
_RULE = "-" * 20
_VERTEX, _STATUS, _LOG, _WARNING = 1, 2, 3, 4


def _seconds(fields: Fields, number: int) -> float:
    """A timestamp; 0 where there is none."""
    for message in messages(fields, number):
        whole, nanos = (message.get(n, [0])[0] for n in (1, 2))
        if isinstance(whole, int) and isinstance(nanos, int):
            return whole + nanos / 1e9
    return 0.0


@dataclass
class _Step:
    """One that has been told."""

    number: int
    name: str
    begun: float = 0.0
    over: bool = False
    partial: str = ""  # a line of its output that has not ended
    said: set[str] = field(default_factory=set)  # of its parts


class Progress:
    """Prints a build's steps and their output."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._steps: dict[str, _Step] = {}
        self.full = False  # a step has said that there is no space left
        self.foreign = False  # a step is a program for another processor than the builder's

    def trace(self, aux: str) -> None:
        """A message of BuildKit's, in base64. :raise InvalidArgument: it is none."""
        try:
            message = decoded(base64.b64decode(aux, validate=True))
        except ValueError:
            raise InvalidArgument("what the builder tells is not understood") from None
        for vertex in messages(message, _VERTEX):
            self._vertex(vertex)
        for status in messages(message, _STATUS):
            self._status(status)
        for log in messages(message, _LOG):
            self._log(log)
        for vertex in messages(message, _VERTEX):
            self._end(vertex)

    def _step(self, digest: str, name: str = "") -> _Step:
        if digest not in self._steps:
            self._steps[digest] = step = _Step(len(self._steps) + 1, name)
            self._line(step, name)
        return self._steps[digest]

    def _vertex(self, vertex: Fields) -> None:
        begun = _seconds(vertex, 5)
        if begun or vertex.get(4):
            step = self._step(text(vertex, 1), text(vertex, 3))
            step.begun = step.begun or begun

    def _end(self, vertex: Fields) -> None:
        ended, step = _seconds(vertex, 6), self._steps.get(text(vertex, 1))
        cached = bool(vertex.get(4, [0])[0])
        if step is None or step.over or not (ended or cached):
            return
        step.over = True
        if step.partial:
            self._hear(step.partial)
            self._line(step, step.partial)
        if error := text(vertex, 7):
            self._line(step, f"ERROR: {error}")
        else:
            self._line(step, "CACHED" if cached else f"DONE {max(ended - step.begun, 0):.1f}s")
        print(file=self._out)

    def _status(self, status: Fields) -> None:
        """Of a part of a step: it is told once, when it is over."""
        id_, step = text(status, 1), self._steps.get(text(status, 2))
        if step and _seconds(status, 8) and id_ not in step.said:
            step.said.add(id_)
            self._line(step, f"{id_} {text(status, 3)}".strip() + " done")

    def _log(self, log: Fields) -> None:
        step = self._step(text(log, 1))
        when = max(_seconds(log, 2) - step.begun, 0) if step.begun else 0.0
        *lines, step.partial = (step.partial + text(log, 4)).split("\n")
        for line in lines:
            self._hear(line)
            self._line(step, f"{when:.3f} {line}".rstrip("\r"))

    def _hear(self, line: str) -> None:
        self.full = self.full or NO_SPACE in line.lower()
        self.foreign = self.foreign or OTHER_PROCESSOR in line.lower()

    def _line(self, step: _Step, line: str) -> None:
        print(f"#{step.number} {line}", file=self._out, flush=True)


@contextlib.contextmanager
def waiting(*, quiet: bool) -> Iterator[Callable[[], None]]:
    """Explain a wait for the builder; what is yielded says that it has answered."""
    timer = threading.Timer(_PATIENCE, lambda: print(_WAITING, file=sys.stderr, flush=True))
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()


def excerpt(message: str, dockerfile: str, name: str) -> str:
    """The lines of a Dockerfile that an error of its syntax is about, as Docker's client shows them; "" for others."""
    lines, found = dockerfile.splitlines(), _PARSE_ERROR.search(message)
    number = int(found[1]) if found else 0
    if not 0 < number <= len(lines):
        return ""
    shown = range(max(number - _BESIDE, 1), min(number + _BESIDE, len(lines)) + 1)
    text = [f" {i:3} | {'>>>' if i == number else '   '} {lines[i - 1]}".rstrip() for i in shown]
    return "\n".join([f"{name}:{number}", _RULE, *text, _RULE])
