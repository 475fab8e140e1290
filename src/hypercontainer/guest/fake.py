# SPDX-License-Identifier: Apache-2.0
"""A guest in this process that speaks the real protocol, with programs written in Python.

It is what hyperstart is to the engine's tests: connections with tokens, requests,
streams with credit, processes that outlive a connection. It has no disks and no
network; what it is told of them it keeps, for a test to look at.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import replace
from typing import NamedTuple

from ..protocol.constants import FIRST_TOKEN, VERSION, Builtin, Capability, GuestCode, Tag, Type
from ..protocol.streams import decode_data, decode_window
from ..protocol.wire import (
    Attrs,
    Frame,
    encode_attrs,
    text,
)
from ..sys import clock
from .fake_process import FakeContainer, FakeProcess, Program
from .fake_programs import PROGRAMS, run_builtin
from .fake_wire import RequestAttrs, Wire

_NO_SUCH = 127  # exit status of a program that is not there


class Refused(Exception):
    """An answer of ERROR."""

    def __init__(self, code: GuestCode, message: str, *, number: int = 0, status: int = 0) -> None:
        super().__init__(message)
        self.attrs: Attrs = [(Tag.CODE, int(code)), (Tag.ERRNO, number), (Tag.MESSAGE, message)]
        self.attrs += [(Tag.EXIT_STATUS, status)] if status else []


class SavedGuest(NamedTuple):
    """A guest at rest."""

    token: bytes
    pid: int
    containers: dict[str, FakeContainer]
    processes: list[FakeProcess]
    volumes: dict[str, str]
    interfaces: dict[str, tuple[str, ...]]


class FakeGuest:
    """One guest, from its boot until `power_off`."""

    def __init__(self, programs: Mapping[str, Program] | None = None) -> None:
        self.programs = {**PROGRAMS, **(programs or {})}
        self.containers: dict[str, FakeContainer] = {}
        self.processes: dict[int, FakeProcess] = {}
        self.volumes: dict[str, str] = {}  # mounted: name -> source
        self.held: set[str] = set()  # of these, those that are frozen
        self.hostname = ""
        self.interfaces: dict[str, tuple[str, ...]] = {}  # addresses by name
        self.gateways: dict[str, tuple[str, ...]] = {}  # of default routes
        self.silent: set[int] = set()  # types of requests that it does not answer; HELLO is one
        self.refused: dict[int, Refused] = {}  # by type of request
        self.failing: dict[Builtin, tuple[int, str]] = {}  # status and last words of what it does itself
        self.servers: dict[int, Program] = {}  # by the port on which they listen: a program for each connection
        self.asked: list[int] = []  # types of all requests that came
        self.shut_down = False
        self.severed = 0  # times that its connections were reset
        self.reports = True  # of free pages
        self.capabilities: Capability | None = ~Capability(0)  # None: as of a hyperstart that does not know the word
        self._token = FIRST_TOKEN
        self._pid = 1
        self._wire: Wire | None = None
        self._paused = False
        self._began = clock.seconds()

    # -- the machine's side -----------------------------------------------------------

    def connect(self, sock: socket.socket, closed: Callable[[], None]) -> None:
        """Take a connection, instead of an earlier one; `closed` is called when the host has ended it."""
        self.disconnect()
        self._wire = Wire(self, sock, self._token, closed, paused=self._paused)

    def disconnect(self) -> None:
        if self._wire:
            self._wire.close()
            self._wire = None

    def break_protocol(self) -> None:
        """As a guest that was taken over may."""
        if self._wire:
            self._wire.send_nonsense()

    def pause(self) -> None:
        """Nothing is read or written; time goes on, as it does for a machine that catches up."""
        self._paused = True
        if self._wire:
            self._wire.pause()

    def resume(self) -> None:
        self._paused = False
        if self._wire:
            self._wire.resume()

    def power_off(self) -> None:
        """Idempotent."""
        for process in self.processes.values():
            process.vanish()
        self.disconnect()

    def saved(self) -> SavedGuest:
        """What another guest goes on from."""
        containers = {id_: c.copy() for id_, c in self.containers.items()}
        processes = [p.copy(self) for p in self.processes.values()]
        return SavedGuest(self._token, self._pid, containers, processes, dict(self.volumes), dict(self.interfaces))

    def restore(self, saved: SavedGuest) -> None:
        """Go on from there, before the first connection: with programs that begin anew, and output that was kept."""
        self._token, self._pid = saved.token, saved.pid
        self.containers = {id_: c.copy() for id_, c in saved.containers.items()}
        self.volumes, self.interfaces = dict(saved.volumes), dict(saved.interfaces)
        for process in saved.processes:
            self.processes[process.id] = mine = process.copy(self)
            if mine.program and not mine.exit:
                asyncio.get_running_loop().call_soon(mine.begin, mine.program, context=Context())

    # -- for its processes --------------------------------------------------------------

    def send(self, type_: int, id_: int, body: bytes) -> None:
        if self._wire:
            self._wire.send(type_, id_, body)

    def frozen(self, container: str) -> asyncio.Event | None:
        found = self.containers.get(container)
        return found.frozen if found else None

    def ended(self, process: FakeProcess) -> None:
        """With a container's main process all of it ends."""
        if process.exit and process.exit.oom and process.container:
            self.send(Type.OOM, 0, encode_attrs([(Tag.CONTAINER, process.container), (Tag.OOM, 1)]))
        for other in list(self.processes.values()) if process.main else ():
            if other.container == process.container:
                other.signal(signal.SIGKILL)

    def alive(self, container: str = "") -> list[FakeProcess]:
        """Its living processes; of all containers for ""."""
        return [p for p in self.processes.values() if not p.exit and container in ("", p.container)]

    # -- requests -------------------------------------------------------------------------

    def on_frame(self, frame: Frame) -> None:
        if frame.type in (Type.DATA, Type.WINDOW):
            if process := self.processes.get(frame.id):
                self._on_stream(process, frame)
            return
        self.asked.append(frame.type)
        if frame.type in self.silent:
            return
        try:
            if refusal := self.refused.get(frame.type):
                raise refusal
            self._HANDLERS[frame.type](self, frame, RequestAttrs(frame.body))
        except Refused as refusal:
            self.send(Type.ERROR, frame.id, encode_attrs(refusal.attrs))

    def _on_stream(self, process: FakeProcess, frame: Frame) -> None:
        if frame.type == Type.DATA:
            process.stdin.take(decode_data(frame.body))
            process.tell_window()
        else:
            window = decode_window(frame.body)
            process.outputs[window.stream].grant(window)
            process.push()

    def _reply(self, frame: Frame, attrs: Attrs | None = None) -> None:
        self.send(Type.REPLY, frame.id, encode_attrs(attrs or []))

    def _hello(self, frame: Frame, attrs: RequestAttrs) -> None:
        self._token = attrs.raw(Tag.TOKEN)
        uptime = int((clock.seconds() - self._began) * 1000)
        answer: Attrs = [(Tag.VERSION, VERSION), (Tag.KERNEL, "6.1-fake"), (Tag.VALUE, "fake"), (Tag.UPTIME_MS, uptime)]
        if self.capabilities is not None:
            answer.append((Tag.CAPABILITIES, int(self.capabilities)))
        for process in self.processes.values():
            process.stdin.rewind()
            for output in process.outputs.values():
                output.rewind()
            answer.append((Tag.PROCESS, process.known()))
        self._reply(frame, answer)
        for process in self.processes.values():
            process.tell_window()

    def _pod_setup(self, frame: Frame, attrs: RequestAttrs) -> None:
        self.hostname = attrs.text(Tag.HOSTNAME) or self.hostname
        self.severed += attrs.number(Tag.SEVER)
        if attrs.raw(Tag.BALLOON):
            self.reports = attrs.number(Tag.BALLOON) != 0
        for body in attrs.all(Tag.INTERFACE):
            interface = RequestAttrs(body)
            name = interface.text(Tag.NAME)
            if interface.number(Tag.DOWN):
                self.interfaces.pop(name, None)
                self.gateways.pop(name, None)
            else:
                self.interfaces[name] = tuple(text(a) for a in interface.all(Tag.ADDRESS))
                if gateways := tuple(text(g) for g in interface.all(Tag.GATEWAY)):
                    self.gateways[name] = gateways
        self._reply(frame)

    def _create(self, frame: Frame, attrs: RequestAttrs) -> None:
        self._check_running()
        id_ = attrs.text(Tag.ID)
        if id_ in self.containers:
            raise Refused(GuestCode.EXISTS, f"container {id_} exists", number=errno.EEXIST)
        files = {text(f.raw(Tag.TARGET)): f.raw(Tag.CONTENT) for f in map(RequestAttrs, attrs.all(Tag.FILE))}
        if prepared := attrs.text(Tag.PREPARED):
            made = self._container(prepared)
            del self.containers[prepared]
            self.containers[id_] = replace(made, id=id_, files=files)
            for process in self.processes.values():
                if process.container == prepared:
                    process.container = id_
        else:
            disks = attrs.text(Tag.IMAGE_DISK), attrs.text(Tag.SCRATCH_DISK)
            self.containers[id_] = FakeContainer(id_, *disks, files)
        self._reply(frame)

    def _delete(self, frame: Frame, attrs: RequestAttrs) -> None:
        container = self._container(attrs.text(Tag.ID))
        if self.alive(container.id):
            raise Refused(GuestCode.STATE, f"container {container.id} has running processes", number=errno.EBUSY)
        del self.containers[container.id]
        self._reply(frame)

    def _freeze(self, frame: Frame, attrs: RequestAttrs) -> None:
        container = self._container(attrs.text(Tag.ID))
        if attrs.number(Tag.FREEZE):
            container.frozen = container.frozen or asyncio.Event()
        elif container.frozen:
            event, container.frozen = container.frozen, None
            event.set()
        self._reply(frame)

    def _limit(self, frame: Frame, attrs: RequestAttrs) -> None:
        container = self._container(attrs.text(Tag.ID))
        for tag in (Tag.MEMORY_MAX, Tag.CPU_MAX, Tag.PIDS_MAX):
            if attrs.raw(tag):
                container.limits[tag] = attrs.number(tag)
        self._reply(frame)

    def _start(self, frame: Frame, attrs: RequestAttrs) -> None:
        self._check_running()
        container = attrs.text(Tag.CONTAINER)
        if container:
            self._container(container)
        if frame.id in self.processes:
            raise Refused(GuestCode.EXISTS, f"process {frame.id} exists", number=errno.EEXIST)
        args = tuple(text(a) for a in attrs.all(Tag.ARG))
        if attrs.number(Tag.MAIN) and any(p.main for p in self.alive(container)):
            raise Refused(GuestCode.STATE, f"container {container} has a main process")
        self._pid += 1
        process = FakeProcess(self, frame.id, self._pid, args, container)
        process.env = dict(text(e).partition("=")[::2] for e in attrs.all(Tag.ENV))
        process.main, process.tty = bool(attrs.number(Tag.MAIN)), bool(attrs.number(Tag.TTY))
        process.size = attrs.number(Tag.ROWS), attrs.number(Tag.COLUMNS)
        if attrs.number(Tag.STDIN):
            process.stdin.eof = process.stdin.closed = False
        program = self._program(attrs, args)
        self.processes[frame.id] = process
        user, _, group = attrs.text(Tag.USER).partition(":")
        uid, gid = (int(n) if n.isdecimal() else 0 for n in (user, group))
        groups: Attrs = [(Tag.GROUP, text(g)) for g in attrs.all(Tag.GROUP)]
        self._reply(frame, [(Tag.PID, process.pid), (Tag.UID, uid), (Tag.GID, gid), *groups])
        process.tell_window()
        process.begin(program)

    def _program(self, attrs: RequestAttrs, args: tuple[str, ...]) -> Program:
        if kind := attrs.number(Tag.BUILTIN):
            return lambda p: run_builtin(self, Builtin(kind), p)
        if not args or args[0] not in self.programs:
            raise Refused(
                GuestCode.EXEC, f'exec: "{args[0] if args else ""}": executable file not found in $PATH',
                number=errno.ENOENT, status=_NO_SUCH,
            )  # fmt: skip
        return self.programs[args[0]]

    def _signal(self, frame: Frame, attrs: RequestAttrs) -> None:
        process = self._process(attrs.number(Tag.ID))
        found = self.alive(process.container) if attrs.number(Tag.ALL) == 1 else [process]
        for one in found:
            one.signal(attrs.number(Tag.SIGNAL))
        self._reply(frame)

    def _resize(self, frame: Frame, attrs: RequestAttrs) -> None:
        process = self._process(attrs.number(Tag.ID))
        if not process.tty:
            raise Refused(GuestCode.STATE, "the process has no terminal", number=errno.ENOTTY)
        process.size = attrs.number(Tag.ROWS), attrs.number(Tag.COLUMNS)
        self._reply(frame)

    def _release(self, frame: Frame, attrs: RequestAttrs) -> None:
        process = self._process(attrs.number(Tag.ID))
        if not process.exit:
            raise Refused(GuestCode.STATE, f"process {process.id} runs")
        del self.processes[process.id]
        self._reply(frame)

    def _stats(self, frame: Frame, attrs: RequestAttrs) -> None:
        answer: Attrs = [(Tag.MEM_TOTAL, 256 << 20), (Tag.MEM_FREE, 200 << 20), (Tag.RX_BYTES, 0), (Tag.TX_BYTES, 0)]
        for name in self.interfaces:
            counters = "100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0"
            answer.append((Tag.INTERFACE, [(Tag.NAME, name), (Tag.VALUE, counters)]))
        for c in self.containers.values():
            inner: Attrs = [(Tag.CONTAINER, c.id), (Tag.MEMORY, 1 << 20), (Tag.CPU_USEC, 1000)]
            inner += [(Tag.PIDS, len(self.alive(c.id))), (Tag.MEMORY_STAT, "anon 900000\ninactive_file 4096\n")]
            inner += [(Tag.CPU_STAT, "usage_usec 1000\nuser_usec 600\nsystem_usec 400\nnr_periods 7\nnr_throttled 2\n")]
            inner += [(Tag.IO_STAT, "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n")]
            answer.append((Tag.STATS, inner))
        self._reply(frame, answer)

    def _list(self, frame: Frame, attrs: RequestAttrs) -> None:
        wanted = attrs.text(Tag.CONTAINER)
        if wanted:
            self._container(wanted)
        answer: Attrs = []
        for p in self.alive(wanted):
            one: Attrs = [(Tag.PID, p.pid), (Tag.PPID, 1), (Tag.UID, 0), (Tag.START_MS, 0), (Tag.CPU_MS, 0)]
            answer.append((Tag.PROCESS, [*one, (Tag.CONTAINER, p.container), (Tag.ARG, " ".join(p.args))]))
        self._reply(frame, answer)

    def _shutdown(self, frame: Frame, attrs: RequestAttrs) -> None:
        self.shut_down = True
        for process in self.alive():
            process.signal(signal.SIGKILL)
        self._reply(frame)

    def _check_running(self) -> None:
        if self.shut_down:
            raise Refused(GuestCode.STATE, "the machine is being shut down")

    def _container(self, id_: str) -> FakeContainer:
        if id_ not in self.containers:
            raise Refused(GuestCode.NOT_FOUND, f"no container {id_}", number=errno.ENOENT)
        return self.containers[id_]

    def _process(self, id_: int) -> FakeProcess:
        if id_ not in self.processes:
            raise Refused(GuestCode.NOT_FOUND, f"no process {id_}", number=errno.ESRCH)
        return self.processes[id_]

    _HANDLERS: Mapping[int, Callable[[FakeGuest, Frame, RequestAttrs], None]] = {
        Type.HELLO: _hello, Type.POD_SETUP: _pod_setup, Type.CONTAINER_CREATE: _create, Type.CONTAINER_DELETE: _delete,
        Type.CONTAINER_FREEZE: _freeze, Type.CONTAINER_LIMIT: _limit,
        Type.PROCESS_START: _start, Type.PROCESS_SIGNAL: _signal,
        Type.PROCESS_RESIZE: _resize, Type.PROCESS_RELEASE: _release, Type.STATS: _stats, Type.PROCESS_LIST: _list,
        Type.SHUTDOWN: _shutdown,
    }  # fmt: skip
