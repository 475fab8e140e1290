# SPDX-License-Identifier: Apache-2.0
"""The process of this host that stands for a process in a virtual machine.

Its standard streams are that one's, its exit status is that one's, signals that it gets go there, and when it is
killed that one is. It is a child of its caller's, which as a subreaper (conmon, containerd's shim) waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import termios
import time
from collections.abc import Callable
from typing import NamedTuple

from ..client.stream import PROXIED, AttachedStream, Teller
from ..client.transport import Connection
from ..errors import HyperError, InvalidState, NotFound, StartFailed, Unavailable
from ..model.frames import STDERR, STDOUT
from . import view
from .daemon import Daemon

_READY = 60.0  # seconds in which it is attached
_AWAY = 120.0  # seconds for which it waits for a hyperd that went away
_RETRY = 0.5
_FORWARDED = 5.0  # seconds in which hyperd takes a signal
_ATTACHED, _NO_PROGRAM = "attached", "exec: "
LOST = 255  # its exit status, when nobody knows that of the process


class _Output(Teller):
    """Its standard streams. Nobody has to read them: a process's output has no other place to go to then."""

    def write(self, fd: int, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                select.select([], [fd], [])
            except OSError:
                return

    def say(self, text: str) -> None:
        """Nothing: these streams are the process's alone."""


class Looks(NamedTuple):
    """What the stand-in of a container shows of it on this host; that of a further process shows nothing."""

    rootfs: str
    binds: list[view.Bind]
    namespace: str  # path of the network namespace that it is found in; "" for this one
    program: str  # is looked for, so that one that is missing is told of at once, as callers expect
    path: str
    cwd: str


OWN = -2  # in place of a descriptor: the terminal that this process has


def stand_in(daemon: Daemon, route: str, *, terminal: int = -1, looks: Looks | None = None) -> int:
    """Make one for the process of hyperd's at a `route`, which is about to be started; its number on this host.

    `terminal` is a descriptor of what its standard streams are to be, or OWN. Its father ends at once: it is a child
    of the nearest subreaper's.

    :raise HyperError: hyperd does not let it be attached. :raise StartFailed: there is no such program.
    """
    ready, told = os.pipe()
    father = os.fork()
    if father == 0:
        try:
            os.close(ready)
            if looks:
                view.new_pids()
            if (pid := os.fork()) == 0:
                _be(daemon, route, told, terminal, looks)
            os.write(told, f"{pid}\n".encode())
        except BaseException as error:
            os.write(told, f"0\n{error}".encode())
        os._exit(0)
    os.close(told)
    os.waitpid(father, 0)
    return _told(ready)


def pass_signals_on(pid: int) -> None:
    """Those that we get from now on go to a stand-in, but what we were told to ignore."""

    def tell(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in (*PROXIED, signal.SIGWINCH):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, tell)


def await_end(pid: int) -> int:
    """The exit status of one that is our child."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _told(ready: int) -> int:
    """Its number, when it is attached."""
    words, until = b"", time.monotonic() + _READY
    with open(ready, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(until - time.monotonic(), 0))[0] and (more := pipe.read(4096)):
            words += more
    # It may be faster than its father, whose line is the one that begins with a digit.
    lines = words.decode(errors="replace").splitlines()
    pid = next((int(line) for line in lines if line.isdecimal()), 0)
    said = [line for line in lines if not line.isdecimal()]
    if pid and said == [_ATTACHED]:
        return pid
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    why = " ".join(said) or "no answer"
    if why.startswith(_NO_PROGRAM):
        raise StartFailed(why, exit_status=127)
    raise Unavailable(f"the container cannot be attached to: {why}")


def _be(daemon: Daemon, route: str, told: int, terminal: int, looks: Looks | None) -> None:
    """The stand-in itself; it does not return."""
    status = LOST
    try:
        os.setsid()
        _set_up(terminal, told)
        socket = os.open(os.path.dirname(daemon.path) or ".", os.O_PATH | os.O_CLOEXEC)  # its root is another soon
        connection = daemon.attach(f"{route}/attach", early="1", bound="1")
        if looks:
            _look_like(looks)
        os.fchdir(socket)
        _on_signals(lambda number, _: os._exit(128 + number))  # until the stream takes them
        os.write(told, f"{_ATTACHED}\n".encode())
        os.close(told)
        daemon.path = os.path.basename(daemon.path)
        status = _follow(daemon, route, connection, terminal=terminal != -1)
    except (HyperError, OSError) as error:
        with contextlib.suppress(OSError):
            os.write(told, f"{error}\n".encode())
    finally:
        os._exit(status)


def _set_up(terminal: int, told: int) -> None:
    """Nothing of its parent's but the streams is kept open, so that who waits for their ends is not kept waiting."""
    if terminal >= 0:
        for fd in range(3):
            os.dup2(terminal, fd)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # from now on it hears of the terminal's sizes
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != told:
            with contextlib.suppress(OSError):
                os.close(fd)


def _look_like(looks: Looks) -> None:
    if looks.namespace:
        view.enter_network(looks.namespace)
    view.enter_root(looks.rootfs, looks.binds)
    if view.is_no_program(looks.program, looks.cwd):
        raise StartFailed(f'{_NO_PROGRAM}"{looks.program}": permission denied', exit_status=126)
    if not view.find_program(looks.program, looks.path, looks.cwd):
        place = f"stat {looks.program}: no such file or directory"  # runc's words, by which its callers know it
        where = place if "/" in looks.program else "executable file not found in $PATH"
        raise StartFailed(f'{_NO_PROGRAM}"{looks.program}": {where}', exit_status=127)


def _follow(daemon: Daemon, route: str, connection: Connection, *, terminal: bool) -> int:
    """The process's exit status."""

    def forward(number: int) -> None:
        _forward(daemon, route, number)

    while True:
        stream = AttachedStream(
            connection, _Output(), stdin=True, terminal=terminal, on_signal=forward, shown=(STDOUT, STDERR), insisted=0
        )
        try:
            return stream.run()
        except Unavailable:  # hyperd went away, and comes back to its machines
            _on_signals(signal.SIG_IGN)  # there is nobody to tell
            again = _attach_again(daemon, route)
            if isinstance(again, int):
                return again
            connection = again
        except HyperError:
            return LOST


def _on_signals(action: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in PROXIED:
        signal.signal(number, action)


def _forward(daemon: Daemon, route: str, number: int) -> None:
    """Before its process has started a signal ends the stand-in itself, as it would end that one's init."""
    try:
        daemon.call("POST", f"{route}/kill", limit=_FORWARDED, signal=str(number))
    except InvalidState:  # or its process has just ended, and how is about to be told
        if daemon.call("GET", route, limit=_FORWARDED)["state"]["status"] == "created":
            os._exit(128 + number)


def _attach_again(daemon: Daemon, route: str) -> Connection | int:
    """When there is a hyperd again; the exit status, where the process has ended meanwhile."""
    until = time.monotonic() + _AWAY
    while time.monotonic() < until:
        try:
            return daemon.attach(f"{route}/attach", bound="1")
        except Unavailable:
            time.sleep(_RETRY)
        except NotFound:
            return LOST
        except HyperError:
            return _not_running(daemon, route)
    return LOST


def _not_running(daemon: Daemon, route: str) -> Connection | int:
    """As `_attach_again`, of a container that does not run: it may be still to be started."""
    try:
        state = daemon.call("GET", route)["state"]
        if state["status"] == "created":
            return daemon.attach(f"{route}/attach", early="1", bound="1")
        return int(state["exitCode"])
    except HyperError:
        return LOST
