# SPDX-License-Identifier: Apache-2.0
"""A node's ledger, as it is told to the control daemon that collects it (`collecting`)."""

from __future__ import annotations

from msgspec import UNSET

from ...cluster.port import PAGE
from ...errors import PermissionDenied
from ...model.cluster import Collected, LedgerPart
from ...state import changes as rows
from ...state.journal import Journal
from ...state.ledger_names import KEY, digest, kept, new
from ..principal import current
from .intervals import now
from .meter import Meter

_CUT = 600_000  # milliseconds after which what is used becomes entries, though it goes on


class Telling:
    """Of one daemon."""

    def __init__(self, journal: Journal, meter: Meter) -> None:
        self._journal, self._meter = journal, meter
        self._kept: Collected | None = None

    def part(self, after: int) -> LedgerPart:
        """Entries of projects that this daemon does not have; what they use now becomes entries before that.

        :raise PermissionDenied: who asks is a project's. :raise NoSpace: the disk is full.
        """
        if current().tenant is not UNSET:
            raise PermissionDenied("the ledger is the host's, and no project's", hint="ask without a project")
        self._meter.cut(_CUT)
        store = self._journal.database
        found = store.uses_after(after, PAGE)
        charged = [o for o in self._meter.used_now() if self._meter.is_charged(o)]
        whole = min((o.since.wall for o in charged), default=now().wall)
        before = self._stands(after)
        return LedgerPart(
            ledger=self.name(), last=found[-1].number if found else after, end=store.last_use(),
            whole=0 if self._journal.pending else whole,  # what waits for the disk is in no entry yet
            entries=[u for u in found if u.subject.tenant and not u.subject.payer],
            before=before, stands=digest(found[-1]) if found else before, earlier=self._own().earlier,
        )  # fmt: skip

    def _stands(self, number: int) -> str:
        found = self._journal.database.uses_after(number - 1, 1) if number > 0 else []
        return digest(found[0]) if found else ""

    def name(self) -> str:
        """Of this ledger. :raise NoSpace: the disk is full."""
        return self._own().ledger

    def _own(self) -> Collected:
        """:raise NoSpace: the disk is full."""
        if self._kept is None:
            found = kept(self._journal.database)
            if found is None:
                found = new()
                self._journal.write_now(rows.metered(KEY, found))
            self._kept = found
        return self._kept
