# SPDX-License-Identifier: Apache-2.0
"""The records of organisations, projects and users: whose they are, not who may see them (`tenancy`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from ..errors import Conflict
from ..model.policy import Policy
from ..model.principal import Tenant
from ..model.tenancy import Organisation, Project, Role, User
from ..state import changes as rows
from ..state.changes import Change
from ..state.journal import Journal
from . import naming

_TenancyRecord = Organisation | Project | User


class _Record(Protocol):
    @property
    def id(self) -> str:
        """By which it is referred to."""

    @property
    def name(self) -> str:
        """What people call it."""


R = TypeVar("R", bound=_Record)


class Contents(Protocol):
    """What there is in projects, by their ids."""

    def counted(self, project: str, *, everything: bool = False) -> list[str]:
        """A sentence's end for each kind of thing that people made in it: "3 containers". With `everything` also of
        what they did not make.
        """

    async def clear(self, project: str) -> None:
        """Take away what people did not make."""


class _Nothing:
    def counted(self, project: str, *, everything: bool = False) -> list[str]:
        return []

    async def clear(self, project: str) -> None:
        return None


def pick(records: Iterable[R], key: str) -> R | None:
    """By id or name."""
    found = list(records)
    return next((r for r in found if r.id == key), None) or next((r for r in found if r.name == key), None)


class Tenants:
    """The only holder of these records."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._organisations = {o.id: o for o in journal.database.organisations()}
        self._projects = {p.id: p for p in journal.database.projects()}
        self._users = {u.id: u for u in journal.database.people()}
        self.contents: Contents = _Nothing()
        self.leave: Callable[[Project], Awaitable[None]] = _stay  # what a project has elsewhere goes before it
        self.write_removal: Callable[[Organisation, Change], None] = lambda of, change: journal.write_now(change)

    def organisations(self) -> list[Organisation]:
        """By their names."""
        return sorted(self._organisations.values(), key=lambda o: o.name)

    def projects(self) -> list[Project]:
        """By their names."""
        return sorted(self._projects.values(), key=lambda p: (p.name, p.organisation))

    def users(self) -> list[User]:
        """By their names."""
        return sorted(self._users.values(), key=lambda u: u.name)

    def organisation(self, id_: str) -> Organisation:
        """That of an id that a record has."""
        return self._organisations[id_]

    def project(self, tenant: Tenant) -> Project | None:
        """The one whose things have this tenant; None for those of no project."""
        return self._projects.get(tenant) if tenant else None

    def policy_of(self, tenant: Tenant) -> Policy | None:
        """Of the project whose things have this tenant."""
        project = self.project(tenant)
        return project.policy if project else None

    def projects_of(self, organisation: str) -> list[Project]:
        """Those of an organisation, by its id, by their names."""
        return [p for p in self.projects() if p.organisation == organisation]

    def name(self, id_: str) -> str:
        """Of a project or an organisation; its id when it is no more."""
        found = self._projects.get(id_) or self._organisations.get(id_)
        return found.name if found else id_

    def user(self, id_: str) -> User | None:
        """None: they are gone."""
        return self._users.get(id_)

    def by_certificate(self, common_name: str) -> User | None:
        """Who shows it."""
        return next((u for u in self._users.values() if common_name and u.certificate == common_name), None)

    def by_login(self, login: str) -> User | None:
        """Of whom the identity provider says that."""
        return next((u for u in self._users.values() if login and u.login == login), None)

    def knows_anybody(self) -> bool:
        """Whether there are organisations or users."""
        return bool(self._organisations or self._users)

    def role(self, user: str, organisation: str) -> Role | None:
        """What a user is in an organisation, both by id; None: no member."""
        found = self._organisations.get(organisation)
        return found.members.get(user) if found else None

    def memberships(self, user: str) -> list[Organisation]:
        """Those that a user, by id, is a member of."""
        return [o for o in self.organisations() if user in o.members]

    def check_name(self, kind: str, name: str, records: Iterable[_TenancyRecord]) -> None:
        """:raise InvalidArgument: malformed. :raise Conflict: one of the records has it."""
        naming.check(kind, name)
        if any(r.name == name for r in records):
            raise Conflict(f"the name {name!r} is taken by another {kind}", hint="choose another")

    def put(self, *records: _TenancyRecord) -> None:
        """All of them, or none. :raise NoSpace: the disk is full."""
        self._journal.write_now(*map(rows.put, records))
        for record in records:
            if isinstance(record, Organisation):
                self._organisations[record.id] = record
            elif isinstance(record, Project):
                self._projects[record.id] = record
            else:
                self._users[record.id] = record

    def remove(self, record: _TenancyRecord) -> None:
        """:raise NoSpace: the disk is full: it is there still."""
        if isinstance(record, Organisation):
            self.write_removal(record, rows.remove(record))  # with its last invoices
        else:
            self._journal.write_now(rows.remove(record))
        for held in (self._organisations, self._projects, self._users):
            held.pop(record.id, None)


async def _stay(project: Project) -> None: ...
