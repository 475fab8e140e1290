# SPDX-License-Identifier: Apache-2.0
"""What clients can attach to: a container's main process, a further process of a container, a log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from ..errors import HyperError, InvalidState, Unsupported
from ..model.log_options import keeps_no_copy
from ..model.states import ALIVE
from ..model.status import Container, ContainerStatus
from ..sys import tasks
from .attach.peer import End
from .attach.session import Attached, AttachOptions, AttachSession, Chunks
from .containers import Containers
from .execs import Exec, Execs
from .log_read import STREAMS, LogReader
from .registry import Registry
from .streams import FanOut

log = logging.getLogger(__name__)
_BACK = 20.0  # seconds after its start in which who a container is bound to comes back
_REMOVAL = 10.0  # seconds that a client waits until nothing is left of a container with auto_remove


class Attachments:
    """Sessions for front ends to run; what is refused is refused before one is made."""

    def __init__(self, registry: Registry, containers: Containers, execs: Execs) -> None:
        self._registry = registry
        self._containers = containers
        self._execs = execs
        self._awaited: dict[str, asyncio.Event] = {}  # containers -> that a client that they are bound to is back

    def container(
        self, key: str, options: AttachOptions, *, starts: bool = False, early: bool = False
    ) -> AttachSession:
        """A session with its main process, which is started first if it `starts`; an `early` one may stand before
        somebody else starts it, and hears of its next run from the beginning.

        :raise InvalidState: it is paused; it does not run, and neither is said. :raise Unsupported: it has no log.
        """
        container = self._registry.container(key)
        if options.bound and container.id in self._awaited:
            self._awaited[container.id].set()
        if options.logs:
            check_readable(container)
        owner = self._containers.supervisor(container)
        if early and container.state.status is ContainerStatus.PAUSED:
            raise InvalidState(f"container {container.name} is paused", hint="unpause it before you attach")
        if options.stream and not (starts or early) and container.state.status not in ALIVE:
            raise InvalidState(
                f"container {container.name} is not running", hint=f"start it with `hyperctl start -a {container.name}`"
            )

        def begin() -> asyncio.Task[Any]:
            return self._containers.request_start(container.id, options.size)

        # One that stands before the start hears of a start that fails, too.
        end = owner.next_end if early and container.state.status not in ALIVE else owner.stopped

        async def finish() -> End:
            await end.wait()
            if container.spec.auto_remove:  # its name, ports and volumes are free when the client returns
                with contextlib.suppress(TimeoutError):
                    await tasks.within(owner.removed.wait(), _REMOVAL)
            return End(exit_code=owner.exit_code, message=owner.error if owner.ran else "")

        if options.stream:
            owner.publish("attach", container)
        attached = Attached(
            detached=lambda: owner.publish("detach", owner.container),
            fan_out=owner.fan_out, tty=container.spec.tty, closes_stdin=container.spec.stdin and not container.spec.tty,
            begin=begin if starts else None, finish=finish, kill=lambda: self._containers.kill(container.id, "KILL"),
            history=lambda: History(owner.fan_out, Path(container.log_path)),
        )  # fmt: skip
        return AttachSession(attached, options)

    async def await_bound(self, container: Container) -> None:
        """Kill it, if no client that it is bound to comes back: what ended it has ended while nobody listened."""
        back = self._awaited[container.id] = asyncio.Event()
        try:
            await tasks.within(back.wait(), _BACK)
        except TimeoutError:
            log.warning("container %s: who it was bound to has not come back", container.name)
            with contextlib.suppress(HyperError):  # it has ended by itself
                await self._containers.kill(container.id, "KILL")
        finally:
            del self._awaited[container.id]

    def exec(self, exec_: Exec, options: AttachOptions, *, starts: bool = True) -> AttachSession:
        """A session with a further process, which it starts, or which somebody else will start."""

        async def finish() -> End:
            await exec_.ended.wait()
            return End(exit_code=exec_.exit_code or 0)

        def begin() -> asyncio.Task[None]:
            return asyncio.create_task(self._execs.start(exec_, options.size))

        attached = Attached(
            detached=lambda: self._execs.tell("exec_detach", exec_),
            fan_out=exec_.fan_out, tty=exec_.spec.tty, closes_stdin=not exec_.spec.tty,
            begin=begin if starts else None, finish=finish,
            kill=lambda: self._execs.signal(exec_.id, "KILL", group=True),
        )  # fmt: skip
        return AttachSession(attached, options)


def check_readable(container: Container) -> None:
    """:raise Unsupported: nothing of its log is kept on this host."""
    if keeps_no_copy(container.spec.log):
        raise Unsupported(
            f"container {container.name} has no log that can be read",
            hint="it was made with --log-driver none" if container.spec.log.driver == "none" else "see cache-disabled",
        )


class History:
    """The output up to now, as the log has it, and what of it the log does not have yet: no byte twice, and none less.

    It is made together with the `Reader` of what follows, in one step of the event loop.
    """

    def __init__(self, fan_out: FanOut, path: Path) -> None:
        self._reader = LogReader(path, until_now=True)
        self._unlogged = fan_out.unlogged()

    async def __aiter__(self) -> Chunks:
        while (records := await tasks.in_thread(self._reader.read)) is not None:
            for record in records:
                yield STREAMS[record.stream], record.log.encode("utf-8", "surrogateescape")
        for stream, data in self._unlogged:
            yield stream, data

    def close(self) -> None:
        """Let go of the log's files."""
        self._reader.close()
