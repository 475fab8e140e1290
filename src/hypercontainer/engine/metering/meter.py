# SPDX-License-Identifier: Apache-2.0
"""The meter: what is used begins, changes and ends with the records of pods, volumes and floating addresses.

What it says of a change of a record is written by the transaction that writes the record, so that neither is there
without the other, whenever hyperd dies. What is used now is a row of its own (`Open`), which becomes entries when it
ends, when it changes, and when its day is over.

A pod whose machine ended while no hyperd was there ended at the last moment at which it is known to have run: the last
that an earlier daemon marked, or its last write to one of its disks after that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from ...model.fips import Fip
from ...model.metering import ANY, MIB, Kind, Moment, Open, Subject, Use, mib
from ...model.principal import Tenant
from ...model.status import Pod, PodStatus, Volume
from ...state import changes as rows
from ...state.changes import Change
from ...state.journal import Journal
from ...state.store import SetAside
from ...sys.documents import UNREADABLE
from ..metered import Metered
from .intervals import day_of, entries, is_lasting, latest, now
from .sources import Sources, charged

log = logging.getLogger(__name__)
_MARK = "mark"  # the key of the last moment at which a daemon was there
_BESIDE = "ledger"  # begins the keys of what is kept beside: which ledger this is, and how far others are taken over
_RECORDED: frozenset[Kind] = frozenset(("pod", "suspended", "volume", "address"))  # ends with its record


@dataclass
class Draft:
    """What is to be written, and what is so once it is."""

    number: int  # of the next entry
    changes: list[Change] = field(default_factory=list)
    opened: dict[str, Open | None] = field(default_factory=dict)  # None: ended

    def add(self, found: Iterable[Use]) -> None:
        """Further entries, numbered from `number` on."""
        for use in found:
            self.changes.append(rows.used(use))
            self.number += 1


class Meter:
    """Knows all that is used now; the only one who adds to the ledger."""

    def __init__(self, journal: Journal, sources: Sources) -> None:
        self._journal = journal
        self._sources = sources
        self._number = journal.database.last_use() + 1
        self._closed: dict[str, int] = {}  # by who pays
        self._mark: Moment | None = None
        self._open: dict[str, Open] = {}
        self.beside: dict[str, bytes] = {}  # documents by their keys, for `collecting`
        self.elsewhere: Callable[[int], bool] = lambda wall: False  # as `lasts_from_before`, of other hosts
        for key, document in journal.database.metered().items():
            try:
                if key.startswith(_BESIDE):
                    self.beside[key] = document
                elif key == _MARK:
                    self._mark = msgspec.json.decode(document, type=Moment)
                else:
                    self._open[key] = msgspec.json.decode(document, type=Open)
            except UNREADABLE as error:
                log.error("what is used as %s cannot be read, and is not accounted for: %s", key, error)

    def used_now(self) -> list[Open]:
        """What is told of when its time is over, and lasts still; not counters of bytes."""
        return [o for o in self._open.values() if o.subject.kind != "egress"]

    def close_before(self, wall: int, payer: str) -> None:
        """Days before that moment are accounted for: no entry of this organisation is added to them any more."""
        self._closed[payer] = max(self.closed(payer), wall)

    def closed(self, payer: str) -> int:
        """Milliseconds since the epoch: before it all is accounted for of what this organisation pays."""
        return self._closed.get(payer, 0)

    def lasts_from_before(self, wall: int, payer: str) -> bool:
        """Whether what an organisation used before that moment is not all in the ledger yet."""
        return self.elsewhere(wall) or any(o.since.wall < wall and o.subject.payer == payer for o in self.used_now())

    # -- records --------------------------------------------------------------------

    def write(
        self, write: Callable[..., None], changes: Sequence[Change], *, put: Sequence[Metered] = (),
        gone: Sequence[Metered] = (),
    ) -> None:  # fmt: skip
        """Changes of records, with what they begin, change and end; raises what `write` does, and all is as it was."""
        draft, moment = self._draft(), now()
        for record in put:
            self._follow(draft, record, moment)
        for kind, tenant, id_ in (k for record in gone for k in _keys(record)):
            self._let(draft, None, (kind, tenant, id_), moment)
        write(*changes, *draft.changes)
        self._keep(draft)

    def _follow(self, draft: Draft, record: Metered, moment: Moment) -> None:
        if isinstance(record, Pod):
            whose = charged(record)
            self._let(draft, self._of_machine(record), ("pod", whose, record.id), moment)
            self._let(draft, self._of_suspended(record), ("suspended", whose, record.id), moment)
        elif isinstance(record, Volume) and record.driver == "block":
            self._let(draft, self._of_volume(record), ("volume", record.tenant, record.name), moment)
        elif isinstance(record, Fip):
            self._let(draft, self._of_address(record), ("address", record.tenant, record.id), moment)

    def _keep(self, draft: Draft) -> None:
        """It is written, and so from now on."""
        self._number = draft.number
        for key, opened in draft.opened.items():
            if opened:
                self._open[key] = opened
            else:
                self._open.pop(key, None)

    def _write(self, draft: Draft) -> None:
        if draft.changes:
            self._journal.write(*draft.changes)
            self._keep(draft)

    def _draft(self) -> Draft:
        return Draft(self._number)

    def _of_machine(self, pod: Pod) -> Subject | None:
        if pod.vm is None or not self._sources.wanted(charged(pod)):
            return None
        of = self._sources.subject("pod", pod.id, pod.name, charged(pod), size=pod.size)
        return replace(of, vcpus=pod.vcpus, memory=pod.memory // MIB)

    def _of_suspended(self, pod: Pod) -> Subject | None:
        if pod.status is not PodStatus.SUSPENDED or not self._sources.wanted(charged(pod)):
            return None
        before = self._open.get(_key("suspended", charged(pod), pod.id))
        amount = before.subject.amount if before else mib(self._sources.suspended(pod.id))
        return self._sources.subject("suspended", pod.id, pod.name, charged(pod), amount=amount)

    def _of_volume(self, volume: Volume) -> Subject | None:
        if not self._sources.wanted(volume.tenant):
            return None
        return self._sources.subject("volume", volume.name, volume.name, volume.tenant, amount=mib(volume.size))

    def _of_address(self, fip: Fip) -> Subject | None:
        if not self._sources.wanted(fip.tenant):
            return None
        version = "ipv6" if ":" in fip.address else "ipv4"
        return self._sources.subject("address", fip.id, fip.address, fip.tenant, size=version)

    # -- intervals ------------------------------------------------------------------

    def _let(self, draft: Draft, subject: Subject | None, what: tuple[Kind, Tenant, str], moment: Moment) -> None:
        """From now on this is used, which may be so already, or what is `what` is not used (None)."""
        kind, tenant, id_ = what
        key = _key(kind, tenant, id_)
        before = draft.opened.get(key, self._open.get(key))
        if before is None:
            if subject:
                self._begin(draft, key, Open(subject=subject, since=moment))
            return
        if subject is None:
            self._end(draft, key, before, moment)
            return
        if before.known:  # it is there still
            before = replace(before, known=None)
            self._begin(draft, key, before)
        if subject != before.subject:
            run = self._cut(draft, before, moment)
            self._begin(draft, key, Open(subject=subject, since=moment, run=run))

    def _begin(self, draft: Draft, key: str, opened: Open) -> None:
        draft.opened[key] = opened
        draft.changes.append(rows.metered(key, opened))

    def _end(self, draft: Draft, key: str, of: Open, moment: Moment) -> None:
        self._cut(draft, of, moment, ends=True)
        draft.opened[key] = None
        draft.changes.append(rows.metered(key, None))

    def _cut(self, draft: Draft, of: Open, moment: Moment, *, ends: bool = False) -> int:
        """Entries of what was used until now; gives the milliseconds of the run so far."""
        lasted = self.lasted(of, moment, ends=ends)
        total = of.run + lasted
        run = total if ends and of.subject.kind == "pod" else ANY
        closed = self.closed(of.subject.payer)
        draft.add(entries(of.subject, of.since, lasted, number=draft.number, not_before=closed, run=run))
        return total

    def lasted(self, of: Open, moment: Moment, *, ends: bool = False) -> int:
        """Milliseconds; of what no daemon has seen since, until it was known last."""
        same_boot = of.since.boot_id == moment.boot_id
        if same_boot and (is_lasting(of) or not of.known):
            return max(0, moment.boot - of.since.boot)
        known = latest(of, self._mark)
        lasted = known.boot - of.since.boot
        if is_lasting(of):  # it was there while the host was not
            return lasted + max(0, moment.wall - known.wall)
        wrote = self._sources.last_write(of.subject.id) if ends else 0
        lasted += max(0, min(wrote, moment.wall) - known.wall)
        return min(lasted, moment.boot - of.since.boot) if same_boot else lasted

    # -- ledgers of several hosts ---------------------------------------------------------

    def is_charged(self, of: Open) -> bool:
        """Whether it is a project's that this daemon does not have: another one asks for it."""
        return bool(of.subject.tenant) and not of.subject.payer and not self._sources.payer(of.subject.tenant)

    def cut(self, older: int) -> None:
        """What such projects have used for so many milliseconds becomes entries, and is used on."""
        draft, moment = self._draft(), now()
        for key, of in self._open.items():
            lasted = moment.boot - of.since.boot
            if self.is_charged(of) and not of.known and of.subject.kind != "egress" and lasted >= older:
                run = self._cut(draft, of, moment)
                self._begin(draft, key, replace(of, since=moment, run=run))
        self._write(draft)

    def take(self, found: Iterable[Use], beside: Change) -> None:
        """Entries of another host's ledger, with what says how far it is taken over: all of it, or nothing.

        :raise NoSpace: the disk is full. :raise Unavailable: the database cannot be written for another reason.
        """
        draft = self._draft()
        for use in found:
            began = max(use.began, self.closed(use.subject.payer))
            draft.add([replace(use, number=draft.number, began=began, day=day_of(began))])
        self._journal.write_now(*draft.changes, beside)
        self._keep(draft)

    # -- the daemon's life ------------------------------------------------------------

    def open(self) -> None:
        """Of what an earlier daemon left: a machine may have ended, and the host may have booted."""
        draft, moment = self._draft(), now()
        for key, of in self._open.items():
            if of.subject.kind == "pod":
                self._begin(draft, key, replace(of, known=latest(of, self._mark)))
            elif of.since.boot_id != moment.boot_id and is_lasting(of):
                self._cut(draft, of, moment)
                self._begin(draft, key, replace(of, since=moment))
        self._write(draft)

    def reconcile(self, records: Iterable[Metered], aside: Iterable[SetAside] = ()) -> None:
        """Begin what is not accounted for, and end what is no more: after a start. What a record tells of that was set
        aside is there, and waits for the daemon that can read it.
        """
        draft, moment, there, unread = self._draft(), now(), set[str](), {(a.kind, a.id) for a in aside}
        for record in records:
            keys = {_key(*k) for k in _keys(record)}
            there |= keys
            awaited = any((of := self._open.get(key)) and of.known for key in keys)  # its machine has yet to answer
            if not (awaited and isinstance(record, Pod) and record.vm and self._sources.wanted(charged(record))):
                self._follow(draft, record, moment)
        for key, of in self._open.items():
            if of.subject.kind in _RECORDED and key not in there and not _is_among(unread, of.subject):
                self._end(draft, key, of, moment)
        self._write(draft)

    def measured(self, kinds: frozenset[Kind], found: Iterable[Subject]) -> None:
        """All that there is now of kinds that no record tells of: the rest of these kinds is no more."""
        draft, moment = self._draft(), now()
        subjects = {s.key: s for s in found}
        for key in {k for k, o in self._open.items() if o.subject.kind in kinds and _measured(o)} | subjects.keys():
            one = subjects.get(key) or self._open[key].subject
            self._let(draft, subjects.get(key), (one.kind, one.tenant, one.id), moment)
        self._write(draft)

    def sent(self, pod: Subject, taps: Mapping[str, int], *, new: bool) -> None:
        """So many bytes each of a pod's taps has taken since it was there, `new` since the pod is metered."""
        draft, moment = self._draft(), now()
        for tap, total in taps.items():
            key = tap_key(pod, tap)
            before = self._open.get(key)
            first = 0 if new else total
            known = before.subject.amount if before else first
            part = replace(pod, amount=total - known if total >= known else total)  # else it is another of that name
            if part.amount:
                since = before.since if before else moment
                lasted = max(0, moment.boot - since.boot)
                draft.add(entries(part, since, lasted, number=draft.number, not_before=self.closed(pod.payer)))
            self._begin(draft, key, Open(subject=replace(pod, amount=total), since=moment))
        self._write(draft)

    def forget_taps(self, there: Collection[str] = ()) -> None:
        """All but these, by `tap_key`: the rest is no more."""
        draft = self._draft()
        for key in [k for k, o in self._open.items() if o.subject.kind == "egress" and k not in there]:
            draft.opened[key] = None
            draft.changes.append(rows.metered(key, None))
        self._write(draft)

    def mark(self) -> None:
        """hyperd is there; what is used since another day becomes entries. Once a minute, and at the end."""
        draft, moment = self._draft(), now()
        for key, of in self._open.items():
            if day_of(of.since.wall) != day_of(moment.wall) and not of.known and of.subject.kind != "egress":
                run = self._cut(draft, of, moment)
                self._begin(draft, key, replace(of, since=moment, run=run))
        if self._open or draft.changes:
            self._mark = moment
            draft.changes.append(rows.metered(_MARK, moment))
            self._write(draft)


def tap_key(pod: Subject, tap: str) -> str:
    """By which what a tap has taken is known."""
    return f"{pod.key}/{tap}"


def _key(kind: Kind, tenant: Tenant, id_: str) -> str:
    return Subject(kind=kind, id=id_, tenant=tenant or "").key


def _keys(record: Metered) -> list[tuple[Kind, Tenant, str]]:
    if isinstance(record, Pod):
        return [("pod", charged(record), record.id), ("suspended", charged(record), record.id)]
    if isinstance(record, Fip):
        return [("address", record.tenant, record.id)]
    return [("volume", record.tenant, record.name)] if isinstance(record, Volume) else []


def _is_among(unread: Collection[tuple[str, str]], of: Subject) -> bool:
    """Whether the record that tells of it is, by its table and id."""
    if of.kind == "volume":
        return ("volumes", rows.volume_key(of.id, of.tenant)) in unread
    return ("fips" if of.kind == "address" else "pods", of.id) in unread


def _measured(of: Open) -> bool:
    """Whether no record tells of it, or not of its size."""
    return of.subject.kind in ("snapshot", "image") or (of.subject.kind == "volume" and of.subject.size == "directory")
