# SPDX-License-Identifier: Apache-2.0
"""What is written to the database: records that come, change and go."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from ..model.base import Model, encode
from ..model.billing import Account, Credit, Invoice, PriceList
from ..model.cluster import Collected
from ..model.cron import Cron
from ..model.deployments import Deployment
from ..model.fips import Fip
from ..model.metering import Moment, Open, Use
from ..model.network import Network
from ..model.principal import Tenant
from ..model.security_groups import SecurityGroup
from ..model.status import Container, Pod, Volume
from ..model.tenancy import Organisation, Project, User
from ..model.tokens import Token

Bill = Account | Credit | Invoice | PriceList
Thing = Container | Pod | Volume | Network | Cron | SecurityGroup | Fip | Deployment
Record = Thing | Token | Organisation | Project | User | Bill
R = TypeVar("R", bound=Record)
_PEOPLE = "people"  # `users` are the numbers that machines run as


class Change(NamedTuple):
    """One row that is put, or removed when there is no document."""

    table: str
    id: str
    name: str = ""
    document: bytes | None = None
    owner: str = ""
    tenant: str = ""  # "" is the only one


def put(record: Record) -> Change:
    """:raise InvalidArgument: a value that could not be read back, by its field."""
    return Change(
        table(type(record)), key(record), record.name, encode(record), record.owner, record.tenant or ""
    )  # fmt: skip


def remove(record: Record) -> Change:
    """The change that forgets a record."""
    return Change(table(type(record)), key(record))


def begun(id_: str) -> Change:
    """What has this id is being made, or removed."""
    return Change("unfinished", id_, document=b"")


def finished(id_: str) -> Change:
    """The change that says that nothing of this id is half made any more."""
    return Change("unfinished", id_)


def user_taken(number: int, allotment: str) -> Change:
    """The change by which a machine has a user number: one that another has is refused."""
    return Change("users", str(number), allotment, b"")


def user_free(number: int) -> Change:
    """The change by which it has it no longer."""
    return Change("users", str(number))


def used(use: Use) -> Change:
    """The change that adds an entry to the ledger; its number is to be the next one."""
    return Change("uses", str(use.number), document=encode(use))


def metered(key: str, what: Open | Moment | Collected | None) -> Change:
    """The change by which something is used from now on, or not any more (None); also what is kept beside that."""
    return Change("metering", key, document=encode(what) if what else None)


def key(record: Record) -> str:
    """What it has as its id."""
    return volume_key(record.name, record.tenant) if isinstance(record, Volume) else record.id


def volume_key(name: str, tenant: Tenant) -> str:
    """A volume has no id but its name, and its tenant's where there is more than one; no name has a colon."""
    return f"{tenant}:{name}" if tenant else name


def table(type_: type[Model]) -> str:
    """The table of a kind of record."""
    return _PEOPLE if type_ is User else f"{type_.__name__.lower()}s"
