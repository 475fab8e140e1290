# SPDX-License-Identifier: Apache-2.0
"""The audit log: who asked for what, when, and what came of it, as JSON lines in a file that is rotated.

A line is written when it is known, without a delay, so that a crash of hyperd loses none. Where it cannot be
written, on a full disk, nobody waits for it: lines are kept in memory, the ones that are too many are counted, and
an event, `info`, `doctor` and the daemon's log say so until all has been written.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import UNSET

from ..errors import PermissionDenied
from ..model.audit import AuditEntry
from ..model.host import Check
from ..model.principal import Tenant
from ..sys.documents import UNREADABLE
from ..sys.files import no_space
from .events import Events

log = logging.getLogger(__name__)
_WAITING = 10_000  # lines that may wait in memory
_RETRY = 1.0  # seconds between attempts


@dataclass(frozen=True)
class AuditSettings:
    """Where, and how much: `files` with the one that is written, of `size` bytes at most each."""

    path: Path
    size: int = 10 << 20
    files: int = 5


class AuditLog:
    """The only writer of its files."""

    def __init__(self, settings: AuditSettings, events: Events) -> None:
        """:raise PermissionDenied: it cannot be opened: hyperd does not start without the log that was asked for."""
        self._settings = settings
        self._events = events
        self._waiting: deque[bytes] = deque()
        self._lost = 0  # lines, since all had been written last
        self._timer: asyncio.TimerHandle | None = None
        self.trouble = ""
        try:
            settings.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = _open(settings.path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise no_space(settings.path) from error
            raise PermissionDenied(
                f"the audit log {settings.path} cannot be opened: {error.strerror}", hint="correct `audit_log`"
            ) from error

    def write(self, entry: AuditEntry) -> None:
        """Now, or as soon as it can be."""
        if len(self._waiting) == _WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(msgspec.json.encode(entry) + b"\n")
        self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
            if self._lost:
                self._write(b'{"lost":%d}\n' % self._lost)
        except OSError as error:
            self._failed(error)
        else:
            self._written()

    def _write(self, line: bytes) -> None:
        """Whole, or not at all.

        :raise OSError: not at all.
        """
        size = os.fstat(self._fd).st_size
        if size and size + len(line) > self._settings.size:
            self._rotate()
            size = 0
        try:
            done = os.write(self._fd, line)
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        if done < len(line):
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rotate(self) -> None:
        """`path.1` is the youngest of the old ones. A crash in here loses no line of those that are kept."""
        path, last = self._settings.path, self._settings.files - 1
        fd = _open(path.with_name(f"{path.name}.new"))  # first: it may not be possible
        for number in range(last - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.rename(path.with_name(f"{path.name}.{number + 1}"))
        if last:
            path.rename(path.with_name(f"{path.name}.1"))
        path.with_name(f"{path.name}.new").rename(path)
        os.close(self._fd)
        self._fd = fd

    def _failed(self, error: OSError) -> None:
        why = error.strerror or str(error)
        if not self.trouble:
            log.error("the audit log %s cannot be written, lines are kept in memory: %s", self._settings.path, why)
            path = str(self._settings.path)
            self._events.publish("daemon", "audit_failed", "audit", tenant=UNSET, path=path, why=why)
        self.trouble = why
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_RETRY, self._again)

    def _again(self) -> None:
        self._timer = None
        self._flush()

    def _written(self) -> None:
        if self.trouble:
            log.warning("the audit log can be written again; %d lines were lost", self._lost)
            self._events.publish("daemon", "audit_restored", "audit", tenant=UNSET, lost=str(self._lost))
        self.trouble, self._lost = "", 0

    def read(self, project: Tenant, limit: int) -> list[AuditEntry]:
        """The latest `limit` requests, newest first; those for a project, or all for UNSET. For a thread."""
        path = self._settings.path
        names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, self._settings.files))]
        found: list[AuditEntry] = []
        seen: set[tuple[int, int]] = set()  # files, whose names become those of older ones when the log is rotated
        for name in names:
            if len(found) < limit:
                with contextlib.suppress(FileNotFoundError), open(name, "rb") as lines:  # fewer there are, or just now
                    about = os.fstat(lines.fileno())
                    if (about.st_dev, about.st_ino) not in seen:
                        seen.add((about.st_dev, about.st_ino))
                        found += _latest(lines, project, limit - len(found))
        return found

    def state(self) -> str:
        """For `info`."""
        where = str(self._settings.path)
        if self.trouble:
            return f"{where}: failing ({self.trouble}; {len(self._waiting)} lines wait, {self._lost} are lost)"
        return where

    def checks(self) -> list[Check]:
        """For `doctor`."""
        if not self.trouble:
            return [Check(name="audit log", status="ok", found=self.state())]
        hint = "free some space, or mend its disk: what waits is in memory only, and what is too much is lost"
        return [Check(name="audit log", status="fail", found=self.state(), hint=hint)]

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._timer:
            self._timer.cancel()
        if self._waiting:
            log.error("%d lines of the audit log are lost: %s", len(self._waiting) + self._lost, self.trouble)
        os.close(self._fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _latest(lines: Iterable[bytes], project: Tenant, limit: int) -> list[AuditEntry]:
    """Of one file, newest first. A line that a crash has cut off, or that tells of lost ones, is none."""
    kept: deque[AuditEntry] = deque(maxlen=limit)
    own = b"" if project is UNSET else f'"project":"{project}"'.encode()
    for line in lines:
        if own in line and (entry := _entry(line)) and project in (UNSET, entry.project):
            kept.append(entry)
    return list(reversed(kept))


def _entry(line: bytes) -> AuditEntry | None:
    try:
        return msgspec.json.decode(line, type=AuditEntry)
    except UNREADABLE:
        return None
