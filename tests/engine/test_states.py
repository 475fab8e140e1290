# SPDX-License-Identifier: Apache-2.0
"""Every verb against every state: what each says, and what state it leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.model.specs import ExecSpec, RestartPolicy
from hypercontainer.protocol.constants import Type

from .scenes import Act, plan, spec
from .stage import Stage, play, stage

# Verbs that wait for something that does not come in that state end with this limit, in virtual seconds.
_PATIENCE = 60.0
WAITS = "waits"


async def _created(s: Stage) -> None:
    await s.create("a")


async def _running(s: Stage) -> None:
    await s.run("a")


async def _paused(s: Stage) -> None:
    await s.run("a")
    await s.call(s.engine.containers.pause("a"))


async def _restarting(s: Stage) -> None:
    await s.run("a", "exit", "1", restart=RestartPolicy(name="always"))
    await asyncio.sleep(65)  # it is a minute by now until it is started again
    assert s.status("a") == "restarting"


async def _exited(s: Stage) -> None:
    await s.run("a", "exit", "3")
    await s.call(s.engine.containers.wait("a"))
    await asyncio.sleep(1)


async def _failed(s: Stage) -> None:
    await s.create("a", "nothing-such")
    with pytest.raises(HyperError):
        await s.call(s.engine.containers.start("a"))


async def _starting(s: Stage) -> None:
    """Its guest takes its time."""
    await s.create("a")
    s.silent.add(Type.PROCESS_START)
    _meanwhile(s, s.engine.containers.start("a"))
    await asyncio.sleep(1)
    s.silent.clear()
    assert s.engine.registry.container("a").state.starting


async def _stopping(s: Stage) -> None:
    await s.run("a", "ignore-term")
    _meanwhile(s, s.engine.containers.stop("a", 1000))
    await asyncio.sleep(1)


async def _reattaching(s: Stage) -> None:
    """Its machine stands still since before the daemon's start."""
    await s.run("a")
    s.kill()
    next(iter(s.host.machines.values())).wedge()
    await s.open()


def _meanwhile(s: Stage, work: Any) -> None:
    assert s.daemon
    s.daemon.call(work).add_done_callback(lambda t: t.cancelled() or t.exception())


STATES: dict[str, Act] = {
    "created": _created, "running": _running, "paused": _paused, "restarting": _restarting, "exited": _exited,
    "failed": _failed, "starting": _starting, "stopping": _stopping, "reattaching": _reattaching,
}  # fmt: skip


async def _exec(s: Stage) -> None:
    exec_ = s.engine.execs.create("a", ExecSpec(command=["true"]))
    await s.engine.execs.start(exec_)
    await exec_.ended.wait()


async def _logs(s: Stage) -> None:
    async for _ in s.engine.logs("a", tail=None, since="", until="", follow=False):
        pass


async def _cp(s: Stage) -> None:
    async for _ in s.engine.archives.read("a", "/etc", follow=False):
        pass


async def _rename(s: Stage) -> None:
    s.engine.containers.rename("a", "b")
    s.engine.containers.rename("b", "a")


async def _attach(s: Stage) -> None:
    reader = s.engine.containers.supervisor(s.engine.registry.container("a")).fan_out.attach()
    reader.close()


def _c(verb: str, *args: Any, **how: Any) -> Act:
    return lambda s: getattr(s.engine.containers, verb)(*args, **how)


