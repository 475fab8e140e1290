# SPDX-License-Identifier: Apache-2.0
"""A connection to libvirt that comes back: questions in threads, with deadlines; the ends of domains as events.

No call of the library is made on hyperd's loop. A thread whose call is never answered is given up: it holds nothing
of ours, and the library ends the call itself when its daemon no longer answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ...errors import Unavailable
from ...sys import deadlines, tasks
from . import domain
from .binding import errors, library

log = logging.getLogger(__name__)
T = TypeVar("T")
_ALIVE = (5, 3)  # seconds between questions whether its daemon lives, and how many may be unanswered
_AGAIN = 1.0  # seconds between attempts to come back
_OWED = 120  # of them, for a domain that is to be ended and is not there yet
_LOST = "the connection to libvirt was lost"
_HINT = "is libvirtd running? `libvirt_uri` in hyperd's configuration names another"


def fault(error: Exception) -> str:
    """libvirt's own words, with those of its QEMU, in one line."""
    lines = str(error).removeprefix("internal error: ").splitlines()
    return "; ".join(line.strip() for line in lines if line.strip())


class _Line:
    """The library's connection. It is closed when no call is under way: the library frees it under their hands else."""

    def __init__(self, made: Any, callback: int) -> None:
        self._made, self._callback = made, callback
        self._lock = threading.Lock()
        self._calls = 0
        self._over = False
        self.lost = False  # said on the loop

    def call(self, work: Callable[[Any], T]) -> T:
        """In a thread. :raise Unavailable: it was ended."""
        with self._lock:
            if self._over:
                raise Unavailable(_LOST)
            self._calls += 1
        try:
            return work(self._made)
        finally:
            with self._lock:
                self._calls -= 1
                last = self._over and not self._calls
            if last:
                self._close()

    def end(self) -> None:
        """In a thread, too. Idempotent."""
        with self._lock:
            now = not self._over and not self._calls
            self._over = True
        if now:
            self._close()

    def _close(self) -> None:
        for undo in (
            self._made.unregisterCloseCallback,
            lambda: self._made.domainEventDeregisterAny(self._callback),
            self._made.close,
        ):
            with contextlib.suppress(*errors()):
                undo()


