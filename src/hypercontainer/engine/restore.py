# SPDX-License-Identifier: Apache-2.0
"""`hyperd --recover`: a state again, after the database was damaged or lost.

The damaged file is kept aside under a name. What can be read of it is taken
over; what a running pod's description says is newer, and goes before it. A
volume is brought back by the description beside its files. A machine without
a description is set aside as a record that cannot be read is: it goes on,
`doctor` names it, and `doctor --forget` ends it. What is not brought back is
named; no file of a container or volume is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from ..errors import HyperError
from ..model.status import Container, Event, Pod, Volume
from ..state import changes, description, salvage
from ..state.changes import Record
from ..state.database import DamagedDatabase, Database
from ..state.description import Description
from ..state.migrations import free_name
from ..state.store import Happened
from ..sys import clock
from ..sys.documents import UNREADABLE
from ..sys.files import copy_sparse
from .paths import MACHINES_OF_OURS, Paths

log = logging.getLogger(__name__)
_BESIDE = ("", "-wal", "-shm")  # SQLite's files
_DECODE_ERRORS = (*UNREADABLE, TypeError)


def restore(paths: Paths, runs_in: Callable[[Path], bool]) -> None:
    """Put a readable database into the place of one that is not; nothing happens to one that can be read.

    `runs_in` says whether a machine runs in a directory.

    :raise NoSpace: when the disk is full; :raise Unavailable: when it was written by a newer hyperd. All is as it was.
    """
    if (why := _trouble(paths.database)) is None:
        log.info("the state database %s can be read: there is nothing to recover", paths.database)
        return
    aside = _keep_aside(paths.database)
    new = paths.database.with_name(f"{paths.database.name}.new")
    for end in _BESIDE:
        Path(f"{new}{end}").unlink(missing_ok=True)
    database = Database(new)
    try:
        rows = salvage.read_rows(aside) if aside else {}
        told = _fill(database, rows, _volumes(paths), _machines(paths, runs_in))
    finally:
        database.close()
    for end in _BESIDE[1:]:
        Path(f"{paths.database}{end}").unlink(missing_ok=True)  # of the old one: it has them aside
    new.rename(paths.database)
    where = f", which is kept as {aside}" if aside else ""
    log.warning("the state database %s was made anew instead of one that %s%s", paths.database, why, where)
    for sentence in told:
        log.warning("%s", sentence)


def _trouble(path: Path) -> str | None:
    """What is wrong with the file; None when it can be read."""
    if not path.exists():
        return "was missing"
    if not path.stat().st_size:
        return "was empty"
    try:
        Database(path).close()
    except DamagedDatabase as error:
        return f"was damaged ({error.why})"
    return None


def _keep_aside(path: Path) -> Path | None:
    """A copy of SQLite's files, so that a crash in here leaves all as it was."""
    if not path.exists():
        return None
    aside = free_name(path, f"damaged-{clock.now():%Y%m%dT%H%M%SZ}")
    for end in _BESIDE:
        if Path(f"{path}{end}").exists():
            copy_sparse(Path(f"{path}{end}"), Path(f"{aside}{end}"))
    return aside


def _machines(paths: Paths, runs_in: Callable[[Path], bool]) -> dict[Path, Description | str]:
    """The directories of pods' machines with their descriptions, or why they have none though a machine runs there."""
    top = paths.run / "pods"
    found = sorted(d for d in top.iterdir() if d.is_dir() and not d.name.startswith(MACHINES_OF_OURS))
    found += sorted((paths.root / "pods").glob("*/suspended"))
    described = {d: description.read(d) for d in found}
    return {d: what for d, what in described.items() if isinstance(what, Description) or runs_in(d)}


def _volumes(paths: Paths) -> list[Volume]:
    """Those whose files are where their descriptions say."""
    places = [paths.volumes, *paths.project_volumes()]
    found = sorted(d for place in places for d in place.iterdir() if d.is_dir() and d not in places)
    described = [(d, description.read_volume(d)) for d in found]
    return [v for d, v in described if isinstance(v, Volume) and d == paths.volume(v.name, v.tenant)]


