# SPDX-License-Identifier: Apache-2.0
"""Where the time of one request goes: spans of wall time, kept for whoever asked for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context

from ..model.trace import Span

_recorded: ContextVar[list[Span] | None] = ContextVar("spans", default=None)
DAEMON, HYPERVISOR, GUEST = "hyperd", "qemu", "guest"


@contextlib.contextmanager
def recording(wanted: bool) -> Iterator[list[Span]]:
    """Spans of this task, and of the tasks that it makes, from now on."""
    found: list[Span] = []
    token = _recorded.set(found if wanted else None)
    try:
        yield found
    finally:
        with contextlib.suppress(ValueError):  # a generator may be closed in another context
            _recorded.reset(token)


def unrecorded() -> Context:
    """This context, in which nobody asks: for tasks that outlive the request they were begun in."""
    context = copy_context()
    context.run(_recorded.set, None)
    return context


def recorded_in(context: Context) -> Context:
    """Another context, in which whoever asked here is told."""
    copy = context.copy()
    copy.run(_recorded.set, _recorded.get())
    return copy


def wanted() -> bool:
    """Whether somebody asked."""
    return _recorded.get() is not None


def add(lane: str, name: str, begin: int, end: int) -> None:
    """Times are nanoseconds since the epoch."""
    found = _recorded.get()
    if found is not None:
        found.append(Span(lane=lane, name=name, begin=begin, end=end))


@contextlib.contextmanager
def span(name: str, lane: str = DAEMON) -> Iterator[None]:
    """The time that the block takes; costs next to nothing when nobody asked."""
    if _recorded.get() is None:
        yield
        return
    begin = time.time_ns()
    try:
        yield
    finally:
        add(lane, name, begin, time.time_ns())