class Connection:
    """To one URI. It is opened when it is needed, and again when it was lost."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: _Line | None = None
        self._opening = asyncio.Lock()
        self._ends: dict[str, Callable[[], None]] = {}  # UUID of a domain -> what is told that it has ended
        self._owed: dict[str, int] = {}  # UUIDs of domains that are to be ended -> how often that is tried
        self._returning: asyncio.Task[None] | None = None
        self._closed = False

    async def ask(self, what: str, work: Callable[[Any], T], timeout: float = deadlines.MONITOR) -> T:
        """What `work` makes of the library's connection, in a thread; `what` says so after "to".

        :raise Unavailable: it is not installed, cannot be reached, does not do it, or not within `timeout` seconds.
        """
        try:
            return await tasks.within(self._asked(work), timeout)
        except TimeoutError:
            raise Unavailable(f"libvirt ({self.uri}) took more than {timeout:g} s to {what}", hint=_HINT) from None
        except errors() as error:
            raise Unavailable(f"libvirt ({self.uri}) cannot {what}: {fault(error)}") from error

    async def _asked(self, work: Callable[[Any], T]) -> T:
        line = await self._open()
        return await _in_thread(lambda: line.call(work))

    async def _open(self) -> _Line:
        async with self._opening:
            if self._opened is None:
                line = await self._connected()
                try:
                    await self._catch_up(line)
                    if line.lost:
                        raise Unavailable(_LOST)
                except BaseException:
                    _detached(line.end)
                    raise
                self._opened = line
            return self._opened

    async def _connected(self) -> _Line:
        loop, module = asyncio.get_running_loop(), library()
        if module is None:
            raise Unavailable("libvirt's Python module is not installed", hint="install the package python3-libvirt")

        def tell(call: Callable[..., None], *args: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(call, *args)

        def ended(_: Any, domain: Any, event: int, *__: Any) -> None:
            if event == module.VIR_DOMAIN_EVENT_STOPPED:
                tell(self._ended, domain.UUIDString())

        def connect() -> _Line:
            made = module.open(self.uri)
            callback = made.domainEventRegisterAny(None, module.VIR_DOMAIN_EVENT_ID_LIFECYCLE, ended, None)
            line = _Line(made, callback)
            made.registerCloseCallback(lambda *_: tell(self._lost, line), None)
            with contextlib.suppress(module.libvirtError):  # drivers without a daemon have none to ask
                made.setKeepAlive(*_ALIVE)
            return line

        try:
            return await _in_thread(connect, unwanted=_Line.end)
        except module.libvirtError as error:
            raise Unavailable(f"libvirt ({self.uri}) cannot be reached: {fault(error)}", hint=_HINT) from error

    async def _catch_up(self, line: _Line) -> None:
        """Tell of what ended while nobody listened, and end what could not be ended."""
        if known := list(self._ends):
            active = library().VIR_CONNECT_LIST_DOMAINS_ACTIVE
            running = await _in_thread(lambda: line.call(lambda c: {d.UUIDString() for d in c.listAllDomains(active)}))
            for uuid in known:
                if uuid not in running:
                    self._ended(uuid)

    # -- domains that end --------------------------------------------------------------------

    async def end(self, uuid: str, timeout: float = deadlines.DEATH) -> bool:
        """Have nothing left of a domain; whether that is so. What libvirt does not do now it is told again, once it
        answers."""
        try:
            await self.ask("end a virtual machine", lambda c: domain.end(c, uuid), timeout)
        except Unavailable as error:
            log.warning("domain %s: %s", uuid, error)
            self._owed[uuid] = _OWED
            self._come_back()
            return False
        return True

    async def _pay(self, line: _Line) -> None:
        """A call that was given up may be done yet, so a domain that is not there is looked for again."""
        for uuid in list(self._owed):
            self._owed[uuid] = left = self._owed.pop(uuid, 1)  # the last from now on: it may take all of the time
            try:
                found = await _in_thread(partial(line.call, partial(domain.end, uuid=uuid)))
            except _failures() as error:
                log.debug("domain %s: %s", uuid, error)
                continue
            if found or left <= 1:
                self._owed.pop(uuid, None)
            else:
                self._owed[uuid] = left - 1

    def watch(self, uuid: str, ended: Callable[[], None]) -> None:
        """Have this called when a domain has ended, once. A domain that ended before is found when it is asked for."""
        self._ends[uuid] = ended
        self._come_back()

    def forget(self, uuid: str) -> None:
        """Tell nobody of it any more. Idempotent."""
        self._ends.pop(uuid, None)

    def _ended(self, uuid: str) -> None:
        if told := self._ends.pop(uuid, None):
            told()

    # -- when it is lost ----------------------------------------------------------------------

    def _lost(self, line: _Line) -> None:
        line.lost = True
        if line is not self._opened:
            return
        self._opened = None
        log.warning("the connection to libvirt (%s) is lost: machines go on, and it is tried again", self.uri)
        _detached(line.end)
        self._come_back()

    @property
    def _wanted(self) -> bool:
        return not self._closed and bool(self._owed or (self._ends and self._opened is None))

    def _come_back(self) -> None:
        """Be connected while domains are watched, and end what is to be ended."""
        if self._wanted and (self._returning is None or self._returning.done()):
            self._returning = asyncio.get_running_loop().create_task(self._try_again())

    async def _try_again(self) -> None:
        while self._wanted:
            try:
                async with asyncio.timeout(deadlines.MONITOR):
                    await self._pay(await self._open())
            except _failures() as error:
                log.debug("libvirt (%s): %s", self.uri, error)
            if self._wanted:
                await asyncio.sleep(_AGAIN)

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        self._ends.clear()
        self._owed.clear()
        await tasks.end([self._returning] if self._returning else [])
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(TimeoutError, *errors()):
                await tasks.within(_in_thread(opened.end), deadlines.MONITOR)


def _failures() -> tuple[type[Exception], ...]:
    return Unavailable, TimeoutError, *errors()


def _detached(work: Callable[[], object]) -> None:
    """In a thread that nobody waits for; it does not keep the process."""

    def run() -> None:
        with contextlib.suppress(*errors()):
            work()

    threading.Thread(target=run, name="libvirt-call", daemon=True).start()


async def _in_thread(work: Callable[[], T], unwanted: Callable[[T], object] | None = None) -> T:
    """Its result. The thread is one of its own, and no executor's: one that hangs keeps neither others nor the end.

    What comes when nobody waits any more is given to `unwanted`, in a thread.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def resolve(value: T | None, error: BaseException | None) -> None:
        if result.done():
            if error is None and unwanted:
                _detached(lambda: unwanted(value))  # type: ignore[arg-type]
        elif error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(resolve, value, error)

    threading.Thread(target=run, name="libvirt-call", daemon=True).start()
    return await result
