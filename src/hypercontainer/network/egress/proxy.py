# SPDX-License-Identifier: Apache-2.0
"""A pod's proxy, as hyperd sees it: a process without rights (`worker`), started with the pod's first connection.

It ends when it has none for a while, and with its pod; one that dies is started anew by the next connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec

from ...errors import HyperError
from ...jail import helpers, interpreter
from ...jail.jail import Order
from ...sys import tasks
from ..passt import RunsAs
from . import authority, messages
from .messages import Intercepted, Job, Message
from .refused import Refused
from .worker import CONNECTIONS_MAX

log = logging.getLogger(__name__)
IDLE = 60.0  # seconds without a connection, after which the process ends
_AGAIN = 1.0  # seconds after a process's end in which none is started
_ENDS = 5.0  # seconds in which a connection has ended that is to end
_AT_ONCE = 64  # messages that are read before others of the daemon have their turn
_SNDBUFFORCE = 32  # SO_SNDBUFFORCE of asm-generic/socket.h
_BUFFER = 1 << 20  # bytes of messages that may wait


@dataclass(frozen=True)
class Asks:
    """What a proxy asks of its host."""

    open: Callable[[str, int], Awaitable[socket.socket]]  # a host and a port; it raises `Refused`
    refused: Callable[[Refused], None]  # it is told
    runs_as: Callable[[], RunsAs]
    intercepted: Callable[[], list[Intercepted]]  # what it answers for itself, with secrets
    moved: Callable[[int, int], None]  # bytes to the pod and from it: it is told


class Proxy:
    """One pod's."""

    def __init__(self, name: str, asks: Asks) -> None:
        """`name` is the pod's, for messages."""
        self._name = name
        self._asks = asks
        self._channel: socket.socket | None = None
        self._runs: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()  # of processes that had nothing to do
        self._open: set[int] = set()  # connections that it has, by their numbers
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._leads: dict[int, tuple[str, int]] = {}  # to which host and port a connection leads
        self._overdue: dict[int, asyncio.TimerHandle] = {}  # connections that are to end
        self._number = 0
        self._idle: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    def take(self, sock: socket.socket, port: int) -> None:
        """A connection of the pod's to that port of somebody; the socket is closed here.

        :raise Refused: it has as many as it may, or its process has just died.
        """
        with sock:
            if len(self._open) >= CONNECTIONS_MAX:
                raise Refused(f"it has {CONNECTIONS_MAX} connections", port=port)
            if self._channel is None:
                self._begin(port)
            assert self._channel
            self._number += 1
            try:
                messages.send(self._channel, Message("serve", self._number, port=port), sock.fileno())
            except OSError as error:
                raise Refused("its proxy takes no more connections now", port=port) from error
            self._open.add(self._number)

    def _begin(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            raise Refused("its proxy has just ended, and is started again in a second", port=port)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with contextlib.suppress(OSError):  # without root it has the host's size
            ours.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, _BUFFER)
        self._channel = ours
        loop.add_reader(ours, self._hear, ours)
        self._runs = asyncio.ensure_future(self._run(ours, theirs))

    async def _run(self, ours: socket.socket, theirs: socket.socket) -> None:
        """What is sent before it reads waits for it."""
        try:
            with theirs:
                mine = self._asks.intercepted()
                trusted = authority.host_bundle().decode(errors="replace") if mine else ""
                stdin = msgspec.json.encode(Job(theirs.fileno(), mine, trusted))
                async with helpers.running(_order(self._asks.runs_as(), theirs.fileno()), stdin) as helper:
                    theirs.close()
                    status = await helper.wait()
            if status:
                log.warning("the proxy of pod %s has ended (%d): %s", self._name, status, helper.errors.strip()[-500:])
        except (HyperError, OSError) as error:
            log.warning("the proxy of pod %s cannot be started: %s", self._name, error)
        finally:
            self._ended(ours)

    def _ended(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(ours)
        ours.close()
        if self._channel is not ours:
            return  # it had nothing to do
        self._channel = None
        self._open.clear()
        self._leads.clear()
        for number in list(self._overdue):
            self._overdue.pop(number).cancel()
        for task in self._asked.values():
            task.cancel()
        self._not_before = loop.time() + _AGAIN

    def _hear(self, channel: socket.socket) -> None:
        """What the process says is as good as what the pod says."""
        try:
            for _ in range(_AT_ONCE):
                message, fd = messages.receive(channel)
                if fd >= 0:
                    os.close(fd)
                if message is None:
                    asyncio.get_running_loop().remove_reader(channel)
                    return
                self._heard(message)
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            log.warning("the proxy of pod %s says what none of ours does, and is ended: %s", self._name, error)
            asyncio.get_running_loop().remove_reader(channel)
            if self._runs:
                self._runs.cancel()

    def _heard(self, message: Message) -> None:
        number = message.number
        if message.kind == "moved":
            return self._asks.moved(message.received, message.sent)
        if number not in self._open:
            return
        if message.kind == "open" and number not in self._asked:
            task = asyncio.ensure_future(self._answer(message))
            self._asked[number] = task
            task.add_done_callback(lambda _: self._asked.pop(number, None))
        elif message.kind == "refused":
            self._asks.refused(Refused(message.why, message.host, message.port))
        elif message.kind == "done":
            self._open.discard(number)
            self._leads.pop(number, None)
            if overdue := self._overdue.pop(number, None):
                overdue.cancel()
            if asked := self._asked.get(number):
                asked.cancel()
            if not self._open:
                self._rest()

    async def _answer(self, message: Message) -> None:
        """A connection, or why there is none."""
        try:
            with await self._asks.open(message.host, message.port) as sock:
                self._leads[message.number] = message.host, message.port
                self._tell(Message("opened", message.number), sock.fileno())
        except Refused as refused:
            self._tell(Message("not_opened", message.number, message.host, message.port, str(refused)))

    def end(self, is_forbidden: Callable[[str, int], bool]) -> None:
        """Connections that lead to such a host and port; a process that does not end them is ended itself."""
        for number in [n for n, where in self._leads.items() if is_forbidden(*where) and n not in self._overdue]:
            host, port = self._leads[number]
            self._tell(Message("end", number))
            self._asks.refused(Refused("the pod may not reach it any more", host, port))
            self._overdue[number] = asyncio.get_running_loop().call_later(_ENDS, self._end_process, number)

    def _end_process(self, number: int) -> None:
        log.warning("the proxy of pod %s has not ended connection %d, and is ended", self._name, number)
        if self._runs:
            self._runs.cancel()

    def _tell(self, message: Message, fd: int = -1) -> None:
        if self._channel:
            with contextlib.suppress(OSError):  # it does not wait for ever
                messages.send(self._channel, message, fd)

    def _rest(self) -> None:
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._open and self._channel and self._runs:
            self._channel = None  # the next connection has a process of its own
            self._leaving.add(self._runs)
            self._runs.add_done_callback(self._leaving.discard)
            self._runs.cancel()
            self._runs = None

    async def close(self) -> None:
        """Its process has ended. Idempotent."""
        for timer in (self._idle, *self._overdue.values()):
            if timer:
                timer.cancel()
        await tasks.end(self._leaving | ({self._runs} if self._runs else set()))
        await tasks.end(set(self._asked.values()))


def _order(runs_as: RunsAs, channel: int) -> Order:
    environment = {**interpreter.environment(), "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
    order = helpers.order(
        interpreter.binary(), "-P", "-S", "-B", "-m", "hypercontainer.network.egress.worker",
        files=interpreter.files(), environment=environment, own_user=runs_as.user,
    )  # fmt: skip
    return replace(order, descriptors=(channel,), control_groups=runs_as.control_groups)
