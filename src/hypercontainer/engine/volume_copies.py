# SPDX-License-Identifier: Apache-2.0
"""Copies of volumes that are disks, of one instant each, also of those that pods write to meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import NotFound, Unavailable, Unsupported
from ..guest.agent import HoldVolumes, require
from ..images.progress import Progress
from ..model.status import Pod, PodStatus, Volume
from ..model.volume_snapshots import Manner
from ..sys import clock, tasks
from ..sys.files import copy_sparse, no_space_as_error
from .held_volumes import held
from .registry import Registry
from .runtime import Runtime
from .still_disks import WAIT, StillDisks, stop

_RATE = 16 << 20  # bytes per second that a slow disk copies


@dataclass(frozen=True)
class Copied:
    """How a copy came about."""

    manner: Manner
    still_ms: int  # for how long nothing was written


class VolumeCopies:
    """Makes them."""

    def __init__(self, registry: Registry, still: StillDisks) -> None:
        self._registry = registry
        self._still = still

    async def copy(self, volume: Volume, target: Path, progress: Progress) -> Copied:
        """To a file that is not there; nothing of it is left where this fails.

        :raise NotFound: the volume has gone meanwhile. :raise NoSpace: the disk is full.
        :raise Unavailable: it is in use all the time by pods that begin and end, or copying took too long.
        :raise GuestError: the guest cannot freeze its file system.
        """
        copy = _Copy(volume, target, progress)
        try:
            return await tasks.within(self._copy(copy), WAIT + 2 * copy.limit)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"volume {volume.name} cannot be copied: it is written to all the time",
                                  hint="try again later, or stop the pod that has it") from None  # fmt: skip
            raise

    async def _copy(self, copy: _Copy) -> Copied:
        while True:
            changed = self._registry.changed
            pod = self._writer(copy.volume)
            copy.manner = "paused"  # as that pod may be by now, whatever it was before
            if pod is None:
                copy.manner = "paused" if self._sleeps(copy.volume) else "idle"
                if await copy.whole() and self._writer(copy.volume) is None:
                    return copy.done()
            elif await self._still.copied(pod.id, copy.make, partial(self._stop, copy)):
                return copy.done()
            else:
                await changed.wait()

    def _writer(self, volume: Volume) -> Pod | None:
        """A pod with a machine that may write to it; there is one at most, but while they come and go."""
        return next((p for p in self._writers(volume) if self._still.has_machine(p.id)), None)

    def _sleeps(self, volume: Volume) -> bool:
        """Whether a pod that has it is suspended: what its guest has not written yet is in its memory."""
        return any(p.status is PodStatus.SUSPENDED for p in self._writers(volume))

    def _writers(self, volume: Volume) -> list[Pod]:
        return [
            p for p in self._registry.of_tenant(volume.tenant).pods
            if any(v.named == volume.name and not v.read_only for v in p.volumes)
        ]  # fmt: skip

    async def _stop(self, copy: _Copy, pod: Pod, runtime: Runtime, undo: contextlib.AsyncExitStack) -> None:
        """The volume's file system; or all of the machine, where nothing has mounted it, or the guest is too old."""
        mine = next((v for v in pod.volumes if v.named == copy.volume.name and not v.read_only), None)
        if mine and (name := runtime.volumes.get(mine.name)):
            with contextlib.suppress(Unsupported):
                require(runtime.agent, HoldVolumes)
                copy.progress.update(copy.volume.name, "Freezing")
                await undo.enter_async_context(held(runtime, name, f"volume {copy.volume.name}", copy.limit))
                copy.manner = "frozen"
                return
        await stop(pod, runtime, undo)


class _GivenUp(Exception):
    """Nobody waits for the copy any more."""


async def copy_or_give_up(source: Path, target: Path, told: Callable[[int], None] = lambda count: None) -> None:
    """As `copy_sparse`; with who is cancelled it ends soon, and leaves nothing."""
    given_up = False

    def heard(count: int) -> None:
        if given_up:
            raise _GivenUp
        told(count)

    def give_up() -> None:
        nonlocal given_up
        given_up = True

    await tasks.in_thread(lambda: copy_sparse(source, target, heard), give_up)


class _Copy:
    """One that is under way."""

    def __init__(self, volume: Volume, target: Path, progress: Progress) -> None:
        self.volume = volume
        self.progress = progress
        self.manner: Manner = "paused"
        self.source, self.target = Path(volume.path), target
        self.total = self._bytes()
        self.limit = WAIT + self.total / _RATE
        self._passed = 0
        self._still = 0.0  # seconds that the last one took

    def _bytes(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.source.stat().st_blocks * 512
        return 0

    def done(self) -> Copied:
        return Copied(self.manner, 0 if self.manner == "idle" else round(self._still * 1000))

    async def make(self) -> None:
        """:raise NotFound: it has gone."""
        self._passed, began = 0, clock.seconds()
        self.target.unlink(missing_ok=True)
        try:
            with no_space_as_error(self.target.parent):
                await copy_or_give_up(self.source, self.target, self._told)
        except FileNotFoundError:
            raise NotFound(f"volume {self.volume.name} has gone", hint="see `hyperctl volume ls`") from None
        self._still = clock.seconds() - began

    async def whole(self) -> bool:
        """Copied while nobody has written: of a machine that came and went meanwhile the file tells."""
        before = self._written()
        await self.make()
        return before == self._written()

    def _written(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.source.stat().st_mtime_ns
        return 0

    def _told(self, count: int) -> None:
        """By the thread that copies."""
        self._passed += count
        self.progress.update(self.volume.name, "Copying", min(self._passed, self.total), self.total)
