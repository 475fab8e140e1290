# SPDX-License-Identifier: Apache-2.0
"""One task that owns one thing; verbs are messages to it.

A message is taken when the one before it has been: no two verbs on a thing
race. Taking one never waits: what takes time is a job, a task of the
supervisor's that reports its end as a message too. Which message is taken in
which state, and how, is a table; so is which state follows which.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from ..errors import HyperError, InternalError, Unavailable
from ..sys import spans, tasks
from . import principal

log = logging.getLogger(__name__)
S = TypeVar("S", bound=StrEnum)
Work = Coroutine[Any, Any, Any]
Job = asyncio.Task[Any]


@dataclass(eq=False)
class Message:
    """Something that a supervisor is asked for, or told. A subclass is a verb, its fields are what it says."""

    def __post_init__(self) -> None:
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.reply.add_done_callback(lambda f: f.cancelled() or f.exception())  # whoever asked may be gone
        self.context = contextvars.copy_context()  # of who asks: spans are told to it, events are said to be its
        self.abandoned = False  # nobody awaits the reply

    def answer(self, value: Any = None) -> None:
        """Whoever waits for the message gets this value; a second answer is nobody's."""
        if not self.reply.done():
            self.reply.set_result(value)

    def refuse(self, error: BaseException) -> None:
        """Whoever waits for the message gets this error raised."""
        if self.reply.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.reply.cancel()
        else:
            self.reply.set_exception(error)


@dataclass(eq=False)
class Abandoned(Message):
    """Whoever asked does not wait for the answer any more, or did not get it."""

    message: Message


@dataclass(eq=False)
class Finished(Message):
    """A job has ended, however."""

    job: Job
    then: Callable[[Job], None]


Handler = Callable[[Any, Any], None]


