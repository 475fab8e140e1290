# SPDX-License-Identifier: Apache-2.0
"""The standard streams, whatever the caller made of them; imports little, for the quick way."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from _typeshed import ReadableBuffer, WriteableBuffer

NAMES = ("stdin", "stdout", "stderr")
_ADVICE = {
    errno.ENOSPC: "free space there, or send it elsewhere",
    errno.EBADF: "leave it open, or send it to /dev/null",
}
_ESCAPED = range(0xDC80, 0xDD00)  # what stands for bytes that are not UTF-8 in Python's arguments and paths (PEP 383)


def _unprintable(error: UnicodeError) -> tuple[str | bytes, int]:
    """For an encoder: bytes that were none of ours to decode go out as they came, other characters escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all(ord(c) in _ESCAPED for c in text):
        return bytes(ord(c) - 0xDC00 for c in text), error.end
    return text.encode("ascii", "backslashreplace").decode(), error.end


class _Named(io.FileIO):
    """One of the three, whose errors say which."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = NAMES[self.fileno()]
            raise

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            error.filename = NAMES[self.fileno()]
            raise


def _named(stream: Any) -> io.TextIOWrapper:
    """The same text stream over a file whose errors say which it is."""
    writes, fd = stream.writable(), stream.fileno()
    raw = _Named(fd, "w" if writes else "r", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if writes else io.BufferedReader(raw), encoding=stream.encoding, errors=stream.errors,
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip


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
    for name, fd, mode in zip(NAMES, range(3), ("r", "w", "w"), strict=True):
        setattr(sys, name, _named(getattr(sys, name) or open(fd, mode, closefd=False)))
    codecs.register_error("unprintable", _unprintable)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="unprintable")  # type: ignore[union-attr]


def trouble(error: OSError) -> str:
    """A sentence for what one of the three refused, "" when it was something else."""
    if error.filename not in NAMES:
        return ""
    verb = "read from" if error.filename == "stdin" else "write to"
    advice = _ADVICE.get(error.errno or 0, "")
    return f"cannot {verb} {error.filename}: {error.strerror}" + (f" ({advice})" if advice else "")


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """What fails while the file is written names it: Python says that only where it is opened."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def write_all(fd: int, data: memoryview) -> None:
    """To stdout or stderr, past what Python holds back.

    :raise OSError: with the stream's name as its file name.
    """
    done = 0
    while done < len(data):
        try:
            done += os.write(fd, data[done:])
        except BlockingIOError:
            import selectors

            # Somebody made our terminal non-blocking: wait for it.
            with selectors.PollSelector() as selector:
                selector.register(fd, selectors.EVENT_WRITE)
                selector.select()
        except OSError as error:
            error.filename = NAMES[fd]
            raise


def print_made(name: str, what: str) -> None:
    """The id or name of what was just made, alone on a line; on stderr when stdout refuses it, lest nobody know it.

    :raise OSError: stdout refused it.
    """
    try:
        print(name, flush=True)
    except OSError:
        complain(f"{what} was made all the same: {name}")
        raise


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
        complain(trouble(error))
        status = status or 1
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return status


def warn(text: str) -> None:
    """What the daemon says beside its answer; "" is nothing."""
    if text:
        complain(f"warning: {text}")


def complain(text: str) -> None:
    """One line on stderr, if anybody listens."""
    with contextlib.suppress(OSError):
        print(f"hyperctl: {text}", file=sys.stderr)
