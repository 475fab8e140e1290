# SPDX-License-Identifier: Apache-2.0
"""Records by their ids, and in groups: what is one tenant's is found without a look at all others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Generic, Protocol, TypeVar

from ..model.principal import Tenant


class _Owned(Protocol):
    @property
    def tenant(self) -> Tenant: ...


R = TypeVar("R", bound=_Owned)


class Indexed(Generic[R]):
    """As a dictionary, in the order in which records came; one that takes another's place has that one's."""

    def __init__(
        self, records: Iterable[tuple[str, R]] = (), groups: Callable[[R], Iterable[Hashable]] = lambda _: ()
    ) -> None:
        """`groups` says in which a record is, beside its tenant's."""
        self._groups_of = groups
        self._all: dict[str, R] = {}
        self._tenants: dict[Hashable, dict[str, R]] = {}
        self._groups: dict[Hashable, dict[str, R]] = {}
        self._within: dict[str, set[Hashable]] = {}  # in which groups each is
        for id_, record in records:
            self[id_] = record

    def __getitem__(self, id_: str) -> R:
        return self._all[id_]

    def __contains__(self, id_: str) -> bool:
        return id_ in self._all

    def __setitem__(self, id_: str, record: R) -> None:
        groups = set(self._groups_of(record))
        for group in self._within.get(id_, set()) - groups:
            _leave(self._groups, group, id_)
        if (before := self._all.get(id_)) and before.tenant != record.tenant:
            _leave(self._tenants, before.tenant, id_)
        self._all[id_], self._within[id_] = record, groups
        self._tenants.setdefault(record.tenant, {})[id_] = record
        for group in groups:
            self._groups.setdefault(group, {})[id_] = record

    def get(self, id_: str) -> R | None:
        """None: there is none."""
        return self._all.get(id_)

    def pop(self, id_: str) -> R | None:
        """None: there is none."""
        if record := self._all.pop(id_, None):
            _leave(self._tenants, record.tenant, id_)
            for group in self._within.pop(id_):
                _leave(self._groups, group, id_)
        return record

    def values(self) -> Collection[R]:
        """Everybody's."""
        return self._all.values()

    def of(self, tenant: Tenant) -> Collection[R]:
        """A tenant's."""
        return self._tenants.get(tenant, {}).values()

    def group(self, of: Hashable) -> Collection[R]:
        """Of one that `groups` gave."""
        return self._groups.get(of, {}).values()


def _leave(groups: dict[Hashable, dict[str, R]], group: Hashable, id_: str) -> None:
    members = groups[group]
    del members[id_]
    if not members:
        del groups[group]
