# SPDX-License-Identifier: Apache-2.0
"""Faults at every place where code waits, found by counting.

A task that runs for a verb is driven by hand: each time that it would wait, a plan is asked. So the sites are
those that there are, in whatever task of the verb's, and not a list that somebody keeps.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from contextvars import ContextVar, copy_context
from typing import Any

from .clock import OWNER

PLAN: ContextVar[Plan | None] = ContextVar("plan", default=None)
_OURS = "/hypercontainer/"


class Plan:
    """What happens at the n-th place where a verb waits; without `act` places are counted only."""

    def __init__(self, at: int = -1, act: Callable[[], BaseException | None] | None = None) -> None:
        self.at = at
        self.count = 0
        self.site = ""  # where it struck
        self.sites: list[str] = []
        self._act = act

    @property
    def struck(self) -> bool:
        return self.site != ""

    def reached(self, coro: Any) -> BaseException | None:
        """The error to raise in place of waiting."""
        here, self.count = self.count, self.count + 1
        if here != self.at or self._act is None:
            return None
        self.site = where(coro)
        return self._act()


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


@types.coroutine
def _driven(coro: Any, plan: Plan) -> Generator[Any, Any, Any]:
    raised: BaseException | None = None
    while True:
        try:
            waited = coro.send(None) if raised is None else coro.throw(raised)
        except StopIteration as end:
            return end.value
        raised = plan.reached(coro)
        if raised is not None:
            if isinstance(waited, asyncio.Future):
                waited._asyncio_future_blocking = False
            continue
        try:
            yield waited
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as error:
            raised = error


async def _drive(coro: Any, plan: Plan) -> Any:
    return await _driven(coro, plan)


def factory_of_tasks(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> asyncio.Task[Any]:
    """Tasks know whose they are; those of a verb with a plan are driven by it."""
    context = context or copy_context()
    plan = context.get(PLAN)
    task = asyncio.Task(_drive(coro, plan) if plan else coro, loop=loop, context=context)
    task.owner = context.get(OWNER)  # type: ignore[attr-defined]
    return task
