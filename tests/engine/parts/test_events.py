# SPDX-License-Identifier: Apache-2.0
"""Events: their order, their past in the database, its bounds, and a disk that is full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import events as module
from hypercontainer.engine.events import Events
from hypercontainer.engine.principal import asked_by
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import InvalidArgument
from hypercontainer.model.moments import SECOND, read_moment, write_moment
from hypercontainer.model.principal import Principal
from hypercontainer.model.status import Event
from hypercontainer.state.database import Database
from hypercontainer.state.journal import EventLimits, Journal
from hypercontainer.state.store import Happened
from hypercontainer.sys import clock
from tests.unit.test_records import LONG, container, fill

DEADLINE = 10.0


def opened(path: Path, limits: EventLimits | None = None) -> tuple[Journal, Events]:
    """As a daemon that starts."""
    journal = Journal(Database(path / "state.db"))
    journal.limits = limits or journal.limits
    return journal, Events(journal)


def publish(events: Events, *names: str) -> None:
    for name in names:
        events.publish("container", "start", name)


def ids(found: Any) -> list[str]:
    return [event.id for event in found]


def follow(events: Events, into: list[Event], count: int, since: int | None = None) -> asyncio.Task[None]:
    """A client that ends when it has seen so many."""

    async def read() -> None:
        async with contextlib.aclosing(events.follow(since)) as found:
            async for event in found:
                into.append(event)
                if len(into) == count:
                    return

    return asyncio.create_task(read())


# -- moments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1700000000.123456789", 1700000000123456789),
        ("1700000000.5", 1700000000500000000),
        ("2023-11-14T22:13:20.123456789Z", 1700000000123456789),
        ("2023-11-14T23:13:20.000000001+01:00", 1700000000000000001),
        ("2023-11-14T22:13:20Z", 1700000000000000000),
        ("99999999999", 2**63 - 2),
        ("9999-12-31T23:59:59Z", 2**63 - 2),
        ("1969-12-31T23:59:59Z", 0),
    ],
)
def test_moments_are_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert read_moment(text) == nanoseconds and read_moment(write_moment(nanoseconds)) == nanoseconds


def test_a_duration_is_before_now_and_nonsense_is_refused() -> None:
    before = time.time_ns() - 600 * SECOND
    assert before - SECOND < read_moment("10m") < before + DEADLINE * SECOND
    for text in ("yesterday", "-1", "1700000000.", "", "9" * 30):
        with pytest.raises(InvalidArgument, match="invalid time"):
            read_moment(text)


# -- order and the past -------------------------------------------------------------------


def test_each_has_a_time_of_its_own_whatever_the_clock_does(tmp_path: Path) -> None:
    times = [5000, 5000, 4000, 6000]
    with clock.told_by(lambda: times.pop(0) if len(times) > 1 else 7):
        journal, events = opened(tmp_path)
        publish(events, "a", "b", "c")
        journal.close()
        journal, events = opened(tmp_path)  # the clock was set back meanwhile
        publish(events, "d")
        assert [(e.id, e.time_nano) for e in events.past()] == [("a", 5000), ("b", 5001), ("c", 5002), ("d", 5003)]
        assert next(events.past()).time == "1970-01-01T00:00:00.000005000Z"
        journal.close()


def test_the_past_outlives_the_daemon_and_is_joined_to_the_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 7)
    monkeypatch.setattr(module, "_PAGE", 3)
    names = [f"e{n}" for n in range(40)]
    for begin in range(0, 40, 20):
        journal, events = opened(tmp_path)
        publish(events, *names[begin : begin + 20])
        assert ids(events.past()) == names[: begin + 20]
        journal.close()
    journal, events = opened(tmp_path)
    every = list(events.past())
    for at in (0, 13, 39):
        assert ids(events.past(every[at].time_nano)) == names[at:]
        assert ids(events.past(every[at].time_nano + 1)) == names[at + 1 :]
        assert ids(events.past(0, every[at].time_nano)) == names[: at + 1]
    journal.close()


async def test_a_client_that_comes_back_misses_nothing_and_sees_nothing_twice(tmp_path: Path) -> None:
    journal, events = opened(tmp_path)
    seen: list[Event] = []
    publish(events, "a", "b")
    client = follow(events, seen, 3, since=0)
    await asyncio.sleep(0)
    publish(events, "c")
    await asyncio.wait_for(client, DEADLINE)
    publish(events, "d", "e")  # nobody listens
    journal.close()
    journal, events = opened(tmp_path)
    publish(events, "f")
    client = follow(events, seen, 8, since=seen[-1].time_nano + 1)
    await asyncio.sleep(0)
    publish(events, "g", "h")
    await asyncio.wait_for(client, DEADLINE)
    assert ids(seen) == ["a", "b", "c", "d", "e", "f", "g", "h"]
    journal.close()


async def test_what_happens_while_the_past_is_sent_comes_once_and_in_order(tmp_path: Path) -> None:
    journal, events = opened(tmp_path)
    publish(events, *(f"old{n}" for n in range(50)))
    seen = []
    async with contextlib.aclosing(events.follow(0)) as found:
        async for event in found:
            seen.append(event.id)
            if event.id.startswith("old") and len(seen) % 10 == 0:
                publish(events, f"new{len(seen)}")
            if len(seen) == 55:
                break
    assert seen == [f"old{n}" for n in range(50)] + [f"new{n}" for n in range(10, 60, 10)]
    assert events._listeners == {}
    journal.close()


async def test_it_ends_at_its_time(tmp_path: Path) -> None:
    _, events = opened(tmp_path)
    publish(events, "a")
    until = time.time_ns() + SECOND // 5
    seen: list[Event] = []
    client = asyncio.create_task(collect(events, until, seen))
    await asyncio.sleep(0)
    publish(events, "b")
    await asyncio.wait_for(client, DEADLINE)
    assert ids(seen) == ["a", "b"] and time.time_ns() >= until
    assert ids(events.past(0, seen[0].time_nano)) == ["a"]


async def collect(events: Events, until: int, seen: list[Event]) -> None:
    async for event in events.follow(0, until):
        seen.append(event)


# -- bounds -------------------------------------------------------------------------------


def test_only_so_many_and_none_too_old_are_kept(tmp_path: Path) -> None:
    journal, events = opened(tmp_path, EventLimits(count=10, age=3600))
    old = time.time_ns() - 3601 * SECOND
    journal.database.commit([], [Happened(old + n, b"{}") for n in range(5)])
    publish(events, *(f"e{n}" for n in range(1200)))
    journal.close()
    journal, events = opened(tmp_path, EventLimits(count=10, age=3600))
    assert ids(events.past()) == [f"e{n}" for n in range(1190, 1200)]
    rows = journal.database._db.execute("SELECT count(*) FROM events").fetchone()[0]
    assert rows == 10
    journal.close()


async def test_a_loud_tenant_takes_nothing_of_anothers_past(tmp_path: Path) -> None:
    journal, events = opened(tmp_path, EventLimits(count=10, age=3600))
    with asked_by(Principal("token:a", "quiet")):
        publish(events, "a", "b")
        seen: list[Event] = []
        following = follow(events, seen, 1)
        await asyncio.sleep(0)
    with asked_by(Principal("token:b", "loud")):
        publish(events, *(f"e{n}" for n in range(12_000)))
        assert len(ids(events.past())) == 1000  # those in memory
    journal.close()
    with asked_by(Principal("token:a", "quiet")):
        publish(events, "c")
    await following
    assert ids(seen) == ["c"]  # nor was the listener cut off
    journal, events = opened(tmp_path, EventLimits(count=10, age=3600))
    with asked_by(Principal("token:a", "quiet")):
        assert ids(events.past()) == ["a", "b"]
    with asked_by(Principal("token:b", "loud")):
        assert ids(events.past()) == [f"e{n}" for n in range(11_990, 12_000)]
    journal.close()


# -- how they get to the disk -------------------------------------------------------------


async def test_they_are_written_with_the_next_record_or_by_themselves_soon(tmp_path: Path) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    journal = registry.journal
    events = Events(journal)
    publish(events, "a")
    assert written(journal) == []
    registry.create(container("c", "web"))
    assert written(journal) == ["a"]
    publish(events, "b")
    async with asyncio.timeout(DEADLINE):
        while written(journal) != ["a", "b"]:
            await asyncio.sleep(0.01)
    journal.close()


def written(journal: Journal) -> list[str]:
    rows = journal.database._db.execute("SELECT json_extract(CAST(document AS TEXT), '$.id') FROM events ORDER BY time")
    return [row[0] for row in rows]


async def test_a_full_disk_costs_events_and_never_a_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(Database(tmp_path / "state.db"))
    journal = registry.journal
    events = Events(journal)
    registry.create(container("c", "web"))
    limit = fill(registry)
    for n in range(1500):
        events.publish("container", "start", f"e{n}", note=LONG[:1000])
    registry.create(container("d", "small"))  # there is space for this one, in the page that is there
    assert [c.name for c in journal.database.containers()] == ["web", "small"] and journal.trouble == ""
    assert len(list(events.past())) == 1000  # as many as memory keeps
    journal.database._db.execute(f"PRAGMA max_page_count={limit}")
    async with asyncio.timeout(DEADLINE):
        while not written(journal):
            await asyncio.sleep(0.01)
    assert written(journal)[-1] == "e1499" and len(written(journal)) == 1000
    assert any("500 events were lost" in r.message for r in caplog.records)
    journal.close()


async def test_a_reader_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUE", 5)
    _, events = opened(tmp_path)
    found = events.follow(0)
    publish(events, "a")
    seen = [(await anext(found)).id]
    publish(events, *(f"e{n}" for n in range(9)))
    seen += [event.id async for event in found]
    assert seen == ["a", "e0", "e1", "e2", "e3", "e4"]  # and the end, after which it can come back
