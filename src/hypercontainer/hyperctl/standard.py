# SPDX-License-Identifier: Apache-2.0
"""The standard streams, whatever the caller made of them; imports little, for the quick way."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys

_ESCAPED = range(0xDC80, 0xDD00)  # what stands for bytes that are not UTF-8 in Python's arguments and paths (PEP 383)


def _unprintable(error: UnicodeError) -> tuple[str | bytes, int]:
    """For an encoder: bytes that were none of ours to decode go out as they came, other characters escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all(ord(c) in _ESCAPED for c in text):
        return bytes(ord(c) - 0xDC00 for c in text), error.end
    return text.encode("ascii", "backslashreplace").decode(), error.end


def prepare() -> None:
    """Make all three usable.

    One that is closed gets /dev/null, lest a socket or file of ours takes its number; so that what is printed to a
    closed stdout is not lost in silence, writing fails there.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free: lower ones are in use by now
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
    codecs.register_error("unprintable", _unprintable)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="unprintable")  # type: ignore[union-attr]


def stdout_fails() -> bool:
    """Whether what was printed cannot be written; `finish` says why."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def finish(status: int) -> int:
    """Write what waits to be written; the exit status, which is not 0 when that fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = 141  # as from SIGPIPE
    except OSError as error:
        complain(f"cannot write to stdout: {error.strerror}")
        status = status or 1
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return status


def complain(text: str) -> None:
    """One line on stderr, if anybody listens."""
    with contextlib.suppress(OSError):
        print(f"hyperctl: {text}", file=sys.stderr)
