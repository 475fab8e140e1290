# SPDX-License-Identifier: Apache-2.0
"""An attached process: this terminal or these pipes on one side, frames on the other."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import termios
import tty

from ..errors import HyperError, InvalidArgument, Unavailable
from ..model.frames import HEADER, RESIZE, STDERR, STDIN, STDOUT
from .base import raise_known, target
from .transport import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_READ = 64 << 10
_BACKLOG = 256 << 10  # bytes of input that may wait to be sent
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
INSISTED = 3  # so many of them end this command, whatever becomes of the process; Docker's number
_FORWARDED = 5.0  # seconds in which hyperd takes a signal
PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def window_size() -> tuple[int, int]:
    """Rows and columns of the terminal on stdout, (0, 0) when there is none."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 0, 0
    return size.lines, size.columns


def require_terminal() -> None:
    """:raise InvalidArgument: when -it is used without a terminal."""
    if not sys.stdin.isatty():
        raise InvalidArgument("the input device is not a terminal", hint="leave -t out when piping input")


@contextlib.contextmanager
def raw_terminal(enabled: bool) -> Iterator[None]:
    """Keys go to the process as they are typed."""
    if not enabled or not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


class Teller:
    """Where output goes, and what there is to say."""

    def write(self, fd: int, data: memoryview) -> None:
        """All of it, to stdout or stderr. :raise OSError: with the stream's name as its file name."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Something of ours, to people."""
        raise NotImplementedError


class AttachedStream:
    """Copies until the process has ended."""

    def __init__(
        self,
        connection: Connection,
        teller: Teller,
        *,
        stdin: bool,
        terminal: bool,
        on_signal: Callable[[int], None] | None,
        shown: tuple[int, ...] = (STDOUT, STDERR),
        insisted: int = INSISTED,
    ) -> None:
        """`insisted`: so many signals to end are taken for this command itself; 0: none."""
        self._sock, early = connection.raw()
        self._sock.setblocking(False)
        self._in = bytearray(early)
        self._out = bytearray()
        self._stdin = stdin
        self._terminal = terminal
        self._shown = shown
        self._on_signal = on_signal
        self._teller = teller
        self._insisted = insisted
        self._selector = selectors.PollSelector()  # epoll refuses regular files
        self._status: int | None = None
        self._endings = 0  # signals of _ENDING that came
        self.trace: list[dict[str, Any]] = []  # spans of the daemon's, where they were asked for

    def run(self) -> int:
        """The exit code; 0 when the user typed the detach keys.

        :raise HyperError: when the process could not be started, or the daemon went away.
        """
        with raw_terminal(self._terminal), self._signals() as wake:
            self._selector.register(self._sock, selectors.EVENT_READ, self._on_socket)
            self._selector.register(wake, selectors.EVENT_READ, self._on_wake)
            if self._stdin:
                self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._on_stdin)
            self._take_frames()
            if self._terminal:  # it may have another size than the last one attached
                self._send_size()
            while self._status is None:
                for key, events in self._selector.select():
                    key.data(key.fileobj, events)
        return self._status

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Signals wake the loop through a socket; in a terminal's raw mode keys are no signals."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        wanted = list(PROXIED) if self._on_signal else []
        wanted += [signal.SIGWINCH] if self._terminal else []
        saved = {s: signal.signal(s, lambda *_: None) for s in wanted}
        old = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in saved.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

    def _on_wake(self, wake: socket.socket, _: int) -> None:
        for number in wake.recv(64):
            if number == signal.SIGWINCH:
                self._send_size()
            elif self._on_signal and number in PROXIED:
                self._proxy(number, self._on_signal)

    def _proxy(self, number: int, on_signal: Callable[[int], None]) -> None:
        name = signal.Signals(number).name
        self._endings += number in _ENDING
        if self._insisted and self._endings >= self._insisted:
            self._leave(number, f"{name} is the third signal to end")
            return
        try:
            on_signal(number)
        except (Unavailable, OSError):
            if self._insisted and number in _ENDING:
                self._leave(number, f"hyperd did not take {name} within {_FORWARDED:g} s")
        except HyperError:
            pass  # the process may just have ended

    def _leave(self, number: int, why: str) -> None:
        """End, as by the signal."""
        self._teller.say(f"{why}: this command ends, and the process may go on")
        self._status = 128 + number

    def _send_size(self) -> None:
        rows, columns = window_size()
        if rows:
            self._send(RESIZE, json.dumps({"rows": rows, "columns": columns}).encode())

    def _on_stdin(self, fd: int, _: int) -> None:
        try:
            data = os.read(fd, _READ)
        except OSError:
            data = b""
        self._send(STDIN, data)
        if not data or len(self._out) > _BACKLOG:
            self._selector.unregister(fd)
            self._stdin = bool(data)

    def _send(self, kind: int, payload: bytes) -> None:
        self._out += HEADER.pack(kind, len(payload)) + payload
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # the reading side reports it
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.modify(self._sock, wanted, self._on_socket)
        fd = sys.stdin.fileno() if self._stdin else -1
        if self._stdin and len(self._out) <= _BACKLOG and fd not in self._selector.get_map():
            self._selector.register(fd, selectors.EVENT_READ, self._on_stdin)

    def _on_socket(self, _: object, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self._sock.recv(256 << 10)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise Unavailable("hyperd closed the connection", hint="see its log; the container may still run")
        self._in += data
        self._take_frames()

    def _take_frames(self) -> None:
        at, view = 0, memoryview(self._in)
        try:
            while len(view) - at >= HEADER.size:
                kind, length = HEADER.unpack_from(view, at)
                end = at + HEADER.size + length
                if len(view) < end:
                    break
                self._take(kind, view[at + HEADER.size : end])
                at = end
        finally:
            view.release()
        del self._in[:at]

    def _take(self, kind: int, payload: memoryview) -> None:
        if kind in (STDOUT, STDERR):
            with payload:
                if kind in self._shown:
                    self._teller.write(kind, payload)
            return
        status = json.loads(bytes(payload))
        payload.release()
        if "error" in status:
            raise_known(status["error"])
        if status.get("message"):
            self._teller.say(status["message"])
        self.trace = status.get("trace", [])
        if status.get("detached"):
            print("\ndetached; the process goes on", file=sys.stderr)
        self._status = int(status["exitCode"])


def forwarding(path: str, route: str) -> Callable[[int], None]:
    """Sends signals to the process at a `route`."""

    def forward(number: int) -> None:
        with Connection(path, _FORWARDED) as other:
            other.request("POST", target(f"{route}/kill", {"signal": signal.Signals(number).name}), {}).read()

    return forward
