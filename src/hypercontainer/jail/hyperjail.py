# SPDX-License-Identifier: Apache-2.0
"""A jail of namespaces, by the program hyperjail (hyperjail/src): docs/jail.md says what holds in it.

As root each program has a user of its own; a user's daemon does the same in a
user namespace, where the host allows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import Unavailable, Unsupported
from ..sys import process, tasks, users
from ..sys.confine import entrance
from .binaries import REINSTALL, START, binary, start
from .jail import Born, Entry, Order, Started, ignore

_PROBE_USER = 65534
_FILTER = "/hyperjail-filter.so"
_READ = 4096
_UNKNOWN_WORD = re.compile(r"cannot understand ([a-z-]+): ")  # what option() of hyperjail/src/main.c says


class HyperJail:
    """`place` is a directory of the daemon's own, where nothing else is."""

    confines = True

    def __init__(self, place: Path) -> None:
        self._place = place
        self._hindrance: str | None = None

    def hindrance(self) -> str:
        if self._hindrance is None:
            try:
                self._hindrance = self._try()
            except Unavailable as error:
                self._hindrance = error.message
        return self._hindrance

    def _try(self) -> str:
        """Start hyperjail itself, which then does nothing, and hear what it reports."""
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = Order(("/hyperjail", "nothing"), _PROBE_USER, -1, files=(Entry(binary(), "/hyperjail"),))
        with contextlib.ExitStack() as stack:
            report, theirs = socket.socketpair()
            stack.callback(report.close)
            stack.callback(theirs.close)
            args, environment, fds = self._arguments(order, theirs.fileno(), stack)
            helper = subprocess.run(args, pass_fds=fds, env=environment, timeout=START, check=False)
            theirs.close()
            text = b"".join(iter(lambda: report.recv(_READ), b"")).decode(errors="replace")
        lines = dict(line.split(" ", 1) for line in text.splitlines())
        if pid := int(lines.get("pid", 0)):
            _, status = os.waitpid(pid, 0)
            return lines.get("error", f"its program ended with status {status}" if status else "")
        if "error" not in lines:
            return f"hyperjail ended with status {helper.returncode}"
        return f"{found}; {REINSTALL}" if (found := _another_version(lines["error"])) else lines["error"]

    async def spawn(self, order: Order, born: Born = ignore) -> Started:
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            report, theirs = socket.socketpair()
            stack.callback(report.close)
            stack.callback(theirs.close)
            args, environment, fds = self._arguments(order, theirs.fileno(), stack)
            helper = start(args, order, environment, fds)
            theirs.close()
            return await _Start(helper, report, filtered=bool(order.filter)).finish(born)

    async def add(self, started: Started, entry: Entry) -> None:
        await self._show(started, "add", entry)

    async def remove(self, started: Started, place: str) -> None:
        await self._hide(started, "remove", place)

    async def cover(self, started: Started, entry: Entry) -> None:
        await self._show(started, "cover", entry)

    async def uncover(self, started: Started, place: str) -> None:
        await self._hide(started, "uncover", place)

    async def _show(self, started: Started, verb: str, entry: Entry) -> None:
        if os.geteuid():
            raise Unsupported(f"only root's hyperd can show {entry.source} to a program that runs")
        how = "write" if entry.writable else "read"
        await self._later(started, entry.source, verb, how, entry.source, entry.place)

    async def _hide(self, started: Started, verb: str, place: str) -> None:
        if os.geteuid():
            raise Unsupported(f"only root's hyperd can take {place} from a program that runs")
        await self._later(started, place, verb, place)

    async def _later(self, started: Started, what: str | Path, verb: str, *words: str | Path) -> None:
        """Change what a program that runs is shown."""
        with contextlib.ExitStack() as stack:
            namespace = _mount_namespace(started, stack)
            given = ("2", verb, str(namespace), *words)
            try:
                done = await tasks.within(process.run(binary(), *given, descriptors=[namespace]), START)
            except TimeoutError:
                raise Unavailable(f"{what}: `hyperjail {verb}` was not done within {START:g} s") from None
        if done.status:
            why = done.stderr.removeprefix("error ").strip()
            raise Unavailable(_another_version(why) or f"the jail {why}")

    def _arguments(
        self, order: Order, report: int, stack: contextlib.ExitStack
    ) -> tuple[list[str], dict[str, str], list[int]]:
        """Command line, environment and further descriptors of hyperjail."""
        environment, fds, words = dict(order.environment), [report], self._words(order)
        if order.first_filter:
            fds.append(_in_memory(order.first_filter, stack))
            words += ["filter", str(fds[-1])]
        if order.filter:
            fds.append(fd := _in_memory(order.filter, stack))
            environment |= {"LD_PRELOAD": _FILTER, "HYPERJAIL_FILTER": f"{report},{fd}"}
            words += ["keep-report", *_entry(Entry(binary("hyperjail-filter"), _FILTER))]
        return [*_mapping(order), str(binary()), str(report), *words, "--", *order.args], environment, fds

    def _words(self, order: Order) -> list[str]:
        root = os.geteuid() == 0
        words = ["root", str(self._place), "name", "jail", "proc"]
        namespace = ["mapped" if order.subordinate else "user-namespace"]
        words += ["user", str(order.user), str(order.user)] if root else namespace
        flags = {
            "host-network": order.host_network,
            "settings": order.settings == "read",
            "write-settings": order.settings == "write",
            "nested": order.nested,
            "die-with-parent": order.dies_with_us,
        }
        words += [word for word, wanted in flags.items() if wanted]
        for capability in sorted(order.capabilities):
            words += ["capability", str(capability)]
        for group in order.groups if root else ():
            words += ["group", str(group)]
        for entry in order.files:
            words += _entry(entry)
        for empty in order.directories:
            words += ["directory", empty]
        words += ["late", order.late] if order.late else []
        for device in order.devices:
            words += ["device", str(device), str(device)]
        for which, value in _limits(order):
            words += ["limit", str(which), str(value)]
        for directory in order.control_groups:
            words += ["cgroup", str(entrance(directory))]
        return words