VERBS: dict[str, Act] = {
    "start": _c("start", "a"), "stop": _c("stop", "a"), "kill": _c("kill", "a", "KILL"),
    "term": _c("kill", "a", "TERM"),
    "restart": _c("restart", "a"), "pause": _c("pause", "a"), "unpause": _c("unpause", "a"), "rm": _c("remove", "a"),
    "rm -f": _c("remove", "a", force=True), "rename": _rename, "exec": _exec, "wait": _c("wait", "a"), "logs": _logs,
    "cp": _cp,
}  # fmt: skip
# A copy out of a container that is started again and again waits for a moment in which nothing runs or starts: known.
# What each verb says ("" for nothing, WAITS, or the code of its error), and the state afterwards ("" for gone).
_ASLEEP = {
    "start": ("", "running"), "stop": ("", "="), "kill": ("invalid_state", "="), "term": ("invalid_state", "="),
    "restart": ("", "running"), "pause": ("invalid_state", "="), "unpause": ("invalid_state", "="), "rm": ("", ""),
    "rm -f": ("", ""), "rename": ("", "="), "exec": ("invalid_state", "="), "wait": ("", "="), "logs": ("", "="),
    "cp": ("", "="),
}  # fmt: skip
EXPECTED: dict[str, dict[str, tuple[str, str]]] = {
    "created": _ASLEEP,
    "exited": _ASLEEP | {"start": ("", "exited"), "restart": ("", "exited")},  # its program ends again
    "failed": _ASLEEP | {"start": ("start_failed", "exited"), "restart": ("start_failed", "exited")},
    "running": {
        "start": ("", "="), "stop": ("", "exited"), "kill": ("", "exited"), "term": ("", "exited"),
        "restart": ("", "="), "pause": ("", "paused"), "unpause": ("invalid_state", "="), "rm": ("conflict", "="),
        "rm -f": ("", ""), "rename": ("", "="), "exec": ("", "="), "wait": (WAITS, "="), "logs": ("", "="),
        "cp": ("", "="),
    },
    "paused": {
        "start": ("invalid_state", "="), "stop": ("", "exited"), "kill": ("", "exited"), "term": ("", "exited"),
        "restart": ("", "running"), "pause": ("invalid_state", "="), "unpause": ("", "running"),
        "rm": ("conflict", "="), "rm -f": ("", ""), "rename": ("", "="), "exec": ("invalid_state", "="),
        "wait": (WAITS, "="), "logs": ("", "="), "cp": (WAITS, "="),
    },
    "starting": {  # its program is not begun within the minute that it has
        "start": ("deadline_exceeded", "exited"), "stop": ("", "exited"), "kill": ("", "exited"),
        "term": ("", "exited"), "restart": ("", "running"), "pause": ("invalid_state", "="),
        "unpause": ("invalid_state", "="), "rm": ("conflict", "="), "rm -f": ("", ""), "rename": ("", "="),
        "exec": ("invalid_state", "="), "wait": ("", "="), "logs": ("", "="), "cp": ("", "exited"),
    },
    "stopping": {  # with a grace of a thousand seconds; the container's own is ten
        "start": (WAITS, "="), "stop": ("", "exited"), "kill": ("", "exited"), "term": ("", "="),
        "restart": ("", "running"), "pause": ("invalid_state", "="), "unpause": ("invalid_state", "="),
        "rm": ("conflict", "="), "rm -f": ("", ""), "rename": ("", "="), "exec": ("", "="), "wait": (WAITS, "="),
        "logs": ("", "="), "cp": ("", "="),
    },
    "reattaching": {
        "start": ("", "="), "stop": ("", "exited"), "kill": ("", "exited"), "term": ("unavailable", "="),
        "restart": ("", "running"), "pause": ("unavailable", "="), "unpause": ("unavailable", "="),
        "rm": ("conflict", "="), "rm -f": ("", ""), "rename": ("", "="), "exec": ("unavailable", "="),
        "wait": (WAITS, "="), "logs": ("", "="), "cp": ("unavailable", "="),
    },
    "restarting": {
        "start": ("", "="), "stop": ("", "exited"), "kill": ("", "exited"), "term": ("", "exited"),
        "restart": ("", "="), "pause": ("invalid_state", "="), "unpause": ("invalid_state", "="),
        "rm": ("conflict", "="), "rm -f": ("", ""), "rename": ("", "="), "exec": ("invalid_state", "="),
        "wait": ("", "="), "logs": ("", "="), "cp": ("", "="),
    },
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", STATES)
def test_a_verb_in_a_state(template: Path, count: Callable[[str], None], state: str, verb: str) -> None:
    count("verbs in states")
    says, leads_to = EXPECTED[state][verb]

    async def scenario(s: Stage) -> None:
        await s.open()
        await STATES[state](s)
        before = s.status("a")
        said = await _said(s, VERBS[verb])
        await asyncio.sleep(0.5)
        present = [c.name for c in s.engine.registry.containers()]
        after = s.status("a") if "a" in present else ""
        assert (said, after) == (says, before if leads_to == "=" else leads_to)
        await s.check()
        await s.clear()
        await s.close()

    with stage(template) as s:
        play(s, scenario)


async def _said(s: Stage, verb: Act) -> str:
    assert s.daemon
    task = s.daemon.call(_awaited(verb(s)))
    await asyncio.wait({task}, timeout=_PATIENCE)
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        return WAITS
    error = task.exception()
    if error is None:
        return ""
    assert isinstance(error, HyperError), repr(error)
    return error.code


async def _awaited(work: Any) -> None:
    await work


# -- pods -----------------------------------------------------------------------------


async def _pod_created(s: Stage) -> None:
    await s.call(s.engine.pods.create(plan(spec("a"), spec("b"))))


async def _pod_running(s: Stage) -> None:
    await _pod_created(s)
    await s.call(s.engine.pods.start("pod"))


async def _pod_paused(s: Stage) -> None:
    await _pod_running(s)
    await s.call(s.engine.pods.pause("pod"))


async def _pod_exited(s: Stage) -> None:
    await _pod_running(s)
    await s.call(s.engine.pods.stop("pod"))


def _p(verb: str, *args: Any, **how: Any) -> Act:
    return lambda s: getattr(s.engine.pods, verb)("pod", *args, **how)


async def _pod_starting(s: Stage) -> None:
    """The guest takes its time with its first container."""
    await _pod_created(s)
    s.silent.add(Type.PROCESS_START)
    _meanwhile(s, s.engine.pods.start("pod"))
    await asyncio.sleep(1)
    s.silent.clear()


async def _pod_stopping(s: Stage) -> None:
    await s.call(s.engine.pods.create(plan(spec("a", "ignore-term"), spec("b", "ignore-term"))))
    await s.call(s.engine.pods.start("pod"))
    _meanwhile(s, s.engine.pods.stop("pod", 1000))
    await asyncio.sleep(1)


async def _pod_reattaching(s: Stage) -> None:
    await _pod_running(s)
    s.kill()
    next(iter(s.host.machines.values())).wedge()
    await s.open()


POD_STATES: dict[str, Act] = {
    "created": _pod_created, "running": _pod_running, "paused": _pod_paused, "exited": _pod_exited,
    "starting": _pod_starting, "stopping": _pod_stopping, "reattaching": _pod_reattaching,
}  # fmt: skip
POD_VERBS: dict[str, Act] = {
    "start": _p("start"), "stop": _p("stop"), "kill": _p("kill", "KILL"), "pause": _p("pause"),
    "unpause": _p("unpause"), "rm": _p("remove"), "rm -f": _p("remove", force=True),
    "start of a member": _c("start", "a"), "stop of a member": _c("stop", "a"),
    "rm -f of a member": _c("remove", "a", force=True), "pause of a member": _c("pause", "a"), "exec": _exec,
}  # fmt: skip
_POD_ASLEEP = {
    "start": ("", "running"), "stop": ("", "="), "kill": ("invalid_state", "="), "pause": ("invalid_state", "="),
    "unpause": ("invalid_state", "="), "rm": ("", ""), "rm -f": ("", ""), "start of a member": ("", "running"),
    "stop of a member": ("", "="), "rm -f of a member": ("", "="), "pause of a member": ("invalid_state", "="),
    "exec": ("invalid_state", "="),
}  # fmt: skip
POD_EXPECTED: dict[str, dict[str, tuple[str, str]]] = {
    "created": _POD_ASLEEP,
    "exited": _POD_ASLEEP,
    "starting": {  # its first container is not begun within the minute that it has
        "start": ("deadline_exceeded", "failed"), "stop": ("", "exited"), "kill": ("invalid_state", "="),
        "pause": ("invalid_state", "="), "unpause": ("invalid_state", "="), "rm": ("conflict", "="), "rm -f": ("", ""),
        "start of a member": ("deadline_exceeded", "failed"), "stop of a member": ("", "failed"),
        "rm -f of a member": ("", "failed"), "pause of a member": ("invalid_state", "="),
        "exec": ("invalid_state", "="),
    },
    "stopping": {  # with a grace of a thousand seconds; the containers' own is ten
        "start": (WAITS, "="), "stop": ("", "exited"), "kill": ("", "exited"), "pause": ("invalid_state", "="),
        "unpause": ("invalid_state", "="), "rm": ("conflict", "="), "rm -f": ("", ""),
        "start of a member": (WAITS, "="), "stop of a member": ("", "="), "rm -f of a member": ("", "="),
        "pause of a member": ("invalid_state", "="),
        "exec": ("", "="),
    },
    "reattaching": {
        "start": ("", "="), "stop": ("", "exited"), "kill": ("", "exited"), "pause": ("invalid_state", "="),
        "unpause": ("invalid_state", "="), "rm": ("conflict", "="), "rm -f": ("", ""), "start of a member": ("", "="),
        "stop of a member": ("", "exited"), "rm -f of a member": ("", "exited"),
        "pause of a member": ("unavailable", "="), "exec": ("unavailable", "="),
    },
    "running": {
        "start": ("", "="), "stop": ("", "exited"), "kill": ("", "exited"), "pause": ("", "paused"),
        "unpause": ("invalid_state", "="), "rm": ("conflict", "="), "rm -f": ("", ""), "start of a member": ("", "="),
        "stop of a member": ("", "="), "rm -f of a member": ("", "="), "pause of a member": ("", "="),
        "exec": ("", "="),
    },
    "paused": {
        "start": ("invalid_state", "="), "stop": ("", "exited"), "kill": ("invalid_state", "="),
        "pause": ("invalid_state", "="), "unpause": ("", "running"), "rm": ("conflict", "="), "rm -f": ("", ""),
        "start of a member": ("", "="), "stop of a member": ("invalid_state", "="),
        "rm -f of a member": ("invalid_state", "="), "pause of a member": ("invalid_state", "="),
        "exec": ("invalid_state", "="),
    },
}  # fmt: skip


@pytest.mark.parametrize("verb", POD_VERBS)
@pytest.mark.parametrize("state", POD_STATES)
def test_a_verb_in_a_state_of_a_pod(template: Path, count: Callable[[str], None], state: str, verb: str) -> None:
    count("verbs in states")
    says, leads_to = POD_EXPECTED[state][verb]

    async def scenario(s: Stage) -> None:
        await s.open()
        await POD_STATES[state](s)
        before = str(s.engine.registry.pod("pod").status)
        said = await _said(s, POD_VERBS[verb])
        await asyncio.sleep(0.5)
        present = [p.name for p in s.engine.registry.pods()]
        after = str(s.engine.registry.pod("pod").status) if "pod" in present else ""
        assert (said, after) == (says, before if leads_to == "=" else leads_to)
        await s.check()
        await s.clear()
        await s.close()

    with stage(template) as s:
        play(s, scenario)
