# SPDX-License-Identifier: Apache-2.0
"""Faults at every place where code waits, found by counting.

A task that runs for a verb is driven by hand: each time that it would wait, a plan is asked. So the sites are
those that there are, in whatever task of the verb's, and not a list that somebody keeps.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import functools
import io
import os
import re
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import Any

from hypercontainer.errors import NoSpace
from hypercontainer.state.database import Database

from .clock import OWNER, let_lie

PLAN: ContextVar[Plan | None] = ContextVar("plan", default=None)
_OURS = "/hypercontainer/"


class Plan:
    """What happens at the n-th place where a verb waits."""

    def __init__(self, at: int = -1, act: Callable[[], BaseException | None] | None = None, only: str = "") -> None:
        """`only` is what a place must be like to count: a regular expression of `where`."""
        self.at = at
        self._only = only
        self.count = 0
        self.site = ""  # where it struck
        self._act = act

    @property
    def struck(self) -> bool:
        return self.site != ""

    def disarm(self) -> None:
        self._act = None

    def reached(self, coro: Any) -> BaseException | None:
        """The error to raise in place of waiting."""
        if self._act is None or (self._only and not re.search(self._only, where(coro))):
            return None
        here, self.count = self.count, self.count + 1
        if here != self.at:
            return None
        self.site = where(coro)
        return self._act()


class Tally(Plan):
    """Nothing happens; the places where a verb waits are written down."""

    def __init__(self) -> None:
        super().__init__(act=lambda: None)
        self.sites: list[str] = []

    def reached(self, coro: Any) -> BaseException | None:
        if self._act is not None:
            self.sites.append(where(coro))
        return None


def where(coro: Any) -> str:
    """The innermost line of ours at which a coroutine waits, and what it waits for."""
    place, inner = "?", ""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            code = frame.f_code
            name = f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {code.co_qualname}"
            if _OURS in code.co_filename:
                place, inner = name, ""
            else:
                inner = code.co_qualname
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None) or getattr(coro, "ag_await", None)
    return f"{place}, {inner}" if inner else place


class Driven(Coroutine[Any, Any, Any]):
    """A coroutine that asks a plan each time that it would wait."""

    def __init__(self, coro: Any, plan: Plan) -> None:
        self._coro, self._plan = coro, plan
        self._late: BaseException | None = None

    def send(self, value: Any) -> Any:
        if self._late:
            error, self._late = self._late, None
            return self._step(functools.partial(self._coro.throw, error))
        return self._step(functools.partial(self._coro.send, value))

    def throw(self, *error: Any) -> Any:
        return self._step(functools.partial(self._coro.throw, *error))

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError("it is for tasks only")

    def _step(self, step: Callable[[], Any]) -> Any:
        while True:
            waited = step()
            error = self._plan.reached(self._coro)
            if error is None:
                return waited
            if re.search(r"to_thread|to_the_end", self._plan.site):  # a thread fails at its end, not in its midst
                self._late = error
                return waited
            if isinstance(waited, asyncio.Future):
                waited._asyncio_future_blocking = False
            step = functools.partial(self._coro.throw, error)


def factory_of_tasks(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> asyncio.Task[Any]:
    """Tasks know whose they are; those of a verb with a plan are driven by it."""
    context = context or copy_context()
    plan = context.get(PLAN)
    task = asyncio.Task(Driven(coro, plan) if plan else coro, loop=loop, context=context)
    task.owner = owner = context.get(OWNER)  # type: ignore[attr-defined]
    if owner and owner.killed:  # begun by what it was about to do
        let_lie(task)
    return task


# -- a full disk --------------------------------------------------------------------


class FullDisk:
    """From `fill` to `free` nothing can be made or written: no file, no directory, no record."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def fill(self) -> None:
        if self._undo:
            return
        real_open, real_os_open = builtins.open, os.open

        def opened(file: Any, mode: str = "r", *args: Any, **how: Any) -> Any:
            if set(mode) & set("wxa+") and how.get("opener") is None and len(args) < 6:
                raise _full(file)
            return real_open(file, mode, *args, **how)

        def os_opened(path: Any, flags: int, *args: Any, **how: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                raise _full(path)
            return real_os_open(path, flags, *args, **how)

        for where, name, value in (
            (builtins, "open", opened), (io, "open", opened), (os, "open", os_opened), (os, "mkdir", _refuse),
            (os, "write", _refuse), (os, "pwrite", _refuse), (os, "copy_file_range", _refuse),
            (Database, "commit", _refuse_records),
        ):  # fmt: skip
            self._undo.append(functools.partial(setattr, where, name, getattr(where, name)))
            setattr(where, name, value)

    def free(self) -> None:
        while self._undo:
            self._undo.pop()()


def _full(path: object) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _refuse(*_: object, **__: object) -> Any:
    raise _full("disk")


def _refuse_records(*_: object, **__: object) -> None:
    raise NoSpace("no space left on the disk of the state database")
