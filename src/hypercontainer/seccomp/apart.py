# SPDX-License-Identifier: Apache-2.0
"""The compiler as a process of its own: libseccomp takes minutes for some profiles that users may write."""

from __future__ import annotations

import functools
import resource
import subprocess
import sys

import msgspec

from ..errors import HyperError, InvalidArgument, Unavailable, Unsupported
from ..sys.documents import UNREADABLE
from .compile import Filter, check_profile, compile_profile

_CPU, _WALL = 5, 60  # seconds; Docker's default profile takes 0.1
_REFUSED = {kind.__name__: kind for kind in (InvalidArgument, Unavailable, Unsupported)}


class _Answer(msgspec.Struct):
    program: bytes = b""
    flags: int = 0
    error: str = ""  # of _REFUSED
    message: str = ""
    hint: str = ""


@functools.lru_cache(maxsize=64)
def compiled(text: str, architecture: str, capabilities: int) -> Filter:
    """As `compile_profile`, in seconds at most. It blocks; what is known takes no time.

    :raise InvalidArgument, Unsupported, Unavailable: as there; or it takes too long.
    """
    check_profile(text, architecture, capabilities)
    command = [sys.executable, "-m", "hypercontainer.seccomp", architecture, str(capabilities)]
    try:
        # In /: Python looks for modules where it is started, before all other places.
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_WALL, check=False, cwd="/")
        answer = msgspec.json.decode(done.stdout, type=_Answer)
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
