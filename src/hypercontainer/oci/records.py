# SPDX-License-Identifier: Apache-2.0
"""What this runtime keeps of its containers: a directory for each below --root, which its callers choose."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Conflict, InvalidArgument, NotFound
from ..sys.proc import start_time

_ID = re.compile(r"^[\w+.-]{1,1024}\Z", re.ASCII)
_FILE = "state.json"
_NAME_MAX = 100  # characters of an id in a name


class Record(NamedTuple):
    """A container of a bundle."""

    id: str
    host: str  # of hyperd's that has it: later calls need not name it
    bundle: str
    rootfs: str
    container: str  # hyperd's id
    pod: str  # hyperd's id; of a container that has joined another one's, that one's
    owns_pod: bool
    created: str  # RFC 3339
    annotations: dict[str, str]
    hooks: dict[str, list[dict[str, Any]]]
    pid: int = 0  # of the process of this host that stands for it
    pid_started: int = 0  # in clock ticks since the host's boot: a number may be given again
    started: bool = False
    owner: str = ""


def stands(record: Record) -> bool:
    """Whether the process that stands for it is there."""
    return record.pid > 0 and start_time(record.pid) == record.pid_started


class Records:
    """Below one directory."""

    def __init__(self, root: str) -> None:
        self._root = Path(root).absolute()

    def claim(self, id_: str) -> None:
        """The id is taken from here on.

        :raise Conflict: it is in use. :raise InvalidArgument: it is none.
        """
        if not _ID.match(id_) or id_ in (".", ".."):
            raise InvalidArgument(f"invalid container id {id_!r}", hint="use letters, digits, '_', '+', '-' and '.'")
        try:
            self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
            (self._root / id_).mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"container with given ID already exists: {id_}") from None

    def is_claimed(self, id_: str) -> bool:
        """Whether the id is taken, be it by one that was never made."""
        return bool(_ID.match(id_)) and (self._root / id_).is_dir()

    def name_of(self, id_: str) -> str:
        """What hyperd calls it, and its pod: callers with other directories may have the same ids."""
        unique = hashlib.sha256(f"{self._root}/{id_}".encode()).hexdigest()[:6]
        plain = re.sub(r"[^a-zA-Z0-9_.-]", "-", id_[:_NAME_MAX]).lstrip("_.-")
        return f"oci-{plain}-{unique}"

    def put(self, record: Record) -> None:
        """Whole, or as it was before."""
        path = self._root / record.id / _FILE
        new = path.with_suffix(".new")
        new.write_text(json.dumps(record._asdict()))
        new.replace(path)

    def change(self, record: Record, **fields: Any) -> Record:
        """The record with these, kept."""
        changed = record._replace(**fields)
        self.put(changed)
        return changed

    def stood(self, record: Record, pid: int) -> Record:
        """The record with the process that stands for it from now on."""
        return self.change(record, pid=pid, pid_started=start_time(pid))

    def get(self, id_: str) -> Record:
        """:raise NotFound: with the words by which callers know it."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            if _ID.match(id_):
                return Record(**json.loads((self._root / id_ / _FILE).read_text()))
        raise NotFound(f"container {id_!r} does not exist")

    def remove(self, id_: str) -> None:
        """Idempotent."""
        if _ID.match(id_) and id_ not in (".", ".."):
            shutil.rmtree(self._root / id_, ignore_errors=True)

    def all(self) -> Iterator[Record]:
        """By their ids; what is just being made is left out."""
        names = sorted(os.listdir(self._root)) if self._root.is_dir() else []
        for name in names:
            with contextlib.suppress(NotFound):
                yield self.get(name)

    def by_pid(self, pid: int) -> Record | None:
        """Whose stand-in has this number."""
        return next((r for r in self.all() if r.pid == pid and stands(r)), None)