def _fill(
    database: Database,
    rows: dict[str, list[dict[str, Any]]],
    volumes: list[Volume],
    machines: dict[Path, Description | str],
) -> list[str]:
    """Write what is known; sentences of what is brought back, and of what is not."""
    described = {d: found for d, found in machines.items() if isinstance(found, Description)}
    records: dict[tuple[str, str], Record] = {}
    told: list[str] = []
    for record in [*volumes, *_readable(rows, database), *_of_descriptions(described.values())]:
        records[(changes.table(type(record)), changes.key(record))] = record
    for alone in _alone(records):
        del records[(changes.table(type(alone)), alone.id)]
        other = "container" if isinstance(alone, Pod) else "pod"
        told.append(f"{_what(alone)} is not brought back: the record of its {other} is lost; its files stay")
    for record in records.values():
        try:
            database.commit([changes.put(record)])
        except HyperError as error:
            told.append(f"{_what(record)} is not brought back: {error.message}")
    database.commit([], [_happened(e) for e in rows.get("events", []) if _is_event(e)])
    database.restore_uses(rows.get("uses", []))
    database.commit([changes.Change("metering", m["id"], document=m["document"]) for m in rows.get("metering", [])])
    counts = ", ".join(f"{sum(k == kind for k, _ in records)} {kind}" for kind in salvage.TABLES[:4])
    told.append(f"brought back: {counts}; {len(described)} pods ran when they were described last")
    for directory, why in machines.items():
        if isinstance(why, str):
            database.set_record_aside("pods", directory.name, directory.name, b"", why)
            told.append(f"the virtual machine in {directory} goes on, and is not known: {why}; "
                        f"`hyperctl doctor --forget {directory.name}` ends it")  # fmt: skip
    return told


def _readable(rows: dict[str, list[dict[str, Any]]], database: Database) -> Iterator[Record]:
    """The records among the rows; those that cannot be decoded are set aside, as those of before stay."""
    for kind in get_args(Record):
        table = changes.table(kind)
        for row in rows.get(table, []):
            try:
                yield cast(Record, msgspec.json.decode(row["document"], type=kind))
            except _DECODE_ERRORS as error:
                database.set_record_aside(table, row["id"], row["name"], row["document"], str(error))
    for row in rows.get("set_aside", []):
        database.set_record_aside(row["kind"], row["id"], row["name"], row["document"], row["why"])


def _of_descriptions(described: Iterable[Description]) -> Iterator[Record]:
    for found in described:
        yield found.pod
        yield from found.containers
        yield from found.volumes
        yield from found.networks


def _alone(records: dict[tuple[str, str], Record]) -> list[Container | Pod]:
    """Containers without their pod, and pods of one container without it, whose files recovery would remove."""
    pods = {r.id for r in records.values() if isinstance(r, Pod)}
    members = {r.pod for r in records.values() if isinstance(r, Container)}
    return [
        r
        for r in records.values()
        if (isinstance(r, Container) and r.pod not in pods)
        or (isinstance(r, Pod) and r.implicit and r.id not in members)
    ]


def _is_event(row: dict[str, Any]) -> bool:
    return isinstance(row.get("time"), int) and isinstance(row.get("document"), bytes)


def _happened(row: dict[str, Any]) -> Happened:
    """An earlier schema has no column for whose it is, and its document says it."""
    try:
        whose = msgspec.json.decode(row["document"], type=Event).tenant or ""
    except UNREADABLE:
        whose = ""
    return Happened(row["time"], row["document"], whose)


def _what(record: Record) -> str:
    return f"{type(record).__name__.lower()} {record.name}" + (
        "" if isinstance(record, Volume) else f" ({record.id[:12]})"
    )
