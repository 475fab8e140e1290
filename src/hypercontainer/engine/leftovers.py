# SPDX-License-Identifier: Apache-2.0
"""What is there without a record: machines, files, and the database itself.

A crash leaves what is half made, which its intent in the database names and
recovery removes. What no record and no intent names may be all that is left
of somebody's work after the database was lost: it is named, and left alone.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ..errors import Unavailable
from ..hypervisor.driver import Driver, Machine
from ..hypervisor.facets import Strays
from ..model.status import Check
from ..sys.files import remove_tree
from .paths import Paths
from .registry import Registry

log = logging.getLogger(__name__)
_NAMED = 5  # directories in a message


def check_database(paths: Paths, driver: Driver) -> None:
    """Before it is opened, which would make a new one.

    :raise Unavailable: when it is lost, and something is there that only it knows.
    """
    path = paths.database
    if path.exists() and path.stat().st_size:
        return
    lost = "empty" if path.exists() else "missing"
    machines = sorted(m.pid for m in strays(driver, paths, set()))
    files = [] if lost == "missing" else _directories(paths)  # who moved it away was told that they stay
    if machines:
        numbers = " ".join(map(str, machines))
        raise Unavailable(
            f"the state database {path} is {lost}, and virtual machines run that only it knows (processes {numbers})",
            hint=f"restore it from a backup; or give them up: end them with `kill {numbers}` and remove the file",
        )
    if files:
        raise Unavailable(
            f"the state database {path} is empty, and {len(files)} containers and pods have files below {paths.root}",
            hint="restore it from a backup, or remove it to start with an empty state; the files stay where they are",
        )


def strays(driver: Driver, paths: Paths, keep: set[Path]) -> list[Machine]:
    """Machines whose directory is not one of these."""
    return driver.strays(paths.run / "pods", keep) if isinstance(driver, Strays) else []


async def end_machines(paths: Paths, driver: Driver, keep: set[Path]) -> None:
    """All but those with these directories; what else has a directory there is removed."""
    await asyncio.gather(*(m.kill() for m in strays(driver, paths, keep)))
    for directory in (paths.run / "pods").iterdir():
        if directory not in keep:
            remove_tree(directory)


async def end_unknown(paths: Paths, driver: Driver, registry: Registry) -> None:
    """Those that no record knows; machines of records that cannot be read go on."""
    keep = {paths.machine(p.id) for p in registry.pods() if p.vm} | {
        paths.machine(aside.pod) for aside in registry.set_aside
    }
    await end_machines(paths, driver, keep)


def name_files(paths: Paths, registry: Registry) -> None:
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
    for aside in registry.set_aside:
        what = f"the record of {aside.kind[:-1]} {aside.name} ({aside.id[:12]}) cannot be read and was set aside"
        found.append(Check(name="state", status="fail", found=what, hint=aside.why))
    known = {c.id for c in registry.containers()} | {p.id for p in registry.pods()} | {a.id for a in registry.set_aside}
    known |= {a.pod for a in registry.set_aside} | set(registry.unfinished)
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
    """Of containers and pods, relative to the root."""
    places = [paths.root / "containers", paths.root / "pods"]
    return sorted(
        str(d.relative_to(paths.root)) for place in places if place.is_dir() for d in place.iterdir() if d.is_dir()
    )
