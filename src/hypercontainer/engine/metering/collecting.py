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
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ...cluster.port import Ledgers
from ...errors import Conflict, HyperError
from ...model.cluster import Collected, LedgerPart, NodeInfo
from ...model.metering import Use
from ...model.moments import write_moment
from ...state import changes as rows
from ...state.ledger_names import KEY
from ...sys import tasks
from ...sys.documents import UNREADABLE
from .intervals import now
from .meter import Meter

log = logging.getLogger(__name__)
_OF = f"{KEY}:"  # begins the keys of rows beside what is used now
_EVERY, _SELDOM = 60.0, 3600.0  # seconds between two looks at all nodes; at most, where one after the other fails
_GIVEN_UP = 3 * 86_400_000  # milliseconds without an answer, after which no invoice waits for a node any more
_LONGEST = 300.0  # seconds for all that one node has to tell; the rest is asked for at the next look
_BACK = ("an older state was put back there by other means than `hyperd --restore`: a backup of it, and that, let what "
         "comes be collected")  # fmt: skip
_SURELY = 60.0  # seconds for all nodes, where a project's end waits for them


class Collector:
    """The control daemon's side. One task, as long as it runs."""

    def __init__(self, ledgers: Ledgers, meter: Meter, payer: Callable[[str], str], own: Callable[[], str]) -> None:
        """`payer` is the organisation of a project, and `own` the name of this daemon's ledger."""
        self._ledgers, self._meter, self._payer, self._own = ledgers, meter, payer, own
        self._known = dict(_read(meter.beside))
        self._of_node: dict[str, str] = {k.node: k.ledger for k in self._known.values()}
        self._continued: set[str] = set()  # ledgers that are others now: nothing more comes of them
        self._addresses: dict[str, str] = {}
        self._troubles: dict[str, str] = {}
        self._taking = asyncio.Lock()  # two names may lead to one ledger
        meter.elsewhere = self._lasts_from_before

    async def run(self) -> None:
        """Until it is cancelled."""
        failed = 0
        while True:
            try:
                await self.collect()
            except Exception:  # invoices are made of what is collected: nothing ends that
                failed = min(failed + 1, 6)
                log.exception("what was used on the cluster's nodes cannot be collected; it is tried again")
            else:
                failed = 0
            await asyncio.sleep(min(_EVERY * 2**failed, _SELDOM))

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
        try:
            async with asyncio.timeout(_LONGEST):
                while await self._take(name, address):
                    continue
            self._troubles.pop(name, None)
        except HyperError as error:
            self._note(name, str(error))
        except TimeoutError:
            self._note(name, f"not all is told within {_LONGEST:g} s")
        except Exception as error:  # one node ends no other's
            self._note(name, f"a defect of this hyperd: {error!r}", error)

    def _note(self, name: str, why: str, defect: Exception | None = None) -> None:
        """A node's trouble; the log has it once."""
        if self._troubles.get(name) != why:
            log.warning("what was used on the node %s is not known yet: %s", name, why, exc_info=defect)
        self._troubles[name] = why

    async def _take(self, name: str, address: str) -> bool:
        """One part; whether there is more."""
        known = self._known.get(self._of_node.get(name, ""))
        asked = known.cursor if known else 0
        part = await self._ledgers.read(address, asked)
        async with self._taking:
            if part.ledger == self._own():
                return False  # this daemon is a node, too
            self._of_node[name] = part.ledger
            self._continued |= {e.ledger for e in part.earlier}
            now_known = self._known.get(part.ledger) or self._begun(name, part)
            if now_known.cursor != asked:
                return True  # another ledger than it was, or another name of it
            self._write(replace(now_known, node=name), part)
        return part.last < part.end

    def _begun(self, name: str, part: LedgerPart) -> Collected:
        """How far a ledger of which nothing was asked yet is taken over: it may have been another one before."""
        for earlier in part.earlier:
            if known := self._known.get(earlier.ledger):
                made = Collected(
                    ledger=part.ledger, node=name, cursor=min(known.cursor, earlier.until), whole=known.whole,
                    since=known.whole,
                )  # fmt: skip
                self._known[part.ledger] = made  # it is in a row when there is an entry of it
                return made
        return Collected(ledger=part.ledger, node=name)

    def _write(self, known: Collected, part: LedgerPart) -> None:
        if part.end < known.cursor or part.last < known.cursor:
            raise Conflict(
                f"its ledger ends at {part.end}, and {known.cursor} entries of it were taken over", hint=_BACK
            )
        if known.stands and part.before != known.stands:
            raise Conflict(
                f"its ledger is another than that of which {known.cursor} entries were taken over", hint=_BACK
            )
        taken = [u for u in part.entries if known.cursor < u.number <= part.last]
        found = replace(
            known, cursor=part.last, seen=now().wall, whole=part.whole if part.last == part.end else known.whole,
            stands=part.stands,
        )  # fmt: skip
        if part.last > known.cursor or known.ledger not in self._known:
            counted = (later for use in taken if (later := _after(use, known.since)))
            self._meter.take(map(self._paid, counted), rows.metered(_OF + known.ledger, found))
        self._known[known.ledger] = found

    def _paid(self, use: Use) -> Use:
        payer = self._payer(use.subject.tenant)
        if not payer:
            log.warning("%s used what nobody pays: its project %s is no more", use.subject.name, use.subject.tenant)
        return replace(use, subject=replace(use.subject, payer=payer))

    def _lasts_from_before(self, wall: int) -> bool:
        recent = now().wall - _GIVEN_UP
        return any(k.whole < wall and k.seen > recent for k in self._known.values() if k.ledger not in self._continued)

    def nodes(self) -> list[NodeInfo]:
        """By name."""
        found = []
        for name, address in sorted(self._addresses.items()):
            known = self._known.get(self._of_node.get(name, "")) or Collected(ledger="", node=name)
            seen = write_moment(known.seen * 1_000_000) if known.seen else ""
            found.append(NodeInfo(name=name, address=address, ledger=known.ledger, entries=known.cursor,
                                  collected_at=seen, trouble=self._troubles.get(name, "")))  # fmt: skip
        return found


def _after(use: Use, since: int) -> Use | None:
    """What of it was after that moment, in milliseconds since the epoch. Bytes that were sent are not parted."""
    if use.began >= since:
        return use
    left = use.began + use.lasted - since
    if left <= 0:
        return None
    if use.subject.kind == "egress":
        return use
    return replace(use, began=since, lasted=left, boot=use.boot + use.lasted - left)


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
