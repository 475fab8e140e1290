# SPDX-License-Identifier: Apache-2.0
"""Which ledger a host's is: a name, and the digests of its entries, by which who collects it knows that it is the same.

A ledger that is put back from a backup goes on in another way than it did, so it is another one then, which says up to
where it was the earlier one.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec
from msgspec.structs import replace

from ..model.cluster import Collected, EarlierLedger
from ..model.metering import Use
from ..sys.documents import UNREADABLE
from .changes import metered
from .store import Store

KEY = "ledger"  # of the row beside what is used now


def digest(use: Use) -> str:
    """Of what of an entry is the same in all versions of hyperd."""
    of = use.subject
    told = f"{use.number} {of.kind} {of.tenant} {of.id} {use.began} {use.lasted} {use.boot} {use.boot_id}"
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:32]


def kept(store: Store) -> Collected | None:
    """Which ledger it is; None of one that has no entry yet, and that nobody has asked for.

    One of which no row tells is named by its first entry: it is so in all backups of it.

    :raise ValueError: what tells of it cannot be read.
    """
    if document := store.metered().get(KEY):
        return msgspec.json.decode(document, type=Collected)
    first = store.uses_after(0, 1)
    return Collected(ledger=digest(first[0])[:16], node="") if first else None


def new() -> Collected:
    """One that nobody else has."""
    return Collected(ledger=secrets.token_hex(8), node="")


def begin_anew(store: Store) -> None:
    """After the database was put back."""
    try:
        before = kept(store)
    except UNREADABLE:
        return  # it is told when it is wanted
    if before:
        earlier = [EarlierLedger(ledger=before.ledger, until=store.last_use()), *before.earlier]
        store.commit([metered(KEY, replace(new(), earlier=earlier))])
