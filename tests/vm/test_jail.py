# SPDX-License-Identifier: Apache-2.0
"""What holds for the hypervisor of a pod that runs, and what happens when it does what it may not."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.hyperd.config import Config
from hypercontainer.hypervisor.qemu.machine import QemuMachine
from hypercontainer.jail import report
from hypercontainer.jail.hyperjail import HyperJail
from hypercontainer.model.status import ContainerStatus

from .conftest import DEADLINE, Lab

_ATTACH, _DETACH, _GETREGS, _SETREGS = 16, 17, 12, 13  # sys/ptrace.h
_RIP, _RAX, _ORIG_RAX = 16, 10, 15  # places in struct user_regs_struct of x86_64
_OPEN = 2  # number of open(2)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="as root each hypervisor has a user of its own")


@pytest.fixture
def config(config: Config) -> Config:
    config.network = "none"  # with slirp QEMU uses the host's network, and has its own filter
    return config


async def running(lab: Lab, **how: object) -> tuple[str, int]:
    id_ = await lab.create("sleep", "1000", **how)
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    return id_, lab.engine.containers.runtime(lab.engine.registry.container(id_)).machine.pid


@pytest.mark.parametrize("isolation", ["fresh", "default"])
async def test_every_promise_holds(lab: Lab, isolation: str) -> None:
    id_, _ = await running(lab, isolation=isolation)
    checks = await lab.engine.monitor.jail(id_)
    assert len(checks) >= 11
    assert [c for c in checks if c.status != "ok"] == []


async def test_no_stack_takes_a_huge_page(lab: Lab) -> None:
    """Larger ones do where huge pages are for all, which is not so on every host that runs this."""
    _, pid = await running(lab)
    (stack,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max stack")]
    assert stack.split()[3:5] == ["1048576", "1048576"]


async def test_no_two_have_one_user(lab: Lab) -> None:
    pids = [(await running(lab))[1] for _ in range(2)]
    assert len({os.stat(f"/proc/{pid}/root/dev/null").st_uid for pid in pids}) == 2


async def test_what_is_not_jailed_is_told(lab: Lab) -> None:
    """The same look at a process of the host: this one."""
    found = {c.name: c.status for c in report.examine(report.Seen(Path(f"/proc/{os.getpid()}")), root=True)}
    for name in ("user", "capabilities", "new privileges", "system calls", "namespaces", "root", "devices", "memory",
                 "control group"):  # fmt: skip
        assert found[f"jail: {name}"] == "fail"


async def test_a_forbidden_call_ends_the_pod_at_once(lab: Lab) -> None:
    id_, pid = await running(lab)
    life = lab.engine.containers.supervisor(lab.engine.registry.container(id_))
    make_it_call(pid)
    await asyncio.wait_for(life.stopped.wait(), DEADLINE)
    state = lab.engine.registry.container(id_).state
    assert state.status is ContainerStatus.EXITED
    assert "made a system call that its jail forbids" in state.error
    if os.access("/dev/kmsg", os.R_OK) and not _audited():
        assert "forbids: open (2), and was ended" in state.error


def _audited() -> bool:
    """Whether a daemon takes the kernel's lines of audit, which its log then does not have."""
    return any(comm.read_text() == "auditd\n" for comm in Path("/proc").glob("[0-9]*/comm") if comm.exists())


async def test_an_end_in_order_is_no_violation(lab: Lab) -> None:
    """QEMU then asks to remove the names of its sockets, which the filter answers without ending it."""
    id_, _ = await running(lab)
    container = lab.engine.registry.container(id_)
    life = lab.engine.containers.supervisor(container)
    machine = lab.engine.containers.runtime(container).machine
    assert isinstance(machine, QemuMachine)
    async with machine._monitor() as monitor:
        with contextlib.suppress(HyperError):  # it may be gone before it has answered
            await monitor.execute("quit")
    await asyncio.wait_for(life.stopped.wait(), DEADLINE)
    error = lab.engine.registry.container(id_).state.error
    assert "ended unexpectedly" in error and "SIGSYS" not in error and "unlink" not in error


def make_it_call(pid: int, call: int = _OPEN) -> None:
    """Let its first thread, which waits in a system call, make another one."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert libc.ptrace(_ATTACH, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(pid, 0x40000000)  # __WALL
    registers = (ctypes.c_ulonglong * 27)()
    assert libc.ptrace(_GETREGS, pid, None, registers) == 0
    registers[_RIP] -= 2  # the instruction `syscall`
    registers[_RAX], registers[_ORIG_RAX] = call, ctypes.c_ulonglong(-1).value
    assert libc.ptrace(_SETREGS, pid, None, registers) == 0
    assert libc.ptrace(_DETACH, pid, None, None) == 0


def test_a_host_that_forbids_it_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypercontainer.jail.hyperjail.binary", lambda name="hyperjail": Path("/bin/false"))
    assert HyperJail(tmp_path / "jail").hindrance() == "hyperjail ended with status 1"
