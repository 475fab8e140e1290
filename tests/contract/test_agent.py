# SPDX-License-Identifier: Apache-2.0
"""What every agent of a guest does, behind the port that the engine knows (`guest.agent`)."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import GuestError, InvalidState, StartFailed, Unavailable, Unsupported
from hypercontainer.guest.agent import Agent, Freeze, MakeLayers, Process, UpdateLimits, require
from hypercontainer.protocol.constants import OUTPUT_RING
from hypercontainer.protocol.messages import ExitStatus, GuestProcess, Interface, Limits

from .conftest import DEADLINE
from .guests import GUESTS, Guest, Output, VmGuest, ended

SHM = 1 << 20
FLOOD = 4 * OUTPUT_RING  # bytes
ALL, WITH_CONTAINERS = list(GUESTS), [name for name, (kind, _) in GUESTS.items() if kind.containers]


@pytest.fixture
async def guest(request: pytest.FixtureRequest) -> AsyncIterator[Guest]:
    with tempfile.TemporaryDirectory(prefix="hc") as short:  # sockets need short paths
        kind, host_kind = GUESTS[request.param]
        host = host_kind(Path(short))
        made = kind(host)
        yield made
        await made.close()
        await host.close()


@pytest.fixture(scope="module", autouse=True)
def last_machine() -> Iterator[None]:
    """What served several tests ends with the last."""
    yield
    asyncio.run(VmGuest.end())


everywhere = pytest.mark.parametrize("guest", ALL, indirect=True)
in_containers = pytest.mark.parametrize("guest", WITH_CONTAINERS, indirect=True)


async def run(agent: Agent, process: GuestProcess, stdin: bytes | None = None) -> tuple[ExitStatus, Output]:
    """To its end."""
    output = Output()
    started = await agent.start(process, output)
    if stdin is not None:
        await asyncio.wait_for(started.write_stdin(stdin), DEADLINE)
        started.close_stdin()
    status = await ended(started)
    await started.release()
    return status, output


async def forgotten(process: Process) -> None:
    """Until the guest knows it no longer."""
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(GuestError):
            while True:
                await process.signal(signal.SIGCONT)


# -- processes ---------------------------------------------------------------------------


@everywhere
async def test_output_and_its_end(guest: Guest) -> None:
    agent = await guest.agent()
    status, output = await run(agent, guest.process("echo", "some", "words"))
    assert (status, bytes(output.data[1]), bytes(output.data[2])) == (ExitStatus(), b"some words\n", b"")
    assert output.ended == {1, 2} and output.has_exited


@everywhere
async def test_exit_codes(guest: Guest) -> None:
    agent = await guest.agent()
    for code in (0, 1, 127, 255):
        status, _ = await run(agent, guest.process("exit", str(code)))
        assert (status.code, status.signal, status.shell_code) == (code, 0, code)


@everywhere
async def test_a_signal_ends_it(guest: Guest) -> None:
    agent = await guest.agent()
    process = await agent.start(guest.process("sleep", "1000"), Output())
    await process.signal(signal.SIGTERM)
    status = await ended(process)
    assert (status, status.shell_code) == (ExitStatus(signal=signal.SIGTERM), 143)


@everywhere
async def test_a_program_that_is_not_there(guest: Guest) -> None:
    agent = await guest.agent()
    with pytest.raises(StartFailed, match=r'exec: "nosuch": executable file not found in \$PATH') as caught:
        await agent.start(GuestProcess(("nosuch",), guest.home, env=("PATH=/bin",)), Output())
    assert caught.value.exit_status == 127
    assert (await run(agent, guest.process("true")))[0].code == 0


@everywhere
async def test_input_to_its_end(guest: Guest) -> None:
    """More than the window; what follows the end of the input is output still."""
    agent = await guest.agent()
    payload = os.urandom(300_000)
    status, output = await run(agent, guest.process("cat", stdin=True), payload)
    assert status.code == 0 and bytes(output.data[1]) == payload


@everywhere
async def test_no_input_is_an_end_of_input(guest: Guest) -> None:
    agent = await guest.agent()
    status, output = await run(agent, guest.process("cat"))
    assert (status.code, bytes(output.data[1])) == (0, b"")


@everywhere
async def test_output_that_nobody_takes_stops_at_the_window(guest: Guest) -> None:
    """It holds up nobody else, and goes on when it is taken."""
    agent = await guest.agent()
    output = Output(accept=False)
    process = await agent.start(guest.process("flood", str(FLOOD)), output)
    await output.until(OUTPUT_RING)
    assert (await run(agent, guest.process("true")))[0].code == 0
    assert len(output.data[1]) == OUTPUT_RING and not process.exited.done()
    output.accept = True
    process.acknowledge(1, OUTPUT_RING)
    assert (await ended(process)).code == 0
    assert len(output.data[1]) == FLOOD


@everywhere
async def test_who_stops_waiting_for_an_end_takes_it_from_nobody(guest: Guest) -> None:
    agent = await guest.agent()
    process = await agent.start(guest.process("sleep", "1000"), Output())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.exited, 0.01)
    assert not process.exited.done()
    await process.signal(signal.SIGKILL)
    assert (await asyncio.wait_for(process.exited, DEADLINE)).signal == signal.SIGKILL


@everywhere
async def test_output_after_the_end(guest: Guest) -> None:
    """The end is told at once; what was written before comes as it is taken."""
    agent = await guest.agent()
    output = Output(accept=False)
    process = await agent.start(guest.process("flood", str(OUTPUT_RING)), output)
    assert (await asyncio.wait_for(process.exited, DEADLINE)).code == 0
    await output.until(OUTPUT_RING)
    output.accept = True
    process.acknowledge(1, OUTPUT_RING)
    assert await process.drain()
    assert output.ended == {1, 2} and len(output.data[1]) == OUTPUT_RING


@everywhere
async def test_resize(guest: Guest) -> None:
    agent = await guest.agent()
    await agent.setup_pod("h", [], {}, SHM)
    terminal = await agent.start(guest.process("sleep", "1000", tty=True, rows=24, columns=80), Output())
    await terminal.resize(50, 132)
    plain = await agent.start(guest.process("sleep", "1000"), Output())
    with pytest.raises(GuestError, match="terminal"):
        await plain.resize(50, 132)


@everywhere
async def test_what_runs_is_not_released(guest: Guest) -> None:
    agent = await guest.agent()
    process = await agent.start(guest.process("sleep", "1000"), Output())
    with pytest.raises(GuestError):
        await process.release()


@everywhere
async def test_what_is_released_is_forgotten(guest: Guest) -> None:
    agent = await guest.agent()
    process = await agent.start(guest.process("true"), Output())
    await ended(process)
    await process.release()
    for asked in (process.release(), process.signal(signal.SIGKILL), process.resize(1, 1)):
        with pytest.raises(GuestError):
            await asked


@everywhere
async def test_what_is_abandoned_ends_and_is_forgotten(guest: Guest) -> None:
    agent = await guest.agent()
    process = await agent.start(guest.process("sleep", "1000"), Output())
    process.abandon()
    await forgotten(process)


# -- one connection after another -----------------------------------------------------------


@everywhere
async def test_an_end_and_its_output_outlive_the_connection(guest: Guest) -> None:
    first = await guest.agent()
    output = Output(accept=False)
    process = await first.start(guest.process("echo", "kept"), output)
    await asyncio.wait_for(process.exited, DEADLINE)
    first.close()
    second = await guest.found(first.next_token)
    again = Output()
    known = second.reattach(process.id, again, (0, 0))
    assert known and known.pid == process.pid and (await ended(known)).code == 0
    assert bytes(again.data[1]) == b"kept\n" and not again.missing
    assert second.reattach(12345, Output(), (0, 0)) is None
    assert second.pid_of(process.id) == process.pid and second.pid_of(12345) == 0


@everywhere
async def test_what_is_safe_is_not_sent_again(guest: Guest) -> None:
    first = await guest.agent()
    output = Output()
    process = await first.start(guest.process("cat", stdin=True), output)
    await process.write_stdin(b"before")
    await output.until(6)
    first.close()
    second = await guest.found(first.next_token)
    again = Output()
    known = second.reattach(process.id, again, (6, 0))
    assert known
    await known.write_stdin(b"after")
    known.close_stdin()
    assert (await ended(known)).code == 0
    assert bytes(again.data[1]) == b"after"


@everywhere
async def test_what_the_next_host_does_not_keep_ends(guest: Guest) -> None:
    first = await guest.agent()
    kept, other = [await first.start(guest.process("sleep", "1000"), Output()) for _ in range(2)]
    first.close()
    second = await guest.found(first.next_token)
    second.kill_orphans(keep={kept.id})
    process = second.reattach(kept.id, Output(), (0, 0))
    assert process
    token = second.next_token
    async with asyncio.timeout(DEADLINE):
        while second.reattach(other.id, Output(), (0, 0)):
            second.close()
            second = await guest.found(token)
            token = second.next_token
            second.kill_orphans(keep={kept.id})
    assert second.reattach(kept.id, Output(), (0, 0))


@everywhere
async def test_a_connection_that_breaks_is_renewed_with_all_that_it_carried(guest: Guest) -> None:
    agent = await guest.agent()
    agent.renewable = True
    output = Output()
    process = await agent.start(guest.process("cat", stdin=True), output)
    await process.write_stdin(b"one")
    await output.until(3)
    guest.cut()
    await asyncio.wait_for(agent.closed.wait(), DEADLINE)
    assert agent.lost and not agent.alive and not process.exited.done()
    await process.write_stdin(b"two")
    again = await agent.renew(guest.connect, guest.ended)
    assert again and again.alive
    process.close_stdin()
    assert (await ended(process)).code == 0
    assert bytes(output.data[1]) == b"onetwo" and not output.missing
    again.close()


@everywhere
async def test_who_waits_hears_that_there_is_no_other_connection(guest: Guest) -> None:
    agent = await guest.agent()
    agent.renewable = True
    process = await agent.start(guest.process("sleep", "1000"), Output())
    guest.spent = True
    guest.cut()
    await asyncio.wait_for(agent.closed.wait(), DEADLINE)
    assert guest.machine
    await guest.machine.kill()
    assert await agent.renew(guest.connect, guest.ended) is None
    assert not process.exited.done()
    agent.give_up()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(process.exited, DEADLINE)


@everywhere
async def test_a_closed_connection(guest: Guest) -> None:
    agent = await guest.agent()
    agent.renewable = True
    process = await agent.start(guest.process("sleep", "1000"), Output())
    assert agent.alive
    agent.close()
    agent.close()
    assert agent.closed.is_set() and not agent.alive and not agent.lost
    with pytest.raises(Unavailable):
        await asyncio.wait_for(process.exited, DEADLINE)
    with pytest.raises(InvalidState):
        await agent.stats()
    with pytest.raises(InvalidState):
        await agent.start(guest.process("true"), Output())


# -- the pod -----------------------------------------------------------------------------------


@everywhere
async def test_a_pod_is_set_up_again(guest: Guest) -> None:
    agent = await guest.agent()
    for name in ("factory", "mine"):
        await agent.setup_pod(name, [Interface("lo", ("127.0.0.1/8",))], {}, SHM)
    await agent.set_interface(Interface("lo", ("127.0.0.1/8",), down=True))


@everywhere
async def test_since_when_it_is_up(guest: Guest) -> None:
    agent = await guest.agent()
    age = (datetime.now(UTC) - agent.booted_at).total_seconds()
    assert age >= 0 and (age < DEADLINE or not guest.boots)
    stats = await agent.stats()
    assert stats.memory_total >= stats.memory_available > 0 and set(stats.containers) == {guest.home} - {""}


@everywhere
async def test_a_container_that_is_not_there(guest: Guest) -> None:
    agent = await guest.agent()
    for asked in (
        agent.start(guest.process("true", container="none"), Output()),
        agent.delete_container("none"),
        require(agent, Freeze).freeze_container("none", True),
        agent.processes("none"),
    ):
        with pytest.raises(GuestError, match="no container none"):
            await asked
    assert (await run(agent, guest.process("true")))[0].code == 0


@everywhere
async def test_shut_down(guest: Guest) -> None:
    """All ends; nothing begins any more. Its machine may end by itself."""
    guest.spent = True
    agent = await guest.agent()
    process = await agent.start(guest.process("sleep", "1000"), Output())
    await agent.shut_down(DEADLINE)
    (heard,) = await asyncio.gather(process.exited, return_exceptions=True)
    assert isinstance(heard, Unavailable) or heard == ExitStatus(signal=signal.SIGKILL)
    with pytest.raises((GuestError, InvalidState, Unavailable)):
        await agent.start(guest.process("true"), Output())


def test_what_an_agent_cannot_is_refused_by_name() -> None:
    agent: Any = object()
    with pytest.raises(Unsupported, match="does not support pausing a container"):
        require(agent, Freeze)


# -- containers ----------------------------------------------------------------------------------


async def with_container(guest: Guest, **how: Any) -> Agent:
    """A pod that has one."""
    agent = await guest.agent()
    if not guest.home:
        await agent.setup_pod("h", [], {}, SHM)
    await agent.create_container(guest.container(**how))
    return agent


@in_containers
async def test_a_container_is_made_once_and_removed_once(guest: Guest) -> None:
    agent = await with_container(guest)
    with pytest.raises(GuestError):
        await agent.create_container(guest.container())
    status, output = await run(agent, guest.process("echo", "inside", container="c", main=True))
    assert (status.code, bytes(output.data[1])) == (0, b"inside\n")
    await agent.delete_container("c")
    with pytest.raises(GuestError, match="no container c"):
        await agent.delete_container("c")
    await agent.create_container(guest.container())


@in_containers
async def test_what_runs_is_not_removed(guest: Guest) -> None:
    agent = await with_container(guest)
    main = await agent.start(guest.process("sleep", "1000", container="c", main=True), Output())
    with pytest.raises(GuestError, match="running"):
        await agent.delete_container("c")
    await main.signal(signal.SIGKILL)
    await ended(main)
    await agent.delete_container("c")


@in_containers
async def test_all_ends_with_the_main_process(guest: Guest) -> None:
    agent = await with_container(guest)
    main = await agent.start(guest.process("sleep", "1000", container="c", main=True), Output())
    other = await agent.start(guest.process("sleep", "1000", container="c"), Output())
    await main.signal(signal.SIGKILL)
    assert [(await ended(p)).signal for p in (main, other)] == [signal.SIGKILL, signal.SIGKILL]


@in_containers
async def test_a_signal_to_everyone(guest: Guest) -> None:
    agent = await with_container(guest)
    main = await agent.start(guest.process("sleep", "1000", container="c", main=True), Output())
    other = await agent.start(guest.process("sleep", "1000", container="c"), Output())
    await main.signal(signal.SIGKILL, everyone=True)
    assert [(await ended(p)).signal for p in (main, other)] == [signal.SIGKILL, signal.SIGKILL]


@in_containers
async def test_a_signal_to_a_group(guest: Guest) -> None:
    """Others of the container hear nothing of it."""
    agent = await with_container(guest)
    main = await agent.start(guest.process("sleep", "1000", container="c", main=True), Output())
    other = await agent.start(guest.process("sleep", "1000", container="c"), Output())
    await other.signal_group(signal.SIGKILL)
    assert (await ended(other)).signal == signal.SIGKILL
    assert not main.exited.done() and len(await agent.processes("c")) == 1


@in_containers
async def test_what_it_uses(guest: Guest) -> None:
    agent = await with_container(guest)
    process = await agent.start(guest.process("sleep", "1000", container="c", main=True), Output())
    async with asyncio.timeout(DEADLINE):  # the program, its first instruction and its accounts come after the answer
        while True:
            used = (await agent.stats()).containers["c"]
            (listed,) = await agent.processes("c")
            if used.cpu_usec and used.memory and "sleep" in listed.command:
                break
            await asyncio.sleep(0.01)
    assert used.pids == 1
    assert {"usage_usec", "user_usec", "system_usec", "nr_throttled"} <= used.cpu.keys()
    assert {"anon", "inactive_file"} <= used.memory_details.keys()
    assert listed.container == "c" and listed.pid == process.pid
    assert [p.pid for p in await agent.processes() if p.container == "c"] == [listed.pid]


@in_containers
async def test_freeze_and_thaw(guest: Guest) -> None:
    agent = await with_container(guest)
    output = Output()
    process = await agent.start(guest.process("cat", container="c", main=True, stdin=True), output)
    await process.write_stdin(b"1")
    await output.until(1)
    freezer = require(agent, Freeze)
    for _ in range(2):
        await freezer.freeze_container("c", True)
    await process.write_stdin(b"2")
    for _ in range(2):
        await agent.stats()  # it would have come by then
    assert bytes(output.data[1]) == b"1" and not process.exited.done()
    for _ in range(2):
        await freezer.freeze_container("c", False)
    await output.until(2)
    process.close_stdin()
    assert (await ended(process)).code == 0


@in_containers
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_fatal_signal_ends_what_is_frozen(guest: Guest, number: int) -> None:
    """One that comes before the process stands still would wait until it goes on: hence the answer comes after that."""
    agent = await with_container(guest)
    process = await agent.start(guest.process("sleep", "1000", container="c", main=True), Output())
    await require(agent, Freeze).freeze_container("c", True)
    await process.signal(number)
    assert (await ended(process)).signal == number


@everywhere
async def test_what_an_agent_can_is_said_before_it_is_asked(guest: Guest) -> None:
    agent = await guest.agent()
    for facet in (Freeze, MakeLayers, UpdateLimits):
        assert facet in agent.facets and require(agent, facet) is agent


@in_containers
async def test_other_limits(guest: Guest) -> None:
    agent = await with_container(guest)
    limits = require(agent, UpdateLimits)
    process = await agent.start(guest.process("cat", container="c", main=True, stdin=True), Output())
    await limits.update_limits("c", Limits(memory_max=32 << 20, cpu_max=50_000, pids_max=20))
    await limits.update_limits("c", Limits(pids_max=0))
    with pytest.raises(GuestError):
        await limits.update_limits("other", Limits(pids_max=1))
    process.close_stdin()
    assert (await ended(process)).code == 0


@in_containers
async def test_out_of_memory(guest: Guest) -> None:
    agent = await with_container(guest, memory_max=16 << 20)
    heard = asyncio.Event()
    agent.on_oom["c"] = heard.set
    process = await agent.start(guest.process("oom", container="c", main=True), Output())
    status = await ended(process)
    assert status.oom and status.signal == signal.SIGKILL
    await asyncio.wait_for(heard.wait(), DEADLINE)