class Supervisor(Generic[S]):
    """Takes messages by its table. Subclasses give both tables and the handlers."""

    TRANSITIONS: ClassVar[Mapping[Any, frozenset[Any]]]
    HANDLERS: ClassVar[Mapping[type[Message], Mapping[Any, Handler]]]

    def __init__(self, name: str, state: S) -> None:
        self.name = name
        self.state: S = state
        self._context = spans.unrecorded()
        self._context.run(principal.forget)
        self._mailbox: asyncio.Queue[Message] = asyncio.Queue()
        self._deferred: deque[Message] = deque()  # until the state is another one
        self._task: asyncio.Task[None] | None = None
        self._jobs: set[Job] = set()
        self._unanswered: set[Message] = set()
        self._again = False
        self._retired = self._left = False

    # -- from outside -----------------------------------------------------------------

    def post(self, message: Message) -> None:
        """Say it; its answer comes later, or is of no interest."""
        if self._left:
            message.refuse(self._has_left())
            return
        self._unanswered.add(message)
        message.reply.add_done_callback(lambda _: self._unanswered.discard(message))
        if self._task is None or self._task.done():
            self._begin_to_supervise()
        self._mailbox.put_nowait(message)

    def _begin_to_supervise(self) -> None:
        self._task = asyncio.create_task(self._supervise(), context=self._context)
        self._task.add_done_callback(self._died)

    def _died(self, task: asyncio.Task[None]) -> None:
        """What it owns is never without an owner: its successor takes the mailbox as it is."""
        if self._left or (not task.cancelled() and task.exception() is None):
            return
        log.error("%s: its supervisor has died", self.name, exc_info=failure(task))
        if not task.get_loop().is_closed():
            self._begin_to_supervise()

    async def ask(self, message: Message) -> Any:
        """Its answer. Whoever gives up waiting has the verb taken back, as far as it can be, and waits for that."""
        self.post(message)
        return await self._answer_of(message)

    def request(self, message: Message) -> asyncio.Task[Any]:
        """`ask`, which has asked when this returns. Whoever cancels the task takes the verb back, begun or not."""
        self.post(message)
        task = asyncio.get_running_loop().create_task(self._answer_of(message))
        task.add_done_callback(lambda t: None if message.reply.done() else self.post(Abandoned(message)))
        return task

    async def _answer_of(self, message: Message) -> Any:
        try:
            return await asyncio.shield(message.reply)
        except asyncio.CancelledError:
            if not message.reply.cancelled():
                self.post(Abandoned(message))
                await asyncio.wait([message.reply])
            raise

    async def detach(self) -> None:
        """End its tasks; what it owns goes on without it."""
        self._left = True
        await tasks.end([t for t in (self._task, *self._jobs) if t])
        for message in list(self._unanswered):
            message.refuse(self._has_left())

    def _has_left(self) -> Unavailable:
        return Unavailable(f"hyperd ends, and does nothing more with {self.name}")

    @property
    def busy(self) -> bool:
        """Whether it still does something, of what is gone too."""
        return bool(self._jobs) or not self._mailbox.empty()

    async def until_idle(self) -> None:
        """Until its jobs have ended, and those that they led to."""
        while self.busy:
            await asyncio.wait(self._jobs) if self._jobs else await asyncio.sleep(0)

    def retire(self) -> None:
        """Of what is gone: take what has been said, and end."""
        self._retired = True
        if self._task is not None:
            self._mailbox.put_nowait(Message())

    # -- for subclasses ---------------------------------------------------------------

    def do(self, work: Work, then: Callable[[Job], None], context: contextvars.Context | None = None) -> Job:
        """Begin a job; `then` is called with its task when it has ended, as a message is taken."""
        within = context or self._context
        job = asyncio.create_task(work, context=within)
        self._jobs.add(job)
        job.add_done_callback(lambda _: self._report(job, then, within))
        return job

    def end(self, jobs: Iterable[Job | None]) -> None:
        """Cancel jobs; they report their ends as ever. One that swallows it is cancelled again."""
        self.do(tasks.end([j for j in jobs if j]), _nothing)

    def _report(self, job: Job, then: Callable[[Job], None], context: contextvars.Context) -> None:
        self._jobs.discard(job)
        if not self._left:
            finished = Finished(job, then)
            finished.context = context
            self._mailbox.put_nowait(finished)
        elif not job.cancelled():
            job.exception()  # nobody is there to hear of it

    def defer(self, message: Message) -> None:
        """Take it when the state is another one."""
        self._deferred.append(message)

    def move(self, state: S) -> None:
        """The only way from one state to another."""
        if state not in self.TRANSITIONS[self.state]:
            raise InternalError(f"{self.name} cannot go from {self.state} to {state}")
        self.state = state

    def retake(self) -> None:
        """Take what was deferred now, though the state is the same."""
        self._again = True

    def drop_request(self, message: Message) -> None:
        """Take a verb back whose answer nobody awaits, or whose answer nobody got; here: what was taken goes on."""
        message.reply.cancel()

    # -- the task ---------------------------------------------------------------------

    async def _supervise(self) -> None:
        while not (self._retired and self._mailbox.empty() and not self._jobs):
            self._take(await self._mailbox.get())

    def _take(self, message: Message) -> None:
        before = self.state
        self._handle(message)
        while self._deferred and (self._again or self.state is not before):
            before, self._again = self.state, False
            waiting, self._deferred = self._deferred, deque()
            for deferred in waiting:
                self._handle(deferred)
        self._again = False

    def _handle(self, message: Message) -> None:
        """An error in a handler is the answer to its message; it never ends the supervisor."""
        try:
            if isinstance(message, Finished):
                self._run(message, message.then, message.job)
            elif isinstance(message, Abandoned):
                message.message.abandoned = True
                message.answer()
                if message.message in self._deferred:
                    self._deferred.remove(message.message)
                    message.message.reply.cancel()
                else:
                    self.drop_request(message.message)
            elif type(message) is Message:  # only to be woken
                return
            elif not message.reply.done():
                self._run(message, self.HANDLERS[type(message)][self.state], self, message)
        except HyperError as error:
            message.refuse(error)
        except Exception as error:
            log.exception("%s: %s in state %s", self.name, type(message).__name__, self.state)
            message.refuse(error)

    def _run(self, message: Message, work: Callable[..., None], *arguments: Any) -> None:
        """In the context of whoever said it; our own is entered already."""
        if message.context is self._context:
            work(*arguments)
        else:
            message.context.run(work, *arguments)


def table(
    states: type[StrEnum], rows: Mapping[type[Message], Sequence[Handler]]
) -> dict[type[Message], dict[Any, Handler]]:
    """Handlers by verb and state, of rows in the order of the states."""
    return {verb: dict(zip(states, row, strict=True)) for verb, row in rows.items()}


def _nothing(_: Job) -> None: ...


def failure(job: Job) -> BaseException | None:
    """Why a job has failed; None when it has not."""
    return asyncio.CancelledError() if job.cancelled() else job.exception()
