# SPDX-License-Identifier: Apache-2.0
"""What is there without a record: machines, files, and the database itself.

A crash leaves what is half made, which its intent in the database names and
recovery removes. What no record and no intent names may be all that is left
of somebody's work after the database was lost: it is named, and left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidArgument, InvalidState, NotFound, Unavailable
from ..hypervisor.driver import Machine
from ..hypervisor.drivers import Drivers
from ..hypervisor.facets import Strays
from ..model.host import Check
from ..model.states import ALIVE
from ..state.database import DamagedDatabase, Database
from ..sys.trees import remove_tree
from .paths import MACHINES_OF_OURS, Paths
from .registry import Registry

log = logging.getLogger(__name__)
_NAMED = 5  # directories in a message


class _OfNoPod:
    """Directories of machines that wait in the pool or are tried: no work is there, and `end_unknown` ends them."""

    def __contains__(self, directory: object) -> bool:
        return isinstance(directory, Path) and directory.name.startswith(MACHINES_OF_OURS)


_OURS = _OfNoPod()


def open_database(paths: Paths, drivers: Drivers) -> Database:
    """A new one only where nothing is that only a lost one knows.

    :raise Unavailable: when it is lost, or cannot be read.
    """
    _check_not_lost(paths, drivers)
    try:
        return Database(paths.database)
    except DamagedDatabase as error:
        if machines := sorted(m.pid for m in strays(drivers, paths, _OURS)):
            error.message += f"; its virtual machines go on (processes {' '.join(map(str, machines))})"
        raise


def _check_not_lost(paths: Paths, drivers: Drivers) -> None:
    """:raise Unavailable: when it is lost, and something is there that only it knows."""
    path = paths.database
    if path.exists() and path.stat().st_size:
        return
    lost = "empty" if path.exists() else "missing"
    machines = sorted(m.pid for m in strays(drivers, paths, _OURS))
    files = [] if lost == "missing" else _directories(paths)  # who moved it away was told that they stay
    if machines:
        numbers = " ".join(map(str, machines))
        raise Unavailable(
            f"the state database {path} is {lost}, and virtual machines run that only it knows (processes {numbers})",
            hint="start `hyperd --recover` to find them again, or restore it from a backup; "
            f"or give them up: end them with `kill {numbers}` and remove the file",
        )
    if files:
        raise Unavailable(
            f"the state database {path} is empty, and {len(files)} containers and pods have files below {paths.root}",
            hint="start `hyperd --recover`, or restore it from a backup, or remove it to start with an empty state; "
            "the files stay where they are",
        )


def strays(drivers: Drivers, paths: Paths, keep: Container[Path]) -> list[Machine]:
    """Machines whose directory is not one of these."""
    return [m for d in drivers if isinstance(d, Strays) for m in d.strays(paths.run / "pods", keep)]


async def end_machines(paths: Paths, drivers: Drivers, keep: set[Path], pids: Container[int] = ()) -> None:
    """All but those with these directories, or processes; what else has a directory there is removed."""
    await asyncio.gather(*(m.kill() for m in strays(drivers, paths, keep) if m.pid not in pids))
    for directory in (paths.run / "pods").iterdir():
        if directory not in keep:
            remove_tree(directory)


def put_aside_undriven(registry: Registry, drivers: Drivers) -> None:
    """Pods whose machines are of a driver that this hyperd has not: they go on, until one comes that has it."""
    for pod in registry.pods():
        if pod.vm and pod.vm.driver not in drivers:
            why = f"its virtual machine (process {pod.vm.pid}) is of the driver {pod.vm.driver!r}, which this hyperd"
            why += " has not: start one that has it"
            log.error("the record of pod %s is set aside: %s", pod.name, why)
            registry.put_aside(pod, why)


async def end_unknown(paths: Paths, drivers: Drivers, registry: Registry) -> None:
    """Those that no record knows; machines of records that were set aside go on."""
    keep = {paths.machine(p.id) for p in registry.pods() if p.vm} | {
        paths.machine(aside.pod) for aside in registry.set_aside
    }
    await end_machines(paths, drivers, keep, {p.vm.pid for p in registry.pods() if p.vm})


async def forget(paths: Paths, drivers: Drivers, registry: Registry, key: str) -> None:
    """Give a record up that could not be read, by its name or the begin of its id, with its machine; its files stay.

    :raise NotFound: when none was set aside. :raise InvalidArgument: when it may be one of several.
    :raise InvalidState: there is no driver that could end its machine, which runs.
    """
    exact = [a for a in registry.set_aside if key in (a.id, a.name)]
    found = exact or [a for a in registry.set_aside if key and a.id.startswith(key)]
    if not found:
        raise NotFound(f"no record of {key!r} was set aside", hint="see `hyperctl doctor`")
    if len({a.id for a in found}) > 1:
        raise InvalidArgument(f"{key!r} may be one of several", hint="give the id that `hyperctl doctor` shows")
    for pid in [registry.undriven[a.pod] for a in found if a.pod in registry.undriven]:
        if Path(f"/proc/{pid}").exists():
            raise InvalidState(f"there is no driver that could end its virtual machine, process {pid}",
                               hint="start a hyperd that has it, or end the process first")  # fmt: skip
    for aside in found:
        registry.forget_aside(aside)
        others = any(a.pod == aside.pod for a in registry.set_aside)
        if not others and not registry.has_pod(aside.pod):
            await end_machine(paths, drivers, paths.machine(aside.pod))


async def end_machine(paths: Paths, drivers: Drivers, directory: Path) -> None:
    """That of a directory, which is removed; nothing happens when none runs there."""
    await asyncio.gather(*(m.kill() for m in strays(drivers, paths, AllBut(directory))))
    remove_tree(directory)


def runs_in(paths: Paths, drivers: Drivers, directory: Path) -> bool:
    """Whether a machine has this directory."""
    return bool(strays(drivers, paths, AllBut(directory)))


@dataclass(frozen=True)
class AllBut:
    """Every directory but one."""

    one: Path

    def __contains__(self, directory: object) -> bool:
        return directory != self.one


def name_files(paths: Paths, registry: Registry) -> None:
    """Write what `checks` finds wrong to the daemon's log, at its start."""
    for check in checks(paths, registry):
        if check.status != "ok":
            log.warning("%s: %s", check.found, check.hint)


