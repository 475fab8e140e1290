# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls, run as the kernel would."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hypercontainer.hypervisor.qemu.confinement import CALLS, USER_NETWORK_CALLS
from hypercontainer.jail import seccomp
from hypercontainer.jail.calls import NUMBERS
from tests import bpf

ALLOW, KILL, MISSING = 0x7FFF0000, 0x80000000, 0x00050000 | errno.ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), machine: str = "x86_64") -> int:
    return bpf.outcome(program, number, arguments, ARCHITECTURES[machine])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_qemus_list(machine: str) -> None:
    program = seccomp.program(seccomp.read(CALLS), machine)
    column = list(ARCHITECTURES).index(machine)
    outcomes = {n: run(program, v[column], machine=machine) for n, v in NUMBERS.items() if v[column] >= 0}
    assert outcomes["ppoll"] == outcomes["read"] == outcomes["exit_group"] == ALLOW
    assert outcomes["clone3"] == MISSING
    for flags, outcome in ((0, MISSING), (0x80000, MISSING), (1, KILL), (2, KILL), (0x40, KILL)):
        assert run(program, NUMBERS["openat"][column], (0, 0, flags), machine) == outcome
    for name in ("openat2", "connect", "ptrace", "bpf", "io_uring_setup", "keyctl", "mount", "execve"):
        assert outcomes[name] == KILL, name
    assert sum(o == ALLOW for o in outcomes.values()) <= 80
    threads, name_of_a_thread = 0x10000, 15
    assert run(program, NUMBERS["clone"][column], (threads,), machine) == ALLOW
    assert run(program, NUMBERS["clone"][column], (0x11,), machine) == KILL
    assert run(program, NUMBERS["prctl"][column], (name_of_a_thread,), machine) == ALLOW
    assert run(program, NUMBERS["prctl"][column], (4,), machine) == KILL


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_slirp_has_besides(machine: str) -> None:
    """Sockets of one family, and files to read."""
    program = seccomp.program((*seccomp.read(CALLS), *seccomp.read(USER_NETWORK_CALLS)), machine)
    column = list(ARCHITECTURES).index(machine)
    number = {name: numbers[column] for name, numbers in NUMBERS.items()}
    assert run(program, number["socket"], (2,), machine) == ALLOW
    for family in (1, 10, 16, 17, 40):  # unix, IPv6, netlink, packet, vsock
        assert run(program, number["socket"], (family,), machine) == KILL
    assert run(program, number["openat"], (0, 0, 0x80000), machine) == ALLOW
    for flags in (1, 2, 0x40, 0x42):
        assert run(program, number["openat"], (0, 0, flags), machine) == KILL
    for name in ("openat2", "ptrace", "bpf", "io_uring_setup", "keyctl", "mount", "execve", "kill", "unshare"):
        assert run(program, number[name], (), machine) == KILL


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_helpers_are_refused(machine: str) -> None:
    program = seccomp.refusals(machine=machine)
    column = list(ARCHITECTURES).index(machine)
    number = {name: numbers[column] for name, numbers in NUMBERS.items()}
    refused = 0x00050000 | errno.EPERM
    for name in ("ptrace", "bpf", "io_uring_setup", "keyctl", "mount", "init_module", "kexec_load", "setns"):
        assert run(program, number[name], (), machine) == refused, name
    for name in ("read", "openat", "execve", "socket", "exit_group"):
        assert run(program, number[name], (), machine) == ALLOW, name
    assert run(program, number["clone3"], (), machine) == MISSING
    for name in ("clone", "unshare"):
        for namespace in (0x20000, 0x10000000, 0x40000000, 0x02000000, 0x80):  # CLONE_NEWNS, USER, NET, CGROUP, TIME
            assert run(program, number[name], (namespace,), machine) == refused
        assert run(program, number[name], (0x200,), machine) == ALLOW  # CLONE_FS
    if machine == "x86_64":
        assert run(program, 0x40000000 + number["mount"]) == KILL  # x32
    assert run(seccomp.refusals(seccomp.REFUSED - {"mount"}, machine), number["mount"], (), machine) == ALLOW


def test_calls_of_another_architecture_kill() -> None:
    program = seccomp.program(seccomp.read(CALLS), "x86_64")
    assert run(program, NUMBERS["read"][1], machine="aarch64") == KILL
    assert run(program, 0x40000000 + NUMBERS["read"][0]) == KILL  # x32


def test_a_call_without_some_bits_of_its_third_argument(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    path.write_text("mprotect !4 # PROT_EXEC\n")
    program = seccomp.program(seccomp.read(path), "x86_64")
    assert [run(program, NUMBERS["mprotect"][0], (0, 0, bits)) for bits in (3, 5)] == [ALLOW, KILL]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_call_that_is_newer_than_the_table(machine: str) -> None:
    """Is answered as by an older kernel."""
    program = seccomp.program(seccomp.read(CALLS), machine)
    newest = max(v[list(ARCHITECTURES).index(machine)] for v in NUMBERS.values())
    assert [run(program, newest + n, machine=machine) for n in (1, 50)] == [MISSING, MISSING]
    assert run(program, 0x40000000 + newest + 1, machine=machine) == KILL


def test_a_name_that_is_no_call(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    path.write_text("raed\n")
    with pytest.raises(ValueError, match="'raed' is not in jail"):
        seccomp.read(path)
