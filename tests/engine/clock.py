# SPDX-License-Identifier: Apache-2.0
"""An event loop whose time does not pass: it jumps to the next timer when there is nothing to do.

What is outside of this process takes its time all the same: while a thread or a child
process works, timers run as they would; so a limit on a real program means what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any

Owner = Any
_pool = ThreadPoolExecutor(4)  # for all loops
OWNER: ContextVar[Owner] = ContextVar("owner", default=None)  # the daemon that code runs for; it has `killed`


_GRAVES: list[Any] = []  # tasks of daemons that were killed


class Died(BaseException):
    """Code of a daemon that was killed wants to go on: no handler of an error takes it."""


class Stuck(Exception):
    """Everybody waits, and nothing will ever come."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps. Code of a daemon that was killed is never run again."""

    def __init__(self) -> None:
        self._now = 0.0
        self._outside: set[Future[Any]] = set()  # work of threads
        self._children: set[Any] = set()  # transports of child processes
        self._beginning: list[Owner] = []  # whose child processes are just made
        self._awaited: dict[int, Owner] = {}  # descriptors of child processes whose end is waited for: whose
        self._killed = False  # a daemon was, ever
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    # -- what is outside ----------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        if executor is None:
            executor = _pool
        work = executor.submit(func, *args)
        self._outside.add(work)
        made = asyncio.wrap_future(work, loop=self)
        # After its result has been handed over: until then it is under way.
        work.add_done_callback(lambda _: self.call_soon_threadsafe(self._outside.discard, work, context=Context()))
        return made

    async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> Any:
        owner = OWNER.get()
        self._beginning.append(owner)  # one that is given up in its beginning is waited for, too
        try:
            made = await super()._make_subprocess_transport(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._beginning.remove(owner)
        made.owner = OWNER.get()
        self._children.add(made)
        return made

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        if isinstance(fd, int) and os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[pidfd]":
            self._awaited[fd] = OWNER.get()
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _remove_reader(self, fd: Any) -> Any:
        self._awaited.pop(fd, None)
        return super()._remove_reader(fd)  # type: ignore[misc]

    def busy_outside(self) -> bool:
        self._children = {c for c in self._children if not c._finished}
        return bool(
            self._outside or self._children or self._awaited or any(not o or not o.killed for o in self._beginning)
        )

    def passed(self, seconds: float) -> None:
        self._now += seconds

    # -- daemons that were killed ---------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """As the base's, which is most of what a trial does, without its checks."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return _unless_killed(handle) if self._killed else handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = super().call_at(when, callback, *args, context=context)
        return _unless_killed(handle) if self._killed else handle

    def _add_callback(self, handle: Any) -> None:
        if not (self._killed and _killed(handle)):
            super()._add_callback(handle)  # type: ignore[misc]

    def _make_socket_transport(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._make_socket_transport(*args, **kwargs)  # type: ignore[misc]
        made.owner = OWNER.get()
        return made

    def kill(self, owner: Owner) -> None:
        """As by SIGKILL: nothing of it is run again, and its sockets are closed."""
        owner.killed = self._killed = True
        for task in asyncio.all_tasks(self):
            if getattr(task, "owner", None) is owner:
                let_lie(task)
        for handle in [*self._ready, *self._scheduled]:  # type: ignore[attr-defined]
            if _killed(handle):
                handle.cancel()
        for transport in list(self._transports.values()):  # type: ignore[attr-defined]
            if getattr(transport, "owner", None) is owner and transport._sock is not None:
                del self._transports[transport._sock_fd]  # type: ignore[attr-defined] # the number is another one's now
                self._remove_reader(transport._sock_fd)  # type: ignore[attr-defined]
                self._remove_writer(transport._sock_fd)  # type: ignore[attr-defined]
                transport._sock.close()
                transport._sock = None
        for fd in [fd for fd, whose in self._awaited.items() if whose is owner]:
            with contextlib.suppress(ProcessLookupError):  # it ends with its parent
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            self._remove_reader(fd)
            os.close(fd)
        for key in list(self._selector.get_map().values()):  # type: ignore[attr-defined]
            if any(h is not None and _killed(h) for h in key.data):
                self._selector.unregister(key.fd)  # type: ignore[attr-defined]
        for child in [c for c in self._children if c.owner is owner]:
            self._children.discard(child)
            with contextlib.suppress(ProcessLookupError):  # it ends with its parent
                os.kill(child.get_pid(), signal.SIGKILL)


def let_lie(task: asyncio.Task[Any]) -> None:
    """It is of a daemon that was killed."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    _GRAVES.append(task)  # collected, it would run its `finally`
    asyncio._unregister_task(task)  # and nobody has to look through all of them


def _killed(handle: Any) -> bool:
    owner = handle._context.get(OWNER) if handle._context is not None else None
    return owner is not None and owner.killed


def _unless_killed(handle: Any) -> Any:
    if _killed(handle):
        handle.cancel()
    return handle


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Looks without waiting; when there is nothing, time jumps instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0) if self._selector.poll(0, 1) else []
        if found or (timeout is not None and timeout <= 0):
            return found
        if self._loop.busy_outside():
            began = time.monotonic()
            found = super().select(timeout)
            if timeout is not None:
                self._loop.passed(min(timeout, time.monotonic() - began) if found else timeout)
            return found
        if timeout is None:
            raise Stuck("no timer runs, and nothing can come")
        self._loop.passed(timeout)
        return found
