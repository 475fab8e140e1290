# SPDX-License-Identifier: Apache-2.0
"""What each machine has of its host for itself, from before its launch until its end."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from hypercontainer.errors import NoSpace, Unavailable
from hypercontainer.jail.control_groups import Budget
from hypercontainer.model.specs import ContainerUpdate, Resources
from hypercontainer.model.status import ContainerStatus
from hypercontainer.state.database import Database
from hypercontainer.sys import users

from .stage import Stage


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of other tests run on this host, too."""
    monkeypatch.setattr(users, "in_use", lambda: set[int]())


def test_a_machine_has_a_group_until_it_ends(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a", resources=Resources(memory=256 << 20))
        pod = s.engine.registry.pod(s.engine.registry.container(id_).pod)
        assert pod.vm and list(s.groups.groups) == [pod.vm.allotment]
        assert s.groups.groups[pod.vm.allotment].memory == pod.memory + (64 << 20)
        assert s.machine("a").config.control_groups
        await s.call(s.engine.containers.stop(id_))
        assert s.groups.groups == {}

    act(scenario)


def test_a_share_of_a_busy_host_is_by_size(act: Any) -> None:
    most = min(2, len(os.sched_getaffinity(0)))

    async def scenario(s: Stage) -> None:
        def share(name: str) -> float | None:
            pod = s.engine.registry.pod(s.engine.registry.container(name).pod)
            assert pod.vm
            return s.groups.groups[pod.vm.allotment].share

        await s.run("small", resources=Resources(cpus=0.5))
        await s.run("large", resources=Resources(cpus=most))
        await s.run("plain")
        assert [share(n) for n in ("small", "large", "plain")] == [0.5, most, 1]
        await s.call(s.engine.updates.update("small", ContainerUpdate(cpus=0.25)))
        assert share("small") == 0.25

    act(scenario)


def test_without_a_group_there_is_no_machine(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        s.groups.trouble = "there is no room for groups"
        with pytest.raises(Unavailable, match="no room for groups"):
            await s.run("a")
        assert s.host.machines == {}

    act(scenario)


def test_a_machine_for_which_the_host_had_no_memory(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        id_ = await s.run("a")
        s.groups.starved.update(s.groups.groups)
        s.machine("a").die()
        await s.call(s.engine.containers.supervisor(s.engine.registry.container(id_)).stopped.wait())
        state = s.engine.registry.container(id_).state
        assert state.status is ContainerStatus.EXITED
        assert "reached this host's limit of memory for its virtual machine" in state.error

    act(scenario)


def test_the_next_daemon_keeps_those_of_machines(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        await s.run("a")
        await s.run("b")
        before = dict(s.groups.groups)
        s.kill()
        s.groups.groups["pool-0.1"] = Budget()  # of a machine that waited, and ended with its daemon
        next(iter(s.host.machines.values())).die()
        await s.open()
        await s.check()
        assert len(s.groups.groups) == 1 and set(s.groups.groups) < set(before)

    act(scenario)


# -- user numbers ---------------------------------------------------------------------------


def numbers(s: Stage) -> dict[int, str]:
    """As the database has them."""
    database = Database(s.paths.database)
    try:
        return database.users()
    finally:
        database.close()


def few(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(users, "_ranges", users.split(3 << 28, (3 << 28) + 4 * count - 1))


def test_each_machine_has_the_first_number_that_is_free(act: Any) -> None:
    async def scenario(s: Stage) -> None:
        for name in "abc":
            await s.run(name)
        first = s.machine("a").config.user
        assert first in users.ranges().fenced
        assert [s.machine(n).config.user - first for n in "abc"] == [0, 1, 2]
        assert sorted(numbers(s)) == [first, first + 1, first + 2]
        await s.call(s.engine.containers.stop("b"))
        await s.run("d")
        assert s.machine("d").config.user == first + 1
        await s.run("e", network="user:host-loopback")
        assert s.machine("e").config.user in users.ranges().open
        for name in "acde":
            await s.call(s.engine.containers.stop(name))
        s.kill()
        await s.open()
        await s.run("f")
        assert s.machine("f").config.user == first

    act(scenario)


def test_what_a_process_of_the_host_has_is_not_given(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a machine of another daemon with the same range."""

    async def scenario(s: Stage) -> None:
        await s.run("a")
        first = s.machine("a").config.user
        monkeypatch.setattr(users, "in_use", lambda: {first + 1})
        await s.run("b")
        assert s.machine("b").config.user == first + 2

    act(scenario)


def test_daemons_of_one_host_begin_at_places_of_their_own(act: Any) -> None:
    """What one has claimed a moment ago is not yet a process that the other could see."""
    found = []

    async def scenario(s: Stage) -> None:
        await s.run("a")
        found.append(s.machine("a").config.user)

    act(scenario)
    act(scenario)
    assert len(set(found)) == 2


def test_all_numbers_are_taken(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 2)

    async def scenario(s: Stage) -> None:
        await s.run("a")
        await s.run("b")
        with pytest.raises(Unavailable, match="all 2 user numbers .* are taken: stop some, or give hyperd a larger"):
            await s.run("c")
        freed = s.machine("a").config.user
        await s.call(s.engine.containers.stop("a"))
        await s.call(s.engine.containers.start("c"))
        assert s.machine("c").config.user == freed

    act(scenario)


@pytest.mark.parametrize("instant", [0.0, 0.01, 0.04, 0.06, 0.1, 0.5])
def test_no_two_have_one_though_daemons_are_killed(act: Any, instant: float) -> None:
    """At any time of a start: machines that go on keep theirs, what has none is free for the next."""

    async def scenario(s: Stage) -> None:
        await s.run("a")
        for round_ in range(3):
            id_ = await s.create(f"b{round_}")
            assert s.daemon
            s.daemon.call(s.engine.containers.start(id_))
            await asyncio.sleep(instant)
            s.kill()
            await s.open()
            await s.check()
            taken = [m.config.user for m in s.host.machines.values()]
            assert len(set(taken)) == len(taken) and set(taken) == set(numbers(s))

    act(scenario)


def test_a_full_disk_does_not_let_two_have_one(act: Any) -> None:
    """What is taken is in memory first, and written before the record of the machine is."""

    async def scenario(s: Stage) -> None:
        await s.run("a")
        await s.create("b")
        journal = s.engine.registry.journal
        real = journal.database
        journal.database = FullStore(real)  # type: ignore[assignment]
        await s.call(s.engine.containers.start("b"))
        assert s.machine("b").config.user == s.machine("a").config.user + 1
        journal.database = real
        journal._flush()
        assert set(numbers(s)) == {m.config.user for m in s.host.machines.values()}

    act(scenario)


class FullStore:
    """On a disk without space."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, *_: object) -> None:
        raise NoSpace("no space left on the disk of the state database")
