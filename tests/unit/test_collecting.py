# SPDX-License-Identifier: Apache-2.0
"""The ledgers of nodes become one: whoever is killed, and whenever, each millisecond is there once."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from hypercontainer.cluster.fake import FakeLedgers
from hypercontainer.engine.metering import collecting
from hypercontainer.engine.metering.collecting import Collector
from hypercontainer.engine.metering.meter import Meter
from hypercontainer.engine.metering.sources import Sources
from hypercontainer.engine.metering.telling import Telling
from hypercontainer.engine.principal import asked_by
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import Conflict, PermissionDenied, Unavailable
from hypercontainer.model.cluster import LedgerPart, namespace_of, project_of
from hypercontainer.model.metering import DAY, MIB
from hypercontainer.model.pods import PodSpec
from hypercontainer.model.principal import Principal
from hypercontainer.model.status import Pod, Vm
from hypercontainer.state.changes import Change, put
from hypercontainer.state.fake import FakeDisk, FakeStore, Rows
from hypercontainer.state.ledger_names import begin_anew
from hypercontainer.state.store import Happened
from hypercontainer.sys import tasks

from .test_metering import Host

VM = Vm(driver="fake", pid=1, directory="/d", token="00")
WEB, SHOP, GONE = "a" * 16, "b" * 16, "c" * 16
PAYERS = {WEB: "blue", SHOP: "red"}


class Died(BaseException):
    """kill -9."""


class MortalStore(FakeStore):
    """With `dies` the daemon is killed as soon as something is written, or just before."""

    dies = ""

    def commit(self, changes: Iterable[Change], events: Iterable[Happened] = ()) -> None:
        if self.dies == "before":
            raise Died
        super().commit(changes, events)
        if self.dies == "after":
            raise Died


class Node:
    """A host whose pods are projects' of another daemon's."""

    def __init__(self, host: Host) -> None:
        self.host, self.disk = host, FakeDisk()
        self.answers = "whole"
        self.open()

    def open(self) -> None:
        self.registry = Registry(FakeStore(self.disk))
        self.meter = Meter(self.registry.journal, Sources(active=lambda: True, wanted=bool))
        self.registry.meter = self.meter
        self.meter.open()
        self.meter.reconcile(self.registry.pods())
        for found in self.registry.pods():
            self.registry.put_pod(found)  # its machine has answered
        self.telling = Telling(self.registry.journal, self.meter)

    async def read(self, after: int) -> LedgerPart:
        part = self.telling.part(after)
        if self.answers == "lost":
            raise Unavailable("it does not answer")
        return part


class Control:
    """What of the control daemon has to do with it."""

    def __init__(self, ledgers: FakeLedgers) -> None:
        self.ledgers, self.disk = ledgers, FakeDisk()
        self.open()

    def open(self) -> None:
        self.store = MortalStore(self.disk)
        registry = Registry(self.store)
        payer = lambda tenant: PAYERS.get(str(tenant), "")  # noqa: E731
        self.meter = Meter(registry.journal, Sources(active=lambda: True, wanted=bool, payer=payer))
        self.meter.open()
        own = Telling(registry.journal, self.meter)
        self.collector = Collector(self.ledgers, self.meter, lambda tenant: PAYERS.get(tenant, ""), own.name)

    def collect(self) -> None:
        asyncio.run(self.collector.collect())

    def used(self) -> Counter[str]:
        return used(self.disk)


def used(disk: FakeDisk) -> Counter[str]:
    """Milliseconds by project."""
    found: Counter[str] = Counter()
    for use in disk.rows.uses:
        found[use.subject.tenant] += use.lasted
    return +found


def pod(id_: str, project: str = WEB) -> Pod:
    return Pod(id=id_, name=f"n{id_}", created_at="", hostname="h", vcpus=1, memory=128 * MIB, vm=VM,
               spec=PodSpec(charged=project))  # fmt: skip


class Collecting(RuleBasedStateMachine):
    """Two nodes, and who collects."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.time = self.host.told()
        self.time.__enter__()
        self.nodes = [Node(self.host), Node(self.host)]
        self.ledgers = FakeLedgers()
        for number, node in enumerate(self.nodes):
            self.ledgers.nodes[f"node{number}"] = node.read
        self.control = Control(self.ledgers)
        self.model: Counter[str] = Counter()
        self.running: dict[str, tuple[int, str, int]] = {}  # -> node, project, since when
        self.made = 0

    def teardown(self) -> None:
        self.drain()
        self.time.__exit__(None, None, None)

    @rule(node=st.integers(0, 1), project=st.sampled_from([WEB, SHOP]))
    def start(self, node: int, project: str) -> None:
        self.made += 1
        self.running[str(self.made)] = (node, project, self.host.true)
        self.nodes[node].registry.put_pod(pod(str(self.made), project))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def end(self, which: int) -> None:
        id_ = list(self.running)[which % len(self.running)]
        node, project, since = self.running.pop(id_)
        self.model[project] += self.host.true - since
        self.nodes[node].registry.erase(self.nodes[node].registry.pod(id_))

    @rule(milliseconds=st.sampled_from([1, 999, 60_000, 700_000, DAY]))
    def pass_(self, milliseconds: int) -> None:
        self.host.passes(milliseconds)
        for node in self.nodes:
            node.meter.mark()

    @rule(node=st.integers(0, 1))
    def kill_node(self, node: int) -> None:
        self.nodes[node].open()

    @rule()
    def collect(self) -> None:
        self.control.collect()

    @rule(node=st.integers(0, 1))
    def lose_an_answer(self, node: int) -> None:
        self.nodes[node].answers = "lost"
        self.control.collect()
        self.nodes[node].answers = "whole"

    @rule(when=st.sampled_from(["before", "after"]))
    def kill_control(self, when: str) -> None:
        self.control.store.dies = when
        try:
            self.control.collect()
        except* Died:
            pass
        self.control.open()

    @rule()
    def full_disk(self) -> None:
        self.control.disk.full = True
        self.control.collect()
        self.control.disk.full = False

    @rule()
    def rename(self) -> None:
        """Two nodes change their names."""
        nodes = self.ledgers.nodes
        nodes["node0"], nodes["node1"] = nodes["node1"], nodes["node0"]

    @invariant()
    def nothing_twice(self) -> None:
        known = sum((used(n.disk) for n in self.nodes), Counter())
        assert all(self.control.used()[p] <= known[p] for p in PAYERS)
        assert [u.number for u in self.control.disk.rows.uses] == list(range(1, len(self.control.disk.rows.uses) + 1))
        assert all(u.subject.payer == PAYERS[u.subject.tenant] for u in self.control.disk.rows.uses)

    def drain(self) -> None:
        while self.running:
            self.end(0)
        self.control.collect()
        assert self.control.used() == +self.model
        self.control.open()
        self.control.collect()
        assert self.control.used() == +self.model


