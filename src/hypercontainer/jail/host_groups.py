# SPDX-License-Identifier: Apache-2.0
"""Control groups of this host: PARENT/DAEMON/MACHINE in each hierarchy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import signal
from collections.abc import Container
from pathlib import Path

from ..errors import Unavailable
from ..model.host import Check
from ..sys import tasks
from . import group_owners
from .control_groups import Budget, Group
from .hierarchies import NAMES, Hierarchy, IoLimits, count, find, io_values, switched_on, values

log = logging.getLogger(__name__)
PARENT = "hyper"  # below hyperd's own group
LEAF = "daemon"  # where hyperd goes in version 2: a group with controllers for others has no processes itself
_AWAIT, _KILL, _LOOK = 5.0, 0.5, 0.02  # seconds for a group's end, until what is left is killed, and between looks
_HINT = "see `control_groups` in the documentation of hyperd's configuration"


def name_of(run: Path) -> str:
    """Of the group that a daemon's machines are below: by the directory that no other daemon has."""
    return hashlib.sha256(os.path.realpath(run).encode()).hexdigest()[:8]


class HostGroup:
    """One of a machine."""

    def __init__(self, owner: HostGroups, name: str) -> None:
        self._owner = owner
        self._starved = False
        self.name = name
        self.places = [(h, h.group / name) for h in owner.hierarchies if (h.group / name).is_dir()]

    @property
    def directories(self) -> tuple[Path, ...]:
        return tuple(path for _, path in self.places)

    def limit(self, budget: Budget) -> None:
        for hierarchy, path in self.places:
            for name, value in values(budget, hierarchy):
                self._owner.write(path / name, value)

    def ran_out_of_memory(self) -> bool:
        for hierarchy, path in self.places:
            if "memory" in hierarchy.controllers and not self._starved:
                with contextlib.suppress(OSError):  # it is gone
                    self._starved = count(path, hierarchy) > 0
        return self._starved

    def remove(self) -> None:
        self.ran_out_of_memory()
        if not self.vanish():
            self._owner.removed_later(self)

    def vanish(self) -> bool:
        """Remove what has no processes; whether all of it is gone."""
        self.places = [(h, path) for h, path in self.places if not _removed(path)]
        return not self.places

    def kill(self) -> None:
        """All processes that are left."""
        for _, path in self.places:
            with contextlib.suppress(OSError):
                for pid in (path / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class HostGroups:
    """Those of one daemon."""

    def __init__(
        self, run: Path, *, parent: str = PARENT, required: bool = False, io: IoLimits | None = None,
        proc: Path = Path("/proc/self"),
    ) -> None:  # fmt: skip
        """`run` is the daemon's own directory; `parent` a group below hyperd's own, or from the top where it has a /.

        :raise Unavailable: they are required, and a controller is missing.
        """
        self._io = io or IoLimits()
        self._told: set[object] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self.hierarchies: list[Hierarchy] = []
        self.troubles: list[str] = []
        self._held: list[int] = []  # descriptors, which say that we live
        for found in find((proc / "cgroup").read_text(), (proc / "mountinfo").read_text(), parent):
            try:
                made = _prepared(found, parent, name_of(run))
                self._held.append(group_owners.hold(made.group))
                self.hierarchies.append(made)
            except OSError as error:
                what = ", ".join(NAMES[c] for c in found.controllers if c in NAMES)
                self.troubles.append(f"{what} cannot be limited: {error.filename}: {error.strerror}")
        there = {c for h in self.hierarchies for c in h.controllers}
        tried = " ".join(self.troubles)
        self.troubles += [
            f"this host has no controller of {name} that hyperd may use"
            for c, name in NAMES.items()
            if c not in there and name not in tried
        ]
        if self._io.rate and not self._io.device:
            self.troubles.append("hyperd's state lies on no disk that can be limited")
        if self.troubles and required:
            raise Unavailable(f"virtual machines cannot have control groups: {'; '.join(self.troubles)}", hint=_HINT)
        for trouble in self.troubles:
            log.warning("control groups of virtual machines: %s", trouble)

    def make(self, name: str, budget: Budget) -> Group:
        for hierarchy in self.hierarchies:
            try:
                (hierarchy.group / name).mkdir()
            except OSError as error:
                self._tell(hierarchy, f"cannot make the group {hierarchy.group / name}: {error.strerror}")
        group = HostGroup(self, name)
        for hierarchy, path in group.places:
            for file, value in io_values(self._io, hierarchy):
                self.write(path / file, value)
        group.limit(budget)
        return group

    def write(self, path: Path, value: str) -> None:
        """Into a file of a group; what the kernel refuses is logged once for each file's name."""
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.ENOENT or path.parent.exists():
                self._tell(path.name, f"{path.name} cannot be {value}: {error.strerror}")

    def _tell(self, key: object, sentence: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.troubles.append(sentence)
            log.warning("control groups of virtual machines: %s", sentence)

    def find(self, name: str) -> Group:
        return HostGroup(self, name)

    def keep(self, names: Container[str], *, spare_busy: bool) -> None:
        there = {d.name for h in self.hierarchies for d in h.group.iterdir() if d.is_dir()}
        for name in sorted(n for n in there if n not in names):
            group = HostGroup(self, name)
            if not group.vanish() and not spare_busy:
                self.removed_later(group)

    def sweep(self) -> None:
        """Remove what daemons that are gone have left, other than this one's before us."""
        for hierarchy in self.hierarchies:
            group_owners.sweep(hierarchy.group.parent)

    def removed_later(self, group: HostGroup) -> None:
        """What has processes now, in a moment; without an event loop it stays, for the next daemon."""
        with contextlib.suppress(RuntimeError):
            task = asyncio.get_running_loop().create_task(_end(group))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def checks(self) -> list[Check]:
        if self.troubles:
            return [Check(name="control groups", status="warn", found="; ".join(self.troubles), hint=_HINT)]
        found = f"one for each virtual machine, below {self.hierarchies[0].group}"
        return [Check(name="control groups", status="ok", found=found)]

    async def close(self) -> None:
        if self._ending:
            await tasks.to_the_end(asyncio.wait(self._ending))
        for hierarchy in self.hierarchies:
            if _removed(hierarchy.group):
                _removed(hierarchy.group.parent)  # where no other daemon has one
        while self._held:
            os.close(self._held.pop())


async def _end(group: HostGroup) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not group.vanish():
        passed = loop.time() - begun
        if passed > _AWAIT:
            log.error("the control group %s is not removed: the kernel keeps its processes", group.name)
            return
        if passed > _KILL:
            group.kill()
        await asyncio.sleep(_LOOK)


def _prepared(hierarchy: Hierarchy, parent: str, name: str) -> Hierarchy:
    """With the daemon's group in it, which the machines' are made in.

    :raise OSError: it may not be made, or has no controllers.
    """
    top = hierarchy.group
    if (
        hierarchy.version == 2 and top.name == LEAF and not parent.startswith("/")
    ):  # where an earlier start of ours, or systemd, has put us
        top = top.parent
    steps = [top]
    for word in (*parent.strip("/").split("/"), name):
        steps.append(steps[-1] / word)
    for at, path in enumerate(steps):
        path.mkdir(exist_ok=True)
        if hierarchy.version == 2:
            _switch_on(path, hierarchy, ours=at == 0 and not parent.startswith("/"))
    return Hierarchy(steps[-1], hierarchy.version, hierarchy.controllers)


def _switch_on(group: Path, hierarchy: Hierarchy, *, ours: bool) -> None:
    """Let groups below have the controllers; in our own group, which is ours alone, we make way for that.

    :raise OSError: it has processes of others.
    """
    file, text = group / "cgroup.subtree_control", switched_on(hierarchy)
    missing = set(text.replace("+", "").split()) - set(file.read_text().split())
    if not missing:
        return
    try:
        file.write_text(text)
    except OSError as error:
        if error.errno != errno.EBUSY or not ours:
            raise
        if set((group / "cgroup.procs").read_text().split()) != {str(os.getpid())}:
            raise OSError(errno.EBUSY, "other programs are in hyperd's own group", str(group)) from error
        (group / LEAF).mkdir(exist_ok=True)
        (group / LEAF / "cgroup.procs").write_text(str(os.getpid()))
        file.write_text(text)
