# SPDX-License-Identifier: Apache-2.0
"""Helper programs, which end with their caller, started by the daemon's jail: what each gets is in its order.

The jail is one for the whole process, as the range of `users` is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import Unavailable
from ..sys import process, tasks
from ..sys.process import Finished
from . import seccomp
from .jail import Entry, Jail, Limits, Order, Started
from .libraries import libraries
from .plain import PlainJail

_CHUNK = 1 << 16  # bytes
_LINE = 1 << 20  # bytes that a line of output may have for who reads lines
_ERRORS_MAX = 1 << 16  # bytes that are kept of the end of what a helper complains of
DEVICES = (Path("/dev/null"), Path("/dev/urandom"))
_LIMITS = Limits()
_jail: Jail = PlainJail()


def use(jail: Jail) -> None:
    """Start helpers by this one from now on."""
    global _jail
    _jail = jail


def jail() -> Jail:
    """The one in use."""
    return _jail


def user(own: int) -> int:
    """`own` where a jail hands a helper its files; else hyperd's, which can reach them."""
    return own if _jail.confines else os.geteuid()


def find(name: str) -> Path:
    """:raise Unavailable: it is not installed."""
    if found := shutil.which(name):
        return Path(found)
    raise Unavailable(f"{name} is not installed", hint=f"install the package that has {name}")


def program(binary: Path) -> tuple[Entry, ...]:
    """What is to be seen of a program itself: it, and what its loader loads."""
    return tuple(map(Entry, dict.fromkeys((binary, *libraries(binary)))))


def order(
    binary: Path, *args: str | Path, files: tuple[Entry, ...] = (), environment: Mapping[str, str] | None = None,
    own_user: int = 0, limits: Limits = _LIMITS,
) -> Order:  # fmt: skip
    """What every helper gets: its libraries, two devices, no capability, no network, no call that none needs."""
    return Order(
        args=(str(binary), *map(str, args)),
        user=user(own_user),
        output=-1,
        files=(*program(binary), *files),
        devices=DEVICES,
        environment={"PATH": os.environ.get("PATH", os.defpath), **(environment or {})},
        limits=limits,
        first_filter=seccomp.refusals(),
        dies_with_us=True,
    )


class Helper:
    """A helper that runs, or has ended."""

    def __init__(self, started: Started, output: asyncio.StreamReader, errors: asyncio.StreamReader) -> None:
        self.output = output
        self.pid = started.pid
        self._complaints = errors
        self._errors = b""
        self._reading = asyncio.ensure_future(self._read_errors())
        self._ended = asyncio.ensure_future(_end_of(started))

    @property
    def errors(self) -> str:
        """The end of what it has complained of."""
        return self._errors.decode(errors="replace")

    async def _read_errors(self) -> None:
        while data := await self._complaints.read(_CHUNK):
            self._errors = (self._errors + data)[-_ERRORS_MAX:]

    async def wait(self) -> int:
        """Its exit status, -N where signal N ended it."""
        status = await asyncio.shield(self._ended)
        await asyncio.shield(self._reading)
        return status

    async def end(self) -> None:
        """Kill it where it runs; it is gone afterwards."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        await tasks.to_the_end(self._ended)
        await tasks.end({self._reading})


async def _end_of(started: Started) -> int:
    """Wait for a child by its pidfd, and reap it."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    fd = os.pidfd_open(started.pid)
    loop.add_reader(fd, _set, gone)
    try:
        await gone
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return _reap(started.pid)


def _set(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


def _reap(pid: int) -> int:
    """It has ended: this does not wait."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def _reader(fd: int, stack: contextlib.ExitStack) -> asyncio.StreamReader:
    """What comes from a pipe; the descriptor is closed with the stack."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LINE)
    pipe = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    stack.callback(transport.close)
    return reader


def _in_memory(data: bytes, stack: contextlib.ExitStack) -> int:
    fd = os.memfd_create("input", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    with os.fdopen(os.dup(fd), "wb") as f:
        f.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def reap(started: Started) -> None:
    """Some time, when it ends by itself: a child that nobody waits for."""
    loop = asyncio.get_running_loop()
    fd = os.pidfd_open(started.pid)

    def ended() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(started.pid, os.WNOHANG)

    loop.add_reader(fd, ended)


@contextlib.asynccontextmanager
async def running(
    wanted: Order, stdin: bytes = b"", *, complaints: bool = False, by: Jail | None = None
) -> AsyncIterator[Helper]:
    """A helper that does not outlive the block; what it prints comes from `output`.

    With `complaints` it is what it complains of that comes from there, and what it prints is kept as its errors.
    `by` starts it in place of the jail in use.

    :raise Unavailable: it does not start.
    """
    with contextlib.ExitStack() as stack:
        handed = contextlib.ExitStack()
        with handed:
            readers = []
            for _ in range(2):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                handed.callback(os.close, theirs)
                readers.append((await _reader(ours, stack), theirs))
            (output, out), (errors, err) = readers
            given = _in_memory(stdin, handed) if stdin else -1
            out, err = (err, out) if complaints else (out, err)
            started = await (by or _jail).spawn(replace(wanted, input=given, output=out, errors=err))
        helper = Helper(started, output, errors)
        try:
            yield helper
        finally:
            await helper.end()


async def run(wanted: Order, stdin: bytes = b"", *, by: Jail | None = None) -> Finished:
    """Run to the end and take all output; `by` as in `running`.

    :raise Unavailable: it does not start.
    """
    async with running(wanted, stdin, by=by) as helper:
        out = await helper.output.read()
        status = await helper.wait()
        return Finished(status, out.decode(errors="replace"), helper.errors)


def words(wanted: Order) -> str:
    """As its command line could be pasted into a shell."""
    return process.command_line(wanted.args)