Collecting.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestCollecting = Collecting.TestCase


@pytest.fixture
def two() -> Iterable[tuple[Host, Node, Control]]:
    host = Host()
    with host.told():
        node, ledgers = Node(host), FakeLedgers()
        ledgers.nodes["node1"] = node.read
        yield host, node, Control(ledgers)


Two = tuple[Host, Node, Control]


def test_what_runs_is_told_every_ten_minutes(two: Two) -> None:
    host, node, control = two
    node.registry.put_pod(pod("1"))
    host.passes(599_999)
    control.collect()
    assert not control.used()
    host.passes(1)
    control.collect()
    assert control.used() == {WEB: 600_000}
    host.passes(5000)
    node.registry.erase(node.registry.pod("1"))
    control.collect()
    (first, last) = control.disk.rows.uses
    assert (first.run, last.run) == (-1, 605_000)


def test_a_node_that_is_made_anew_has_another_ledger(two: Two) -> None:
    host, node, control = two
    for disk in (node.disk, FakeDisk()):
        node.disk = disk
        node.open()
        node.registry.put_pod(pod("1"))
        host.passes(1000)
        node.registry.erase(node.registry.pod("1"))
        control.collect()
    assert control.used() == {WEB: 2000} and control.collector.nodes()[0].trouble == ""


def test_a_ledger_that_went_back_is_told_of(two: Two) -> None:
    host, node, control = two
    node.registry.put_pod(pod("1"))
    host.passes(1000)
    node.registry.erase(node.registry.pod("1"))
    control.collect()
    node.disk.rows.uses.clear()
    control.collect()
    assert "its ledger ends at 0, and 1 entries of it were taken over" in control.collector.nodes()[0].trouble
    with pytest.raises(Conflict, match="what was used on the node node1 is not known"):
        asyncio.run(control.collector.surely())


def test_an_invoice_waits_for_a_node_for_three_days(two: Two) -> None:
    host, _, control = two
    control.collect()
    assert not control.meter.lasts_from_before(host.wall, "blue")
    assert control.meter.lasts_from_before(host.wall + 1, "blue")
    host.passes(4 * DAY)
    assert not control.meter.lasts_from_before(host.wall, "blue")


