# SPDX-License-Identifier: Apache-2.0
"""Records of security groups."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NotFound
from ..model.principal import Tenant
from ..model.security_groups import SecurityGroup
from ..state import changes as rows
from ..state.journal import Journal
from . import naming


class GroupRecords:
    """The only holder of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._records = {g.id: g for g in journal.database.security_groups()}

    def all(self) -> list[SecurityGroup]:
        """Everybody's, by name."""
        return sorted(self._records.values(), key=lambda g: g.name)

    def of(self, tenant: Tenant) -> Sequence[SecurityGroup]:
        """A tenant's, by name."""
        return [g for g in self.all() if g.tenant == tenant]

    def find(self, key: str) -> SecurityGroup:
        """By id, name, or the beginning of an id. :raise NotFound: there is none that one sees."""
        return naming.pick(self._records, key, "security group", "see `hyperctl sg ls`")

    def check(self, names: Sequence[str]) -> None:
        """:raise NotFound: there is no group of this name for who asks."""
        for name in names:
            if not naming.find(self._records.values(), name):
                raise NotFound(f"no such security group: {name}", hint="see `hyperctl sg ls`")

    def put(self, record: SecurityGroup) -> None:
        """:raise NoSpace: when the disk is full."""
        self._journal.write_now(rows.put(record))
        self._records[record.id] = record

    def remove(self, record: SecurityGroup) -> None:
        """:raise NoSpace: when the disk is full; it is there still."""
        self._journal.write_now(rows.remove(record))
        self._records.pop(record.id, None)
