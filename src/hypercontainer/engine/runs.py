# SPDX-License-Identifier: Apache-2.0
"""From start to end of a container's main process, and again if its policy says so.

One task per container follows it: it waits for the process, settles the
record, starts it again after a while, and gives the machine back at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from ..errors import HyperError, InvalidState, StartFailed, Unavailable
from ..guest.process import GuestProcessHandle
from ..guest.replies import tell_spans
from ..model import ids
from ..model.status import Container, ContainerStatus, Health
from ..sys import deadlines, tasks
from ..sys.spans import span
from .events import Events
from .health import HealthMonitor
from .life import LOST_EXIT_CODE, Following, Life, Run, lost
from .machines import Machines
from .provision import Provisioner
from .registry import Registry
from .runtime import Runtime

log = logging.getLogger(__name__)
_END_TIMEOUT = 2.0  # seconds for the end of a machine whose connection has ended, before it is killed
_LEAVE_TIMEOUT = 5.0  # seconds for machines that end already when the daemon does
_SIGKILL = 9
_BACK_OFF = (0.1, 60.0)  # seconds: the first, and the longest wait before a restart
_LONG_RUN = 10.0  # seconds after which the back-off begins anew


class Runs:
    """Start, follow, stop."""

    def __init__(
        self,
        *,
        registry: Registry,
        machines: Machines,
        provisioner: Provisioner,
        events: Events,
        life: Callable[[Container], Life],
        erase: Callable[[Container], Coroutine[Any, Any, None]],
        withdraw: Callable[[Container], None],
    ) -> None:
        self._registry = registry
        self._machines = machines
        self._provisioner = provisioner
        self._events = events
        self._life = life
        self._erase = erase
        self._withdraw = withdraw
        self._health = HealthMonitor(registry, events, self._replace)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: set[asyncio.Task[Any]] = set()  # those that give a machine back

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def update(self, container: Container, **state: Any) -> Container:
        container = self._registry.container(container.id)
        changed = msgspec.structs.replace(container, state=msgspec.structs.replace(container.state, **state))
        self._registry.put(changed)
        return changed

    def tell(self, action: str, container: Container, **attributes: str) -> None:
        self._events.publish(
            "container", action, container.id, name=container.name, image=container.image, **attributes
        )

    # -- start --------------------------------------------------------------------

    async def start(self, key: str, size: tuple[int, int] = (0, 0)) -> bool:
        """Start a container; False when it ran already.

        :raise StartFailed: when its program cannot be executed; the container is exited then.
        """
        container = self._registry.container(key)
        life = self._life(container)
        async with life.lock:
            container = self._registry.container(container.id)
            if container.state.status in (ContainerStatus.RUNNING, ContainerStatus.RESTARTING):
                return False
            if container.state.status is ContainerStatus.PAUSED:
                raise InvalidState(
                    f"container {container.name} is paused", hint=f"use `hyperctl unpause {container.name}`"
                )
            life.stop_requested.clear()
            life.starting = self._own(self._start(container, life, size))
            try:
                await life.starting  # who gives up waiting ends it
            except asyncio.CancelledError:
                if not life.stop_requested.is_set():
                    raise
                raise InvalidState(f"container {container.name} was stopped or removed before it had started",
                                   hint="see `hyperctl events`") from None  # fmt: skip
            finally:
                life.starting = None
        return True

    async def _start(self, container: Container, life: Life, size: tuple[int, int]) -> None:
        try:
            if not container.state.starting:
                container = self.update(container, starting=True)
            run = await self._launch(container, life, size)
        except BaseException as error:
            await self._start_failed(container, life, error)
            raise
        try:
            self._running(container, life, run, stopped_by_user=False, restart_count=0)
        finally:  # whatever becomes of the record: what runs has an owner
            life.watch = self._own(self._follow(container, life, run))

    async def give_up_start(self, container: Container) -> bool:
        """End a start that has not come to its end, its policy's too; False when there is none, or it was faster."""
        life = self._life(container)
        starting = life.starting
        if starting is None or starting.done():
            return False
        life.stop_requested.set()
        await tasks.end([starting])
        return starting.cancelled() or starting.exception() is not None

    async def _launch(self, container: Container, life: Life, size: tuple[int, int] = (0, 0)) -> Run:
        runtime = await self._machines.acquire(container.pod, container.id)
        try:
            await self._machines.build(runtime, container)
            handle = await self._provisioner.start_main(runtime, container, life.hub, size)
            self._machines.save(container.pod, runtime)
        except BaseException:
            clean = not self._registry.pod(container.pod).implicit
            await self._machines.release(container.pod, runtime, container.id, clean=clean)
            raise
        return Run(runtime, handle, asyncio.get_running_loop().time())

    def _running(self, container: Container, life: Life, run: Run, **state: Any) -> None:
        checks = container.health is not None or container.spec.liveness is not None
        container = self.update(
            container,
            status=ContainerStatus.RUNNING,
            starting=False,
            pid=run.handle.pid,
            started_at=ids.now(),
            finished_at="",
            exit_code=0,
            error="",
            oom_killed=False,
            health=Health() if checks else None,
            **state,
        )
        self._begin(container, life, run)
        self.tell("start", container)

    def _begin(self, container: Container, life: Life, run: Run) -> None:
        life.runtime = run.runtime
        life.restart_requested = False
        life.stopped.clear()
        run.runtime.session.on_oom[container.id[:12]] = lambda: self.tell("oom", container)
        life.checks = [self._own(work) for work in self._health.checks(container, run.runtime)]

    async def _start_failed(self, container: Container, life: Life, error: BaseException) -> None:
        """Whoever hears of the failure finds the record settled, and removed if that was asked for."""
        code = error.exit_status if isinstance(error, StartFailed) else 125
        message = error.message if isinstance(error, HyperError) else str(error) or "the start was given up"
        if self._registry.exists(container.id):
            self.update(
                container,
                status=ContainerStatus.EXITED,
                starting=False,
                exit_code=code,
                error=message,
                finished_at=ids.now(),
            )
        life.hub.finish()
        self.tell("die", container, exit_code=str(code))
        if container.spec.auto_remove and self._registry.exists(container.id):
            await asyncio.shield(self._own(self._erase(container)))

    def take_up(self, container: Container, life: Life, runtime: Runtime, handle: GuestProcessHandle) -> None:
        """Go on with a container whose VM an earlier daemon started."""
        life.hub.attach_process(handle)
        runtime.handles[container.id] = handle
        runtime.users.add(container.id)
        run = Run(runtime, handle, asyncio.get_running_loop().time())
        self._begin(container, life, run)
        life.watch = self._own(self._follow(container, life, run))

    def take_up_waiting(self, container: Container) -> None:
        """Start one that was to be started again when the earlier daemon ended."""
        self.update(container, status=ContainerStatus.EXITED)
        self._own(self._start_quietly(container))

    async def _start_quietly(self, container: Container) -> None:
        with contextlib.suppress(HyperError):  # it is in the record
            await self.start(container.id)

    # -- following ------------------------------------------------------------------

    async def _follow(self, container: Container, life: Life, run: Run) -> None:
        """Whatever happens, the machine is given back at the end, and all who wait for the container hear of it."""
        following = Following(run)
        try:
            await self._until_end(container, life, following)
        except asyncio.CancelledError:
            raise  # the daemon leaves; what runs runs on
        except Exception as error:
            log.exception("container %s cannot be followed any longer, and is ended", container.name)
            life.exit_code, life.error = LOST_EXIT_CODE, f"hyperd failed to follow the container: {error}"
            following.state = lost(life.error)
            with contextlib.suppress(Exception):
                await following.run.runtime.session.signal(following.run.handle, _SIGKILL, everyone=True)
        task = asyncio.current_task()
        assert task is not None
        self._ending.add(task)
        try:
            await self._finish(container, life, following.run, following.state)
        finally:
            self._ending.discard(task)

    async def _until_end(self, container: Container, life: Life, following: Following) -> None:
        while True:
            run = following.run
            with span("program runs, until its end is known"):
                state = following.state = await self._outcome(run)
            for check in life.checks:
                check.cancel()
            life.hub.finish()
            life.exit_code, life.error = state["exit_code"], state["error"]
            if not self._restarts(container, life, run, state["exit_code"]):
                break
            self._ended(container, ContainerStatus.RESTARTING, state)
            life.stopped.set()
            with contextlib.suppress(TimeoutError):
                await tasks.within(life.stop_requested.wait(), run.delay)
            if life.stop_requested.is_set():
                break
            try:
                again = await self._again(container, life, run)
            except HyperError as error:
                code = error.exit_status if isinstance(error, StartFailed) else 125
                life.exit_code, life.error = code, error.message
                following.state = {"exit_code": code, "oom_killed": False, "error": error.message}
                break
            if again is None:
                break
            following.run = again

    async def _outcome(self, run: Run) -> dict[str, Any]:
        try:
            status = await run.handle.exited
            tell_spans(run.handle.last_message)
            error = "" if await run.handle.drain() else "the end of its output did not come and is missing"
            return {"exit_code": status.shell_code, "oom_killed": status.oom, "error": error}
        except Unavailable:
            with contextlib.suppress(TimeoutError):  # its last words come with its end
                await tasks.within(run.runtime.machine.wait(), _END_TIMEOUT)
            words = run.runtime.machine.last_words()
            await run.runtime.machine.kill()  # without a connection it is of no use
            return lost("the virtual machine ended unexpectedly" + (f": {words}" if words else ""))

    def _restarts(self, container: Container, life: Life, run: Run, code: int) -> bool:
        policy, count = container.spec.restart, self._registry.container(container.id).state.restart_count
        wanted = policy.name in ("always", "unless-stopped") or (
            policy.name == "on-failure" and code != 0 and (not policy.max_retries or count < policy.max_retries)
        )
        if life.stop_requested.is_set() or not (wanted or life.restart_requested):
            return False
        first, longest = _BACK_OFF
        lasted = asyncio.get_running_loop().time() - run.began
        run.delay = first if not run.delay or lasted > _LONG_RUN else min(run.delay * 2, longest)
        return True

    async def _again(self, container: Container, life: Life, run: Run) -> Run | None:
        """None when it is not wanted any more; `give_up_start` ends it, as it does a first start."""
        async with life.lock:
            if life.stop_requested.is_set():
                return None
            work = life.starting = self._own(self._start_again(container, life, run))
            try:
                new: Run = await work
            except asyncio.CancelledError:
                if not life.stop_requested.is_set():
                    raise
                return None
            finally:
                life.starting = None
        return new

    async def _start_again(self, container: Container, life: Life, run: Run) -> Run:
        if run.runtime.dead:
            await self._machines.release(container.pod, run.runtime, container.id)
            new = await self._launch(container, life)
        else:
            await run.runtime.session.release(run.handle)
            handle = await self._provisioner.start_main(run.runtime, container, life.hub, (0, 0))
            self._machines.save(container.pod, run.runtime)
            new = Run(run.runtime, handle, asyncio.get_running_loop().time())
        new.delay = run.delay
        count = self._registry.container(container.id).state.restart_count
        self._running(container, life, new, restart_count=count + 1)
        return new

    def _ended(self, container: Container, status: ContainerStatus, state: dict[str, Any]) -> Container:
        container = self.update(container, status=status, pid=0, finished_at=ids.now(), **state)
        self.tell("die", container, exit_code=str(state["exit_code"]))
        return container

    async def _finish(self, container: Container, life: Life, run: Run, state: dict[str, Any]) -> None:
        async with life.lock:
            try:
                container = self._ended(container, ContainerStatus.EXITED, state)
            except Exception:  # who waits shall hear of the end all the same
                log.exception("the end of container %s is not recorded", container.name)
            life.runtime = None
            remove = container.spec.auto_remove
            pod = self._registry.pod(container.pod)
            if remove and pod.implicit and not (pod.volumes or pod.ports or pod.cni):
                # Nothing of it is anybody else's: its name is free when the exit code is known, and its machine ends after that.
                self._own(run.runtime.machine.kill())
                await asyncio.sleep(0)  # it does nothing more from here on
                self._withdraw(container)
            # Who waits may have the exit code now; who starts again waits for the lock.
            life.stopped.set()
            life.hub.pulse()
            clean = bool(pod.volumes) or not (remove and pod.implicit)
            with span("machine ended"):
                await self._machines.release(container.pod, run.runtime, container.id, clean=clean)
            if remove:
                await self._erase(container)
            elif not run.runtime.dead:
                await self._forget_process(container, run)

    async def _forget_process(self, container: Container, run: Run) -> None:
        """The machine goes on without it: the guest need not keep its end any longer, once that is in the record."""
        if self._registry.journal.pending or run.runtime.handles.get(container.id) is not run.handle:
            return
        del run.runtime.handles[container.id]
        run.runtime.processes.pop(container.id, None)
        with contextlib.suppress(HyperError):
            await run.runtime.session.release(run.handle)
        self._machines.save(container.pod, run.runtime)

    async def _replace(self, container: Container) -> None:
        """End a container that is not well; its task starts it again."""
        life = self._life(container)
        if life.runtime and not life.stop_requested.is_set():
            life.restart_requested = True
            await self._ask(container, life, container.spec.stop_timeout)

    # -- stop -----------------------------------------------------------------------

    async def stop(self, container: Container, timeout: int | None) -> bool:
        """Signal, wait, kill; False when it did not run."""
        life = self._life(container)
        life.stop_requested.set()
        if await self.give_up_start(container):
            await self.settled(life)
            return True
        if life.runtime is None:
            await self.settled(life)
            return False
        if self._registry.exists(container.id):
            self.update(container, stopped_by_user=True)
        await self._ask(container, life, container.spec.stop_timeout if timeout is None else timeout)
        await self.settled(life)
        self.tell("stop", container)
        return True

    async def _ask(self, container: Container, life: Life, grace: float) -> None:
        """The stop signal; SIGKILL when `grace` seconds have passed."""
        runtime = life.runtime
        if runtime is None or life.stopped.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):  # a guest that does not answer has it, too
                with contextlib.suppress(HyperError):
                    await runtime.session.signal(runtime.handles[container.id], container.process.stop_signal)
                await life.stopped.wait()
        if not life.stopped.is_set():
            await self.end(container)

    async def end(self, container: Container) -> None:
        """Kill all of a running container, and its VM if the guest does not obey."""
        life = self._life(container)
        runtime = life.runtime
        if runtime is not None and not life.stopped.is_set():
            try:
                async with asyncio.timeout(deadlines.KILL):
                    with contextlib.suppress(HyperError):
                        await runtime.session.signal(runtime.handles[container.id], _SIGKILL, everyone=True)
                    await life.stopped.wait()
            except TimeoutError:
                log.warning(
                    "container %s: its guest does not end it within %g s: its machine is killed",
                    container.name,
                    deadlines.KILL,
                )
                await runtime.machine.kill()
                runtime.session.close()  # what waits for the guest hears of it, even if the kernel keeps the process
                await life.stopped.wait()

    @staticmethod
    async def settled(life: Life) -> None:
        """Until its machine has been given back: what follows finds its disks at rest."""
        if life.watch and life.watch is not asyncio.current_task():
            await asyncio.wait({life.watch})

    async def leave(self) -> None:
        """End this daemon's own tasks; what runs runs on, and what is about to end ends first."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=_LEAVE_TIMEOUT)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