def _mount_namespace(started: Started, stack: contextlib.ExitStack) -> int:
    """A descriptor of that of a program.

    :raise Unavailable: it has ended.
    """
    try:
        fd = os.open(f"/proc/{started.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
    except OSError:
        fd = -1
    if fd < 0 or process.start_time(started.pid) != started.started:
        raise Unavailable("the program that serves it has ended")
    return fd


def _mapping(order: Order) -> list[str]:
    """What makes a user namespace with more than one user; hyperjail has no rights to."""
    if os.geteuid() == 0 or not order.subordinate:
        return []
    return ["unshare", "--user", "--map-root-user", *(["--map-auto"] if users.have_subordinates() else []), "--"]


def _another_version(why: str) -> str:
    """A sentence where hyperjail does not know a word of ours; else "".

    Words are only ever added to it: one that is newer than this hyperd does all that it is told.
    """
    unknown = _UNKNOWN_WORD.match(why)
    return f'hyperjail is of another version than hyperd: it does not know "{unknown[1]}"' if unknown else ""


def _in_memory(data: bytes, stack: contextlib.ExitStack) -> int:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, data)
    return fd


def _entry(entry: Entry) -> list[str]:
    return ["write" if entry.writable else "read", str(entry.source), entry.place]


def _limits(order: Order) -> Iterator[tuple[int, int]]:
    yield resource.RLIMIT_CORE, 0
    yield resource.RLIMIT_NOFILE, order.limits.descriptors
    if order.limits.file_size >= 0:
        yield resource.RLIMIT_FSIZE, order.limits.file_size
    if order.limits.processes >= 0 and os.geteuid() == 0:  # a user's own processes count, too
        yield resource.RLIMIT_NPROC, order.limits.processes
    if order.limits.stack >= 0:
        yield resource.RLIMIT_STACK, order.limits.stack
    if order.limits.locked_memory >= 0:
        yield resource.RLIMIT_MEMLOCK, order.limits.locked_memory


class _Start:
    """One start, as hyperjail and the filter report it."""

    def __init__(self, helper: subprocess.Popen[bytes], report: socket.socket, *, filtered: bool) -> None:
        self._helper = helper
        self._filtered = filtered
        self._report = report
        self._report.setblocking(False)
        self._text = b""

    async def finish(self, born: Callable[[Started], None]) -> Started:
        try:
            # Whoever gives up meanwhile waits until it is known which process is to be ended.
            await tasks.to_the_end(tasks.within(self._read(b"\n"), START))
            started = self._begun()
            born(started)
            await tasks.within(self._read(b"\nready\n"), START)
        except TimeoutError:
            self._end()
            raise Unavailable(f"a program did not start in its jail within {START:g} s") from None
        except BaseException:
            self._end()
            raise
        if b"\nerror " in self._text:
            self._end()
            raise self._trouble()
        if self._filtered and b"\nready\n" not in self._text:
            # Only its end closes the report without that word; what does so by itself must not go on.
            process.kill(*started)
        return started

    async def _read(self, end: bytes) -> None:
        """The report until this, or until it ends."""
        loop = asyncio.get_running_loop()
        while end not in self._text and (data := await loop.sock_recv(self._report, _READ)):
            self._text += data

    def _begun(self) -> Started:
        """:raise Unavailable: there is no process."""
        self._helper.wait()  # it ends when the process is there
        if not self._pid:
            raise self._trouble()
        return Started(self._pid, process.start_time(self._pid))

    @property
    def _pid(self) -> int:
        """The process's number, as soon as it was reported; 0 before that, and when there is none."""
        line, end, _ = self._text.partition(b"\n")
        return int(line.removeprefix(b"pid ")) if end and line.startswith(b"pid ") else 0

    def _trouble(self) -> Unavailable:
        text = self._text.decode(errors="replace")
        for line in text.splitlines():
            if line.startswith("error "):
                why = line.removeprefix("error ")
                if found := _another_version(why):
                    return Unavailable(found, hint=REINSTALL)
                return Unavailable(f"the jail {why}")
        return Unavailable(f"hyperjail ended with status {self._helper.returncode}")

    def _end(self) -> None:
        """Nothing may be left."""
        if self._helper.returncode is None:  # hyperjail itself hangs
            self._helper.kill()
        self._helper.wait()
        if pid := self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
