# SPDX-License-Identifier: Apache-2.0
"""The compiler as a process of its own: libseccomp takes minutes for some profiles that users may write."""

from __future__ import annotations

import functools
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

import msgspec

from ..errors import HyperError, InvalidArgument, Unavailable, Unsupported
from ..sys.documents import UNREADABLE
from .compile import Filter, check_profile, compile_profile

_CPU, _WALL = 5, 60  # seconds; Docker's default profile takes 0.1
T = TypeVar("T")
_REFUSED = {kind.__name__: kind for kind in (InvalidArgument, Unavailable, Unsupported)}


class _Answer(msgspec.Struct):
    program: bytes = b""
    flags: int = 0
    error: str = ""  # of _REFUSED
    message: str = ""
    hint: str = ""


class Attempt:
    """Work in a thread that may compile; another thread can have it end soon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False

    def run(self, work: Callable[[], T]) -> T:
        """Its result."""
        _attempt.set(self)
        return work()

    def has(self, process: subprocess.Popen[bytes]) -> None:
        """This one compiles for it."""
        with self._lock:
            self._process = process
        if self._given_up:
            process.kill()

    def give_up(self) -> None:
        """Nobody wants the result any more."""
        self._given_up = True
        with self._lock:
            if self._process:
                self._process.kill()


_attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def _answer(command: list[str], profile: bytes) -> bytes:
    """:raise TimeoutExpired: it takes too long."""
    # In /: Python looks for modules where it is started, before all other places.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    ) as process:
        if attempt := _attempt.get():
            attempt.has(process)
        try:
            return process.communicate(profile, timeout=_WALL)[0]
        finally:
            process.kill()


@functools.lru_cache(maxsize=64)
def compiled(text: str, architecture: str, capabilities: int) -> Filter:
    """As `compile_profile`, in seconds at most. It blocks; what is known takes no time.

    :raise InvalidArgument, Unsupported, Unavailable: as there; or it takes too long.
    """
    check_profile(text, architecture, capabilities)
    command = [sys.executable, "-m", "hypercontainer.seccomp", architecture, str(capabilities)]
    try:
        answer = msgspec.json.decode(_answer(command, text.encode()), type=_Answer)
    except (subprocess.TimeoutExpired, *UNREADABLE):
        raise InvalidArgument("the seccomp profile cannot be compiled in a reasonable time",
                              hint="give it fewer rules, with fewer conditions on arguments") from None  # fmt: skip
    if answer.error:
        raise _REFUSED[answer.error](answer.message, hint=answer.hint or None)
    return Filter(answer.program, answer.flags)


def main() -> None:
    """The process: the profile on stdin, the answer on stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    architecture, capabilities = sys.argv[1:]
    try:
        found = compile_profile(sys.stdin.buffer.read().decode(), architecture, int(capabilities))
        answer = _Answer(program=found.program, flags=found.flags)
    except HyperError as error:
        answer = _Answer(error=type(error).__name__, message=error.message, hint=error.hint or "")
    sys.stdout.buffer.write(msgspec.json.encode(answer))
