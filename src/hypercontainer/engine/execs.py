# SPDX-License-Identifier: Apache-2.0
"""Further processes in running containers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from ..errors import DeadlineExceeded, HyperError, InvalidArgument, InvalidState, NotFound, StartFailed
from ..guest.agent import Process
from ..model import ids
from ..model.signals import parse_signal
from ..model.specs import ExecSpec
from ..model.status import Container, ContainerStatus, ExecInfo
from ..sys import tasks
from . import naming, policies, resolve
from .builtins import Done, run_process
from .containers import Containers
from .events import Events
from .registry import Registry
from .run import LOST_EXIT_CODE
from .runtime import Runtime
from .streams import FanOut

_START = 10.0  # seconds in which one has started that is to be resized, or gets a signal
_KEPT = 200  # ended execs that can still be asked for their exit code
_NEW = 1000  # of a tenant that nobody has started


@dataclass
class Exec:
    """One exec, from its creation until it is forgotten."""

    id: str
    container: Container
    spec: ExecSpec
    fan_out: FanOut = field(default_factory=FanOut)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # that start has succeeded, or failed
    exit_code: int | None = None
    runtime: Runtime | None = None
    handle: Process | None = None  # of its process, once that has started

    def info(self) -> ExecInfo:
        """Its present state, for the API."""
        running = self.started and not self.ended.is_set()
        pid = self.handle.pid if self.handle else 0
        return ExecInfo(
            id=self.id, container=self.container.id, command=self.spec.command, running=running,
            exit_code=self.exit_code, pid=pid,
        )  # fmt: skip


class Execs:
    """Create, start and find execs; they end with the daemon."""

    def __init__(self, registry: Registry, containers: Containers, events: Events) -> None:
        self._registry = registry
        self._containers = containers
        self._events = events
        self._execs: dict[str, Exec] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, key: str, spec: ExecSpec) -> Exec:
        """:raise InvalidState: when the container does not run."""
        container = self._registry.container(key)
        self._machine_for(container, spec)
        exec_ = Exec(ids.new_id(), container, spec)
        self._execs[exec_.id] = exec_
        self._forget_old(container)
        self.tell("exec_create", exec_, command=" ".join(spec.command))
        return exec_

    def tell(self, action: str, exec_: Exec, **attributes: str) -> None:
        """An event of it."""
        of = exec_.container
        self._events.publish(
            "container", action, of.id, of=of.spec.labels, name=of.name, image=of.image, exec_id=exec_.id, **attributes
        )

    def _machine_for(self, container: Container, spec: ExecSpec) -> Runtime:
        """:raise PermissionDenied: a policy refuses it; and what `create` raises."""
        if not spec.command:
            raise InvalidArgument("no command specified", hint="give one after the container's name")
        policies.check_exec(spec, container.spec)
        if container.state.status is ContainerStatus.PAUSED:
            raise InvalidState(f"container {container.name} is paused", hint=f"use `hyperctl unpause {container.name}`")
        return self._containers.runtime(container)

    async def run(self, key: str, spec: ExecSpec, *, timeout: float | None, keep: int) -> Done:
        """One to its end, with the first `keep` bytes of each of its outputs. Whoever gives it up has it killed.

        :raise InvalidState: when the container does not run. :raise StartFailed: the program cannot be executed.
        :raise DeadlineExceeded: it has not ended within `timeout` seconds, and was killed.
        """
        container = self._registry.container(key)
        runtime = self._machine_for(container, spec)
        process = resolve.exec_process(container, spec, (0, 0))
        try:
            with runtime.in_use() as agent:
                return await run_process(agent, process, timeout=timeout, keep=keep)
        except TimeoutError:
            raise DeadlineExceeded(f"the command has not ended within {timeout:g} s, and was killed") from None

    def _forget_old(self, of: Container) -> None:
        """Of its tenant's."""
        mine = [e for e in self._execs.values() if e.container.tenant == of.tenant]
        ended, new = [e for e in mine if e.ended.is_set()], [e for e in mine if not e.started]
        for exec_ in (*ended[: max(0, len(ended) - _KEPT)], *new[: max(0, len(new) - _NEW)]):
            del self._execs[exec_.id]

    def get(self, id_: str) -> Exec:
        """:raise NotFound: when there is none, of the tenant that asks."""
        found = self._execs.get(id_)
        if found is None or not naming.is_seen(found.container):
            raise NotFound(f"no such exec: {id_}")
        return found

    def check_startable(self, exec_: Exec) -> Runtime:
        """The machine for it. :raise InvalidState: it was started already, or its container does not run."""
        if exec_.started:
            raise InvalidState("the exec was started already")
        return self._containers.runtime(self._registry.container(exec_.container.id))

    def of(self, container_id: str) -> list[Exec]:
        """Those of a container that have not ended."""
        return [e for e in self._execs.values() if e.container.id == container_id and not e.ended.is_set()]

    async def start(self, exec_: Exec, size: tuple[int, int] = (0, 0)) -> None:
        """:raise StartFailed: when the program cannot be executed."""
        runtime = self.check_startable(exec_)
        exec_.started = True
        exec_.runtime = runtime
        exec_.fan_out.begin()
        try:
            handle = exec_.handle = await runtime.agent.start(
                resolve.exec_process(exec_.container, exec_.spec, size), exec_.fan_out
            )
        except BaseException as error:
            exec_.exit_code = error.exit_status if isinstance(error, StartFailed) else 126
            exec_.fan_out.finish()
            exec_.ended.set()
            raise
        finally:
            exec_.answered.set()
        exec_.fan_out.attach_process(handle)
        task = asyncio.create_task(self._watch(exec_, handle, runtime))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        command = " ".join(exec_.spec.command)
        self.tell("exec_start", exec_, command=command)

    async def _watch(self, exec_: Exec, handle: Process, runtime: Runtime) -> None:
        """To its end. The fan-out may be through with its output, and with the handle, before this begins."""
        try:
            exec_.exit_code = (await handle.exited).shell_code
            await handle.drain()
            with contextlib.suppress(HyperError):
                await handle.release()
        except HyperError:
            exec_.exit_code = LOST_EXIT_CODE
        finally:
            exec_.fan_out.finish()
            exec_.ended.set()
        self.tell("exec_die", exec_, exit_code=str(exec_.exit_code))

    async def resize(self, id_: str, rows: int, columns: int) -> None:
        """One that starts is waited for.

        :raise InvalidState: it does not run, or has no terminal.
        """
        exec_ = self.get(id_)
        await self._started(exec_)
        if exec_.handle is None or exec_.ended.is_set():
            raise InvalidState(f"exec {id_} is not running")
        if not exec_.spec.tty:
            raise InvalidState(f"exec {id_} has no terminal")
        await exec_.handle.resize(rows, columns)

    async def _started(self, exec_: Exec) -> None:
        with contextlib.suppress(TimeoutError):
            if exec_.started and not exec_.ended.is_set():
                await tasks.within(exec_.answered.wait(), _START)

    async def signal(self, id_: str, signal: str, *, group: bool = False) -> None:
        """Also to what it has started, if that is the `group`'s. One that starts is waited for; one that does not run
        is let be.
        """
        exec_ = self.get(id_)
        number = parse_signal(signal)
        await self._started(exec_)
        if exec_.handle and not exec_.ended.is_set():
            await (exec_.handle.signal_group(number) if group else exec_.handle.signal(number))

    async def release(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
