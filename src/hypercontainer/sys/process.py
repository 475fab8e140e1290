# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with their caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Unavailable
from . import tasks
from .proc import start_time as start_time


class Finished(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def command_line(args: Sequence[str | Path]) -> str:
    """As it could be pasted into a shell."""
    return shlex.join(str(a) for a in args)


@contextlib.asynccontextmanager
async def child(*args: str | Path, **kwargs: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that does not outlive the block.

    :raise Unavailable: when the program is not installed.
    """
    try:
        process = await asyncio.create_subprocess_exec(*map(str, args), **kwargs)
    except FileNotFoundError:
        raise Unavailable(f"{args[0]} is not installed", hint=f"install the package that has {args[0]}") from None
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # asyncio may have stopped reading what is not read to its end: it would never see that end,
            # nor report the process's. (To close all of the transport would reap the child beside asyncio's watcher.)
            for fd in range(3):
                if pipe := process._transport.get_pipe_transport(fd):  # type: ignore[attr-defined]
                    pipe.close()
            await tasks.to_the_end(process.wait())


async def run(*args: str | Path, stdin: bytes | None = None, descriptors: Sequence[int] = ()) -> Finished:
    """Run to the end and take all output; it has these descriptors, too.

    The command has all of its input from the beginning: it does not take a part of it for the whole when we die.
    """
    pipe = asyncio.subprocess.PIPE
    with open(os.memfd_create("stdin"), "w+b", buffering=0) as source:
        source.write(stdin or b"")
        source.seek(0)
        async with child(*args, stdin=source, stdout=pipe, stderr=pipe, pass_fds=descriptors) as process:
            out, err = await process.communicate()
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def kill(pid: int, started: int, sig: int = signal.SIGKILL) -> None:
    """Signal a process, unless its number belongs to another by now."""
    if pid > 0 and start_time(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)


MACHINE = "HYPER_MACHINE"  # in the environment of a hypervisor: the directory with which its machine was launched


def with_variable(name: str) -> Iterator[tuple[int, str]]:
    """Living processes started with an environment variable, and its value; of this user, or of all for root."""
    return ((pid, found[name]) for pid, found in environments(name))


def environments(name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Of living processes started with an environment variable: all of it, at one instant; of this user, or of all for
    root.
    """
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and name in (found := environment(int(entry.name))):
            yield int(entry.name), found


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty when that is not to be seen, as while it becomes another program."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another's
        return {}
    found: dict[str, str] = {}
    for name, _, value in (os.fsdecode(v).partition("=") for v in variables):
        found.setdefault(name, value)  # the first of a name is the one that it has (getenv(3))
    return found


def variable(pid: int, name: str) -> str | None:
    """What a process had in its environment when it was started; None when that is not to be seen."""
    return environment(pid).get(name)


def real_user(pid: int) -> int:
    """Who started it, whatever it has become by a program with the set-user-ID bit; -1 when it has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Uid:"))
    return -1


def cpu_model() -> str:
    """This host's processor with its features, as /proc/cpuinfo has them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "; ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def file_size_limit(pid: int) -> int:
    """How long, in bytes, a file may become by what a process writes; -1: as long as it likes.

    By proc(5), since getrlimit of another user's process takes CAP_SYS_RESOURCE.

    :raise ProcessLookupError: there is no such process.
    """
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    soft = next(line for line in lines if line.startswith("Max file size")).split()[3]
    return -1 if soft == "unlimited" else int(soft)


def has_capability(number: int) -> bool:
    """Whether this process may use one of capabilities(7) now; numbers are those of linux/capability.h."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)
