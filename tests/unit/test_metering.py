# SPDX-License-Identifier: Apache-2.0
"""The meter against a model of one page: whatever happens, and whenever hyperd dies, sums are the model's to the
millisecond. Dead machines, other boots and clocks that are set are among what happens.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from hypercontainer.engine.forks.saved import size_of
from hypercontainer.engine.metering.exposition import expose
from hypercontainer.engine.metering.measures import Measures
from hypercontainer.engine.metering.meter import Meter
from hypercontainer.engine.metering.sources import Sources
from hypercontainer.engine.metering.sums import Sums
from hypercontainer.engine.paths import Paths
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import InvalidArgument, NoSpace
from hypercontainer.model.fips import Fip
from hypercontainer.model.metering import ANY, DAY, KINDS, MIB, Kind, Subject, UsageRow, Use, Whose
from hypercontainer.model.moments import read_moment
from hypercontainer.model.status import Pod, PodStatus, Vm, Volume
from hypercontainer.state import ledger
from hypercontainer.state.changes import put, remove, used
from hypercontainer.state.database import Database
from hypercontainer.state.fake import FakeDisk, FakeStore
from hypercontainer.state.salvage import read_rows
from hypercontainer.state.store import SetAside, Store
from hypercontainer.sys import clock

FIRST = 20_000 * DAY + 3600_000  # one o'clock in the night of some day
MEMORY = 7  # MiB that a suspended pod takes
FOREVER = 2**61
VM = Vm(driver="fake", pid=1, directory="/d", token="00")
Key = tuple[str, str]  # kind, id


class Host:
    """Its clocks, in milliseconds."""

    def __init__(self) -> None:
        self.true = 0  # since the beginning, by a clock that nobody has
        self.wall, self.booted, self.boots = FIRST, -1000, 1

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        wall, boot = (lambda: self.wall * 10**6), (lambda: (self.true - self.booted) * 10**6)
        with clock.told_by(wall, boot), mock.patch.object(clock, "boot_id", lambda: f"boot-{self.boots}"):
            yield

    def passes(self, milliseconds: int) -> None:
        self.true += milliseconds
        self.wall += milliseconds


class Daemon:
    """What of a hyperd has to do with use."""

    def __init__(self, store: Store, **sources: Any) -> None:
        how = {"suspended": lambda id_: MEMORY * MIB, **sources}
        self.registry = Registry(store)
        self.meter = Meter(self.registry.journal, Sources(active=lambda: True, wanted=lambda t: True, **how))
        self.registry.meter = self.meter
        self.sums = Sums(store, self.meter)
        self.meter.open()

    def reconcile(self) -> None:
        self.meter.reconcile([*self.registry.pods(), *self.registry.volumes(), *self.addresses()])

    def addresses(self) -> list[Fip]:
        return self.registry.journal.database.fips()

    def put_address(self, record: Fip) -> None:
        self.meter.write(self.registry.journal.write_now, [put(record)], put=[record])

    def release(self, record: Fip) -> None:
        self.meter.write(self.registry.journal.write_now, [remove(record)], gone=[record])


def pod(id_: str, *, vcpus: int = 1, **how: Any) -> Pod:
    return Pod(id=id_, name=f"n{id_}", created_at="", hostname="h", vcpus=vcpus, memory=128 * MIB, **how)


def address(id_: str, text: str) -> Fip:
    return Fip(id=id_, name=text, address=text, created_at="")


class Model:
    """What is used, in the simplest way to say it: totals, and since when by the true clock and the wall's."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()  # by kind, in its unit
        self.runs = 0
        self.short: Counter[int] = Counter()  # runs by their seconds, where these are few
        self.used: dict[Key, tuple[int, int, int]] = {}  # -> since when, and how much of it
        self.ran: dict[Key, int] = {}  # milliseconds of its run, before that
        self.marked = (-1, 0)

    def begin(self, host: Host, kind: str, id_: str, amount: int = 1) -> None:
        self.used[kind, id_] = (host.true, host.wall, amount)
        self.ran[kind, id_] = 0

    def grow(self, host: Host, kind: str, id_: str) -> None:
        """It is another size from now on, and known to have been there until now."""
        ran = self.ran[kind, id_] + host.true - self.used[kind, id_][0]
        self.totals[kind] += host.true - self.used[kind, id_][0]
        self.begin(host, kind, id_)
        self.ran[kind, id_] = ran

    def end(self, host: Host, kind: str, id_: str, *, unseen: bool = False) -> None:
        since, wall, amount = self.used.pop((kind, id_))
        last = self._known(since, wall)[0] if unseen else host.true
        self.totals[kind] += (last - since) * amount
        self.runs += kind == "pod"
        ran = self.ran[kind, id_] + last - since
        if kind == "pod" and ran < 60_000:
            self.short[ran // 1000] += 1

    def _known(self, since: int, wall: int) -> tuple[int, int]:
        return self.marked if self.marked[0] >= since else (since, wall)

    def boots(self, host: Host) -> None:
        """Storage and addresses were there while the host was not."""
        for (kind, id_), (since, wall, amount) in list(self.used.items()):
            known = self._known(since, wall)
            self.totals[kind] += (known[0] - since + max(0, host.wall - known[1])) * amount
            self.begin(host, kind, id_, amount)

    def all(self, host: Host) -> dict[str, int]:
        found = Counter(self.totals)
        for (kind, _), (since, _, amount) in self.used.items():
            found[kind] += (host.true - since) * amount
        return {kind: total for kind, total in found.items() if total}


class Uses(RuleBasedStateMachine):
    """Starts, stops, suspensions, forks, removals; deaths of hyperd, of machines meanwhile, and of the host; clocks."""

    def __init__(self) -> None:
        super().__init__()
        self.host, self.model, self.disk = Host(), Model(), FakeDisk()
        self._told = self.host.told()
        self._told.__enter__()
        self._made = 0
        self.daemon = Daemon(FakeStore(self.disk))

    def teardown(self) -> None:
        self._told.__exit__(None, None, None)

    def _pods(self, *kinds: PodStatus) -> list[Pod]:
        return [p for p in self.daemon.registry.pods() if p.status in kinds]

    def _some(self, data: Any, *kinds: PodStatus) -> Pod:
        found = self._pods(*kinds)
        return found[data.draw(st.integers(0, len(found) - 1))]

    def _put(self, of: Pod, **changes: Any) -> None:
        self.daemon.registry.put_pod(replace(of, **changes))

    # -- verbs ------------------------------------------------------------------------

    @rule(vcpus=st.integers(1, 2))
    def create(self, vcpus: int) -> None:
        self._made += 1
        self.daemon.registry.create(pod(f"{self._made}", vcpus=vcpus))

    @precondition(lambda self: self._pods(PodStatus.CREATED, PodStatus.EXITED))
    @rule(data=st.data())
    def start(self, data: Any) -> None:
        found = self._some(data, PodStatus.CREATED, PodStatus.EXITED)
        self._put(found, vm=VM, status=PodStatus.RUNNING)
        self.model.begin(self.host, "pod", found.id)

    @precondition(lambda self: self._pods(PodStatus.RUNNING))
    @rule(data=st.data(), how=st.sampled_from(("stop", "save", "suspend", "fork", "grow", "remove")))
    def end(self, data: Any, how: str) -> None:
        found = self._some(data, PodStatus.RUNNING)
        if how == "save":  # as a running machine's record is written all the time
            self._put(found, error=f"at {self.host.true}")
        elif how == "grow":
            self._put(found, vcpus=found.vcpus + 1)
            self.model.grow(self.host, "pod", found.id)
        elif how == "fork":
            self._made += 1
            self.daemon.registry.create(pod(f"{self._made}", vm=VM, status=PodStatus.RUNNING))
            self.model.begin(self.host, "pod", f"{self._made}")
        else:
            self.model.end(self.host, "pod", found.id)
            if how == "remove":
                self.daemon.registry.erase(found)
            elif how == "stop":
                self._put(found, vm=None, status=PodStatus.EXITED)
            else:
                self.daemon.registry.put_together(replace(found, vm=None, status=PodStatus.SUSPENDED))
                self.model.begin(self.host, "suspended", found.id, MEMORY)

    @precondition(lambda self: self._pods(PodStatus.SUSPENDED))
    @rule(data=st.data(), remove=st.booleans())
    def resume(self, data: Any, remove: bool) -> None:
        found = self._some(data, PodStatus.SUSPENDED)
        self.model.end(self.host, "suspended", found.id)
        if remove:
            self.daemon.registry.erase(found)
        else:
            self._put(found, vm=VM, status=PodStatus.RUNNING)
            self.model.begin(self.host, "pod", found.id)

    @rule(size=st.integers(1, 3 * MIB))
    def create_volume(self, size: int) -> None:
        self._made += 1
        name = f"v{self._made}"
        self.daemon.registry.put_volume(Volume(name=name, created_at="", driver="block", path="/v", size=size))
        self.model.begin(self.host, "volume", name, -(-size // MIB))

    @precondition(lambda self: self.daemon.registry.volumes())
    @rule()
    def remove_volume(self) -> None:
        found = self.daemon.registry.volumes()[0]
        self.daemon.registry.remove_volume(found)
        self.model.end(self.host, "volume", found.name)

    @rule(six=st.booleans())
    def allocate_address(self, six: bool) -> None:
        self._made += 1
        self.daemon.put_address(
            address(f"a{self._made}", f"2001:db8::{self._made}" if six else f"192.0.2.{self._made}")
        )
        self.model.begin(self.host, "address", f"a{self._made}")

    @precondition(lambda self: self.daemon.addresses())
    @rule(how=st.sampled_from(("release", "attach", "rename")))
    def change_address(self, how: str) -> None:
        found = self.daemon.addresses()[0]
        if how == "release":
            self.daemon.release(found)
            self.model.end(self.host, "address", found.id)
        else:
            self.daemon.put_address(
                replace(found, **{"attach": {"pod": "1"}, "rename": {"name": f"of-{found.id}"}}[how])
            )

    # -- time and death -----------------------------------------------------------------

    @rule(milliseconds=st.integers(0, 3 * DAY))
    def passes(self, milliseconds: int) -> None:
        self.host.passes(milliseconds)

    @rule(milliseconds=st.integers(0, 90_000))
    def passes_shortly(self, milliseconds: int) -> None:
        self.host.passes(milliseconds)

    @rule(by=st.integers(-9 * DAY, 9 * DAY))
    def clock_is_set(self, by: int) -> None:
        self.host.wall += by

    @rule()
    def mark(self) -> None:
        self.daemon.meter.mark()
        if self.model.used:
            self.model.marked = (self.host.true, self.host.wall)

    @rule(data=st.data(), away=st.integers(0, DAY), host=st.booleans())
    def killed(self, data: Any, away: int, host: bool) -> None:
        """hyperd is killed, and another comes; meanwhile machines may end, or the host."""
        self.host.passes(away)
        if host:
            self.host.booted, self.host.boots = self.host.true, self.host.boots + 1
        self.daemon = Daemon(FakeStore(self.disk))
        for found in self._pods(PodStatus.RUNNING):
            if host or data.draw(st.booleans()):
                self._put(found, vm=None, status=PodStatus.EXITED)
                self.model.end(self.host, "pod", found.id, unseen=True)
            else:
                self._put(found, error="is reattached")
        if host:
            self.model.boots(self.host)
        self.daemon.reconcile()

    # -- what holds ---------------------------------------------------------------------

    @invariant()
    def sums_are_the_models(self) -> None:
        found = self.daemon.sums.usage(0, FOREVER, [])
        assert {r.kind: r.quantity for r in found.rows if r.quantity} == self.model.all(self.host)
        assert sum(r.starts for r in found.rows) == self.model.runs
        short = Counter[int]()
        for part in self.daemon.sums.parts(0, FOREVER, short=True):
            short.update({part.short: part.runs} if part.short != ANY else {})
        assert short == self.model.short
        by_day = self.daemon.sums.usage(0, FOREVER, ["day", "size", "project"])
        assert sum(r.quantity for r in by_day.rows) == sum(r.quantity for r in found.rows)
        if cut := [r.day for r in by_day.rows][len(by_day.rows) // 2 :]:
            at = read_moment(f"{cut[0]}T07:30:00Z")
            parts = [self.daemon.sums.usage(*span, []) for span in ((0, at), (at, FOREVER))]
            assert sum(r.quantity for p in parts for r in p.rows) == sum(r.quantity for r in found.rows)

    @invariant()
    def entries_have_no_gaps(self) -> None:
        store = self.daemon.registry.journal.database
        found = list(store.uses(0, 2**40))
        assert [u.number for u in found] == list(range(1, len(found) + 1))
        assert all(u.began // DAY == u.day == (u.began + max(u.lasted, 1) - 1) // DAY for u in found)


Uses.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestUses = Uses.TestCase


@pytest.fixture
def host() -> Iterator[Host]:
    found = Host()
    with found.told():
        yield found


@pytest.fixture(params=["file", "objects"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """What opens a store on one disk."""
    fake, opened = FakeDisk(), list[Database]()

    def open_store() -> Store:
        if request.param == "objects":
            return FakeStore(fake)
        opened.append(Database(tmp_path / "state.db"))
        return opened[-1]

    yield open_store
    for database in opened:
        database.close()


def quantities(daemon: Daemon, **how: Any) -> dict[Kind, int]:
    return {r.kind: r.quantity for r in daemon.sums.usage(0, FOREVER, [], Whose(**how)).rows}


def test_a_second_of_which_hyperd_knew_nothing_is_counted_as_it_is(host: Host, disk: Any) -> None:
    daemon = Daemon(disk())
    daemon.registry.create(pod("1"))
    daemon.registry.put_pod(pod("1", vm=VM, status=PodStatus.RUNNING))
    host.passes(1500)
    daemon = Daemon(disk())  # the one before was killed, without a word
    host.passes(10_000)
    daemon.registry.put_pod(pod("1", vm=VM, status=PodStatus.RUNNING, error="is reattached"))
    daemon.reconcile()
    host.passes(500)
    assert quantities(daemon) == {"pod": 12_000}
    daemon.registry.erase(daemon.registry.pod("1"))
    host.passes(500)
    assert quantities(daemon) == {"pod": 12_000}
    entries = list(daemon.registry.journal.database.uses(0, 2**40))
    assert [(u.lasted, u.run) for u in entries] == [(12_000, 12_000)]
    assert daemon.registry.journal.database.check_uses() == (1, [])


def test_a_machine_that_ended_unseen_ended_with_its_last_write(host: Host, disk: Any) -> None:
    daemon = Daemon(disk())
    daemon.registry.put_pod(pod("1", vm=VM))
    daemon.registry.put_pod(pod("2", vm=VM))
    host.passes(60_000)
    daemon.meter.mark()
    wrote = host.wall + 5000
    host.passes(600_000)
    daemon = Daemon(disk(), last_write=lambda id_: wrote if id_ == "1" else FIRST)
    for found in daemon.registry.pods():
        daemon.registry.put_pod(replace(found, vm=None, status=PodStatus.EXITED))
    assert sorted(u.lasted for u in daemon.registry.journal.database.uses(0, 2**40)) == [60_000, 65_000]


def test_a_machine_that_does_not_answer_yet_is_waited_for(host: Host, disk: Any) -> None:
    """It is told of as it was known last, and whole when it answers."""
    daemon = Daemon(disk())
    daemon.registry.put_pod(pod("1", vm=VM))
    host.passes(5000)
    daemon.meter.mark()
    host.passes(DAY)
    daemon = Daemon(disk())
    daemon.reconcile()
    daemon.meter.mark()
    assert quantities(daemon) == {"pod": 5000}
    daemon.registry.put_pod(pod("1", vm=VM, error="answers"))
    assert quantities(daemon) == {"pod": DAY + 5000}


def test_what_has_a_record_that_was_set_aside_is_whole_when_it_is_read_again(host: Host, disk: Any) -> None:
    daemon = Daemon(disk())
    daemon.registry.put_pod(pod("1", vm=VM))
    daemon.registry.put_volume(Volume(name="v", created_at="", driver="block", path="/v", size=MIB))
    host.passes(5000)
    daemon = Daemon(disk())
    aside = [SetAside("pods", "1", "n1", "", "1"), SetAside("volumes", "v", "v", "", "")]
    daemon.meter.reconcile([], aside)
    host.passes(5000)
    daemon = Daemon(disk())
    daemon.registry.put_pod(pod("1", vm=VM, error="answers"))
    daemon.reconcile()
    assert quantities(daemon) == {"pod": 10_000, "volume": 10_000}
    daemon.meter.reconcile([])
    host.passes(5000)
    assert quantities(daemon) == {"pod": 10_000, "volume": 10_000}


def test_a_full_disk_delays_records_and_entries_together(host: Host) -> None:
    disk = FakeDisk()
    daemon = Daemon(FakeStore(disk))
    daemon.registry.put_pod(pod("1", vm=VM))
    host.passes(1000)
    disk.full = True
    daemon.registry.put_pod(pod("1", status=PodStatus.EXITED))
    with pytest.raises(NoSpace):
        daemon.registry.put_volume(Volume(name="v", created_at="", driver="block", path="/v", size=MIB))
    host.passes(1000)
    assert quantities(daemon) == {}  # neither is a volume used, which there is not
    assert FakeStore(disk).last_use() == 0 and FakeStore(disk).pods()[0].vm
    disk.full = False
    daemon.registry.put_pod(pod("2", vm=VM))
    host.passes(1000)
    assert quantities(daemon) == {"pod": 2000}
    assert FakeStore(disk).last_use() == 1 and {p.id: bool(p.vm) for p in FakeStore(disk).pods()} == {
        "1": False,
        "2": True,
    }


def test_use_is_divided_by_what_is_asked(host: Host, disk: Any) -> None:
    daemon = Daemon(disk(), payer=lambda tenant: f"org-{tenant}" if tenant else "")
    for name, tenant, vcpus in (("1", "red", 1), ("2", "red", 2), ("3", "blue", 2)):
        daemon.registry.put_pod(pod(name, vm=VM, tenant=tenant, vcpus=vcpus))
    daemon.registry.put_volume(Volume(name="v", created_at="", driver="block", path="/", size=3 * MIB, tenant="red"))
    host.passes(1000)
    assert quantities(daemon, tenant="red") == {"pod": 2000, "volume": 3000}
    assert quantities(daemon, payer="org-blue") == {"pod": 1000}
    found = daemon.sums.usage(0, None, ["project", "size"])
    assert [(r.project, r.size, r.quantity) for r in found.rows] == [
        ("blue", "2x128", 1000), ("red", "1x128", 1000), ("red", "2x128", 1000), ("red", "", 3000),
    ]  # fmt: skip
    with pytest.raises(InvalidArgument, match="cannot be divided by colour"):
        daemon.sums.usage(0, None, ["colour"])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="before"):
        daemon.sums.usage(10**15, 10**14, [])


def test_bytes_that_taps_have_taken_are_counted_once(host: Host, disk: Any) -> None:
    daemon = Daemon(disk())
    daemon.registry.put_pod(pod("1", vm=VM))
    of = Subject(kind="egress", id="1", name="n1")
    daemon.meter.sent(of, {"t0": 100}, new=True)
    daemon.meter.sent(of, {"t0": 250, "t1": 7}, new=True)
    daemon = Daemon(disk())
    daemon.meter.sent(of, {"t0": 260, "t1": 7, "t2": 4000}, new=False)  # what it sent before was nobody's to count
    daemon.meter.sent(of, {"t0": 5}, new=True)  # another tap of that name
    assert quantities(daemon)["egress"] == 100 + 150 + 7 + 10 + 5
    daemon.registry.erase(daemon.registry.pod("1"))
    daemon.meter.forget_taps()
    daemon.meter.sent(of, {"t0": 5}, new=True)
    assert quantities(daemon)["egress"] == 272 + 5


def test_bytes_count_where_they_were_sent_and_not_where_a_pod_began_to_be_idle(host: Host, disk: Any) -> None:
    daemon = Daemon(disk())
    of = Subject(kind="egress", id="1", name="n1")
    daemon.meter.sent(of, {"t0": 0}, new=True)
    host.passes(5 * DAY)
    daemon.meter.sent(of, {"t0": 0}, new=True)
    host.passes(600_000)
    daemon.meter.sent(of, {"t0": 7}, new=True)
    (use,) = daemon.registry.journal.database.uses(0, 2**40)
    assert (use.began, use.lasted) == (FIRST + 5 * DAY, 600_000)


def test_nothing_is_added_to_days_that_are_accounted_for(host: Host, disk: Any) -> None:
    daemon = Daemon(disk())
    daemon.registry.put_pod(pod("1", vm=VM))
    host.passes(3000)
    daemon.meter.close_before(FIRST + DAY, "")
    daemon.meter.close_before(FIRST + 2 * DAY, "another")
    daemon.registry.erase(daemon.registry.pod("1"))
    (use,) = daemon.registry.journal.database.uses(0, 2**40)
    assert (use.began, use.lasted, use.day) == (FIRST + DAY, 3000, (FIRST + DAY) // DAY)


def test_both_stores_sum_alike(tmp_path: Path) -> None:
    """Any parts of days, of anybody's: by SQL as by the entries one by one."""
    uses: list[Use] = []
    random, fake, database = Random(7), FakeStore(FakeDisk()), Database(tmp_path / "state.db")
    for number in range(1, 2001):
        kind = random.choice(KINDS)
        began = random.randrange(0, 3 * DAY - 1)
        lasted = random.choice((0, 1, random.randrange(DAY))) if began % DAY else 0
        lasted = min(lasted, DAY - began % DAY)
        of = Subject(kind=kind, id=str(number % 7), tenant=random.choice("ab"), payer=random.choice("xy"),
                     size=random.choice(("", "S1")), amount=random.randrange(99))  # fmt: skip
        run = random.choice((ANY, lasted, lasted + 70_000)) if kind == "pod" else ANY
        uses.append(
            Use(number=number, subject=of, day=began // DAY, began=began, lasted=lasted, boot=0, boot_id="b", run=run)
        )
    for store in (fake, database):
        store.commit(map(used, uses))
    for whose in (Whose(), Whose(payer="x"), Whose("y", "a")):
        for short in (False, True):
            sums = [set(s.day_sums(0, 2, whose, short=short)) for s in (fake, database)]
            assert sums[0] == sums[1] and sums[0]
        for _ in range(50):
            day = random.randrange(3) * DAY
            since, until = sorted(day + random.randrange(DAY + 1) for _ in range(2))
            parts = [
                {s for s in store.day_part(since, until, whose) if s.quantity or s.runs} for store in (fake, database)
            ]
            assert parts[0] == parts[1] or since == until
    assert database.check_uses() == (2000, [])
    database._db.execute("UPDATE uses SET lasted = lasted + 1 WHERE number = 11 AND kind != 'egress'")
    database._db.execute("DELETE FROM uses WHERE number = 12")
    count, wrong = database.check_uses()
    assert count == 1999 and wrong[0] == "1 of 2000 entries are missing" and len(wrong) > 1
    database.close()


def test_entries_that_come_while_the_ledger_is_checked_are_no_fault_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, recount = Database(tmp_path / "state.db"), ledger.recount
    of = Subject(kind="pod", id="1")
    entries = [
        Use(number=n, subject=of, day=0, began=0, lasted=n, boot=0, boot_id="b", run=n) for n in range(1, 3)
    ]  # fmt: skip

    def later(reader: Any) -> Any:
        database.commit([used(entries[1])])
        return recount(reader)

    database.commit([used(entries[0])])
    monkeypatch.setattr(ledger, "recount", later)
    assert database.check_uses() == (1, [])
    database.close()


def test_entries_of_a_damaged_database_are_taken_over(tmp_path: Path) -> None:
    before, after = Database(tmp_path / "before.db"), Database(tmp_path / "after.db")
    of = Subject(kind="pod", id="1", tenant="a", payer="x", vcpus=1, memory=128)
    entries = [
        Use(number=n, subject=of, day=n % 3, began=n % 3 * DAY, lasted=n, boot=0, boot_id="b", run=n)
        for n in range(1, 50)
    ]  # fmt: skip
    before.commit(map(used, entries))
    before.close()
    after.restore_uses(read_rows(tmp_path / "before.db")["uses"])
    assert list(after.uses(0, 3)) == entries and after.check_uses() == (49, [])
    after.close()


def test_no_two_samples_have_one_series() -> None:
    """A block volume and one that is a directory differ by a size, of which storage has no label."""
    rows = [
        UsageRow(kind="volume", unit="MiB*ms", quantity=n * 1024 * 1000, organisation="o", project="p", size=size)
        for n, size in ((2, ""), (3, "directory"))
    ]
    told = expose(rows, []).splitlines()
    assert told[2:] == ['hyper_storage_gib_seconds_total{organisation="o",project="p",kind="volume"} 5']


def test_what_snapshots_share_on_the_disk_is_told_once(tmp_path: Path) -> None:
    paths, sources = Paths(tmp_path, tmp_path / "run"), Sources(active=lambda: True, wanted=lambda tenant: True)
    saved = [SimpleNamespace(id=name, name=name, tenant="p") for name in ("first", "second")]
    for one in saved:
        paths.snapshot(one.id).mkdir(parents=True)
        (paths.snapshot(one.id) / "own").write_bytes(b"x" * (2 * MIB))
    (paths.snapshot("first") / "shared").write_bytes(b"x" * (8 * MIB))
    (paths.snapshot("second") / "shared").hardlink_to(paths.snapshot("first") / "shared")
    look = Measures(mock.Mock(), mock.Mock(), lambda: saved, lambda id_: size_of(paths.snapshot(id_)), sources)
    assert [s.amount for s in look._measure(saved, [])] == [6, 6]  # 12 MiB are there
    (paths.snapshot("second") / "shared").unlink()
    assert [s.amount for s in look._measure(saved, [])] == [10, 2]
