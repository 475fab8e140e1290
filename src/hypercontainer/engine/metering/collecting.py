# SPDX-License-Identifier: Apache-2.0
"""The ledgers of several hosts become one.

Each host's hyperd writes its own ledger, also of pods that are projects' of a control daemon's. That one asks each for
the entries after those that it has, and writes them, numbered anew, in one transaction with how far it is: whoever of
the two is killed, and whenever, each entry is taken over once. A ledger is known by a name of its own, so that a host
that is made anew, or that has another name, is not taken for another one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from ...cluster.port import PAGE, Ledgers
from ...errors import Conflict, HyperError, PermissionDenied
from ...model.cluster import Collected, LedgerPart, NodeInfo
from ...model.metering import Use
from ...model.moments import write_moment
from ...state import changes as rows
from ...state.journal import Journal
from ...sys import tasks
from ...sys.documents import UNREADABLE
from ..principal import current
from .intervals import now
from .meter import Meter

log = logging.getLogger(__name__)
_OWN, _OF = "ledger", "ledger:"  # keys of rows beside what is used now
_EVERY = 60.0  # seconds between two looks at all nodes
_CUT = 600_000  # milliseconds after which what is used becomes entries, though it goes on
_GIVEN_UP = 3 * 86_400_000  # milliseconds without an answer, after which no invoice waits for a node any more
_LONGEST = 300.0  # seconds for all that one node has to tell; the rest is asked for at the next look
_SURELY = 60.0  # seconds for all nodes, where a project's end waits for them


class Telling:
    """A node's side."""

    def __init__(self, journal: Journal, meter: Meter) -> None:
        self._journal, self._meter = journal, meter
        self._name = ""

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
        return LedgerPart(
            ledger=self.name(), last=found[-1].number if found else after, end=store.last_use(),
            whole=0 if self._journal.pending else whole,  # what waits for the disk is in no entry yet
            entries=[u for u in found if u.subject.tenant and not u.subject.payer],
        )  # fmt: skip

    def name(self) -> str:
        """Of this ledger. :raise NoSpace: the disk is full."""
        if not self._name:
            if kept := self._meter.beside.get(_OWN):
                self._name = msgspec.json.decode(kept, type=Collected).ledger
            else:
                made = Collected(ledger=secrets.token_hex(8), node="")
                self._journal.write_now(rows.metered(_OWN, made))
                self._name = made.ledger
        return self._name


class Collector:
    """The control daemon's side. One task, as long as it runs."""

    def __init__(self, ledgers: Ledgers, meter: Meter, payer: Callable[[str], str], own: Callable[[], str]) -> None:
        """`payer` is the organisation of a project, and `own` the name of this daemon's ledger."""
        self._ledgers, self._meter, self._payer, self._own = ledgers, meter, payer, own
        self._known = dict(_read(meter.beside))
        self._of_node: dict[str, str] = {k.node: k.ledger for k in self._known.values()}
        self._addresses: dict[str, str] = {}
        self._troubles: dict[str, str] = {}
        self._taking = asyncio.Lock()  # two names may lead to one ledger
        meter.elsewhere = self._lasts_from_before

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.collect()
            await asyncio.sleep(_EVERY)

    async def collect(self) -> None:
        """Take over what there is; what cannot be is told by `nodes`."""
        try:
            await self._look()
        except HyperError as error:
            log.warning("the cluster's nodes are not known: %s", error)

    async def _look(self) -> None:
        """:raise HyperError: the cluster does not tell its nodes."""
        self._addresses = dict(await self._ledgers.addresses())
        self._troubles = {name: why for name, why in self._troubles.items() if name in self._addresses}
        await asyncio.gather(*(self._collect(name, address) for name, address in self._addresses.items()))

    async def surely(self) -> None:
        """All of it. :raise HyperError: a node does not answer, or its ledger cannot be taken over."""
        try:
            await tasks.within(self._look(), _SURELY)
        except TimeoutError:
            raise Conflict(f"not all nodes have told what was used within {_SURELY:g} s", hint="try again") from None
        if self._troubles:
            name, why = next(iter(self._troubles.items()))
            raise Conflict(f"what was used on the node {name} is not known: {why}", hint="try again when it is there")

    async def _collect(self, name: str, address: str) -> None:
        before = self._troubles.get(name)
        try:
            async with asyncio.timeout(_LONGEST):
                while await self._take(name, address):
                    continue
            self._troubles.pop(name, None)
        except (HyperError, TimeoutError) as given:
            error = given if isinstance(given, HyperError) else f"not all is told within {_LONGEST:g} s"
            self._troubles[name] = str(error)
            if before != str(error):
                log.warning("what was used on the node %s is not known yet: %s", name, error)

    async def _take(self, name: str, address: str) -> bool:
        """One part; whether there is more."""
        known = self._known.get(self._of_node.get(name, ""))
        asked = known.cursor if known else 0
        part = await self._ledgers.read(address, asked)
        async with self._taking:
            if part.ledger == self._own():
                return False  # this daemon is a node, too
            self._of_node[name] = part.ledger
            now_known = self._known.get(part.ledger) or Collected(ledger=part.ledger, node=name)
            if now_known.cursor != asked:
                return True  # another ledger than it was, or another name of it
            self._write(replace(now_known, node=name), part)
        return part.last < part.end

    def _write(self, known: Collected, part: LedgerPart) -> None:
        if part.end < known.cursor or part.last < known.cursor:
            raise Conflict(f"its ledger ends at {part.end}, and {known.cursor} entries of it were taken over",
                           hint="was an older state put back there?")  # fmt: skip
        taken = [u for u in part.entries if known.cursor < u.number <= part.last]
        found = replace(
            known, cursor=part.last, seen=now().wall, whole=part.whole if part.last == part.end else known.whole
        )  # fmt: skip
        if part.last > known.cursor or known.ledger not in self._known:
            self._meter.take(map(self._paid, taken), rows.metered(_OF + known.ledger, found))
        self._known[known.ledger] = found

    def _paid(self, use: Use) -> Use:
        payer = self._payer(use.subject.tenant)
        if not payer:
            log.warning("%s used what nobody pays: its project %s is no more", use.subject.name, use.subject.tenant)
        return replace(use, subject=replace(use.subject, payer=payer))

    def _lasts_from_before(self, wall: int) -> bool:
        recent = now().wall - _GIVEN_UP
        return any(k.whole < wall and k.seen > recent for k in self._known.values())

    def nodes(self) -> list[NodeInfo]:
        """By name."""
        found = []
        for name, address in sorted(self._addresses.items()):
            known = self._known.get(self._of_node.get(name, "")) or Collected(ledger="", node=name)
            seen = write_moment(known.seen * 1_000_000) if known.seen else ""
            found.append(NodeInfo(name=name, address=address, ledger=known.ledger, entries=known.cursor,
                                  collected_at=seen, trouble=self._troubles.get(name, "")))  # fmt: skip
        return found


def _read(beside: dict[str, bytes]) -> list[tuple[str, Collected]]:
    found = []
    for key, document in beside.items():
        if key.startswith(_OF):
            try:
                one = msgspec.json.decode(document, type=Collected)
            except UNREADABLE as error:
                log.error("how far the ledger %s is taken over cannot be read: %s", key, error)
                continue
            found.append((one.ledger, one))
    return found