def test_nothing_is_added_to_days_that_are_billed(two: Two) -> None:
    host, node, control = two
    node.registry.put_pod(pod("1"))
    host.passes(1000)
    node.registry.erase(node.registry.pod("1"))
    month = (host.wall // DAY + 1) * DAY
    control.meter.close_before(month, "blue")
    control.collect()
    (use,) = control.disk.rows.uses
    assert (use.began, use.day, use.lasted) == (month, month // DAY, 1000)


def test_what_a_removed_project_used_is_nobodys(two: Two) -> None:
    host, node, control = two
    node.registry.put_pod(pod("1", GONE))
    host.passes(1000)
    node.registry.erase(node.registry.pod("1"))
    control.collect()
    assert control.disk.rows.uses[0].subject.payer == ""


def test_a_project_is_not_told_the_ledger(two: Two) -> None:
    _, node, _ = two
    with asked_by(Principal("token:1", WEB)), pytest.raises(PermissionDenied, match="the ledger is the host's"):
        node.telling.part(0)


def test_a_node_with_a_full_disk(two: Two) -> None:
    _, node, control = two
    node.disk.full = True
    control.collect()
    assert "no space left" in control.collector.nodes()[0].trouble
    node.disk.full = False
    control.collect()
    assert control.collector.nodes()[0].trouble == ""


def test_a_namespace_says_its_project() -> None:
    assert project_of(namespace_of(WEB)) == WEB
    for other in ("default", "hyper-web", f"hyper-{WEB}x", f"x-hyper-{WEB}"):
        assert project_of(other) == ""


def put_back(node: Node, rows: Rows) -> None:
    """As `hyperd --restore` of that: no machine runs, and the ledger is another one."""
    node.disk = FakeDisk(copy.deepcopy(rows))
    store = FakeStore(node.disk)
    for found in store.pods():
        store.commit([put(replace(found, vm=None))])
    begin_anew(store)
    node.open()
    node.meter.reconcile(node.registry.pods())


def run_for(host: Host, node: Node, id_: str, milliseconds: int) -> None:
    node.registry.put_pod(pod(id_))
    host.passes(milliseconds)
    node.registry.erase(node.registry.pod(id_))


@pytest.mark.parametrize("known", [False, True])
def test_a_node_that_is_put_back_from_a_backup_goes_on(known: bool, two: Two) -> None:
    """Whether what it had by then was collected or not: what was is there once, and so is what comes."""
    host, node, control = two
    control.collect()
    run_for(host, node, "1", 1000)
    node.registry.put_pod(pod("2"))
    host.passes(600_000)
    if known:
        control.collect()
    backup = copy.deepcopy(node.disk.rows)
    lost = 0 if known else 600_000  # goes on as a row that was no entry yet, and was marked never
    host.passes(600_000)
    if known:
        run_for(host, node, "3", 500)
        control.collect()
        assert control.used() == {WEB: 1_202_000}
    host.passes(100_000)  # nobody has told of this when its disk breaks
    put_back(node, backup)
    run_for(host, node, "4", 7)
    expected = 1_202_000 + 7 if known else 1000 + 600_000 - lost + 7
    for _ in range(2):
        control.open()
        control.collect()
        assert control.used() == {WEB: expected} and control.collector.nodes()[0].trouble == ""
    assert not control.meter.lasts_from_before(host.wall, "blue")


def test_a_node_that_is_put_back_twice(two: Two) -> None:
    host, node, control = two
    run_for(host, node, "1", 1000)
    control.collect()
    backup = copy.deepcopy(node.disk.rows)
    run_for(host, node, "2", 50)
    control.collect()
    put_back(node, backup)
    run_for(host, node, "3", 400)  # nobody asks this one
    put_back(node, node.disk.rows)
    run_for(host, node, "4", 7)
    control.collect()
    assert control.used() == {WEB: 1457} and control.collector.nodes()[0].trouble == ""


def test_what_was_marked_after_the_last_look_counts_when_it_is_put_back(two: Two) -> None:
    host, node, control = two
    node.registry.put_pod(pod("1"))
    control.collect()
    host.passes(60_000)
    node.meter.mark()
    put_back(node, node.disk.rows)
    control.collect()
    assert control.used() == {WEB: 60_000}


def test_a_ledger_that_went_back_and_has_grown_since_is_told_of(two: Two) -> None:
    """By the digest of the entry up to which it was taken over, which is another one now."""
    host, node, control = two
    run_for(host, node, "1", 1000)
    backup = copy.deepcopy(node.disk.rows)
    run_for(host, node, "2", 2000)
    control.collect()
    node.disk = FakeDisk(backup)
    node.open()
    for id_ in ("3", "4"):
        run_for(host, node, id_, 100)
    control.collect()
    trouble = control.collector.nodes()[0].trouble
    assert "another than that of which 2 entries were taken over" in trouble and "hyperd --restore" in trouble
    assert control.used() == {WEB: 3000}
    put_back(node, node.disk.rows)  # as the sentence says
    run_for(host, node, "5", 10)
    control.collect()
    assert control.used() == {WEB: 3110}


async def test_a_defect_of_one_node_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    host, ledgers = Host(), FakeLedgers()
    with host.told():
        node, control = Node(host), Control(ledgers)

        async def odd(after: int) -> LedgerPart:
            raise ValueError("odd")

        ledgers.nodes |= {"node1": odd, "node2": node.read}
        run_for(host, node, "1", 1000)
        await control.collector.collect()
        assert control.used() == {WEB: 1000}
        assert control.collector.nodes()[0].trouble == "a defect of this hyperd: ValueError('odd')"


async def test_collecting_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host, ledgers, asked = Host(), FakeLedgers(), asyncio.Event()
    answers = [ValueError("odd"), KeyError("odd")]

    async def addresses() -> dict[str, str]:
        if answers:
            raise answers.pop()
        asked.set()
        return {}

    monkeypatch.setattr(ledgers, "addresses", addresses)
    monkeypatch.setattr(collecting, "_EVERY", 0.001)
    with host.told():
        task = asyncio.create_task(Control(ledgers).collector.run())
        try:
            await tasks.within(asked.wait(), 20)
        finally:
            await tasks.end([task])
