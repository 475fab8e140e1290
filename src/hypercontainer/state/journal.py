# SPDX-License-Identifier: Apache-2.0
"""Changes of records on their way to the database.

What has happened is in memory first, and written as soon as that can be: a
full disk delays it, and never stops whoever tells it. What is still to be
decided, such as the creation of a container, is written first, or refused.
"""

from __future__ import annotations

import asyncio
import logging

from ..errors import HyperError
from .changes import Change
from .database import Database

log = logging.getLogger(__name__)
_RETRY = 1.0  # seconds between attempts while the database cannot be written


class Journal:
    """The only writer of the database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.trouble = ""  # why records are not written at present
        self._pending: list[Change] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> int:
        """Changes that are in memory only."""
        return len(self._pending)

    def write(self, *changes: Change) -> None:
        """Now, or when it can be."""
        for change in changes:
            self._add(change)
        self._flush()

    def later(self, change: Change) -> None:
        """With the next one: nothing is lost if it never comes to that."""
        self._add(change)

    def write_now(self, *changes: Change) -> None:
        """All of them, after what waits, or none.

        :raise NoSpace: when the disk is full. :raise Unavailable: when the database cannot be written for another reason.
        """
        try:
            self.database.commit([*self._pending, *changes])
        except HyperError as error:
            if self._pending:
                self._failed(error)
            raise
        self._written()

    def _add(self, change: Change) -> None:
        """A later state of a record replaces an earlier one; the order of names that change hands is kept."""
        for at in range(len(self._pending) - 1, -1, -1):
            earlier = self._pending[at]
            if (earlier.table, earlier.id) == (change.table, change.id):
                if earlier.name == change.name:
                    self._pending[at] = change
                    return
                break
        self._pending.append(change)

    def _flush(self) -> None:
        try:
            self.database.commit(self._pending)
        except HyperError as error:
            self._failed(error)
        else:
            self._written()

    def _failed(self, error: HyperError) -> None:
        if not self.trouble:
            log.error("records are kept in memory only until the database can be written: %s", error)
        self.trouble = str(error)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_RETRY, self._again)
            except RuntimeError:  # without a loop there is nobody to wait; `close` tries once more
                return

    def _again(self) -> None:
        self._timer = None
        self._flush()

    def _written(self) -> None:
        self._pending.clear()
        if self.trouble:
            log.warning("the database can be written again")
            self.trouble = ""

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            self._flush()
        if self._timer:
            self._timer.cancel()
        if self._pending:
            log.error("%d changes of records are lost: %s", len(self._pending), self.trouble)
        self.database.close()