def checks(paths: Paths, registry: Registry) -> list[Check]:
    """For `doctor`."""
    found = []
    if registry.journal.trouble:
        found.append(
            Check(
                name="state", status="fail", found=f"{registry.journal.pending} changes of records are in memory only",
                hint=registry.journal.trouble,
            )
        )  # fmt: skip
    for container in registry.containers():
        if container.state.log_error and container.state.status in ALIVE:
            what = f"the log of container {container.name} cannot be written: {container.state.log_error}"
            hint = "its output is held back until it can: make room, or mend its file system"
            found.append(Check(name="log", status="fail", found=what, hint=hint))
    for aside in registry.set_aside:
        what = f"the record of {aside.kind[:-1]} {aside.name} ({aside.id[:12]}) was set aside: {aside.why}"
        ends = "when that has ended" if aside.pod in registry.undriven else "and ends its virtual machine"
        hint = f"`hyperctl doctor --forget {aside.name}` gives it up, {ends}"
        found.append(Check(name="state", status="fail", found=what, hint=hint))
    known = {c.id for c in registry.containers()} | {p.id for p in registry.pods()} | {a.id for a in registry.set_aside}
    known |= {a.pod for a in registry.set_aside} | set(registry.unfinished)
    known |= {v.name for v in registry.volumes()} | {a.name for a in registry.set_aside if a.kind == "volumes"}
    if strays := [d for d in _directories(paths) if d.rpartition("/")[2] not in known]:
        named = ", ".join(strays[:_NAMED]) + (", ..." if len(strays) > _NAMED else "")
        found.append(
            Check(
                name="files",
                status="warn",
                found=f"{len(strays)} directories below {paths.root} belong to no record: {named}",
                hint="remove them if you do not need them",
            )
        )
    return found or [Check(name="state", status="ok", found="all records can be read and written")]


def _directories(paths: Paths) -> list[str]:
    """Of containers, pods and volumes, relative to the root."""
    places = [paths.root / "containers", paths.root / "pods", paths.volumes, *paths.project_volumes()]
    entries = [entry for place in places if place.is_dir() for entry in place.iterdir()]
    return sorted(str(e.relative_to(paths.root)) for e in entries if e.is_dir() and not e.name.startswith("."))
