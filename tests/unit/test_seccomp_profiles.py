# SPDX-License-Identifier: Apache-2.0
"""Profiles that users bring: what of them counts, and the programs that they become, run as the kernel would."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hypercontainer.engine import creation
from hypercontainer.errors import HyperError, InvalidArgument, Unavailable, Unsupported
from hypercontainer.model.signals import ALL_CAPABILITIES, capability_mask
from hypercontainer.model.specs import ContainerSpec
from hypercontainer.seccomp import TEXT_MAX, apart
from hypercontainer.seccomp import compiled as compiled_apart
from hypercontainer.seccomp.compile import compile_profile
from tests import bpf

ALLOW, KILL, KILL_PROCESS, TRAP, LOG = 0x7FFF0000, 0, 0x80000000, 0x00030000, 0x7FFC0000
ERRNO, TRACE = 0x00050000, 0x7FF00000
AMD64, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
X32 = 0x40000000
# Numbers of x86-64, of its programs of 32 bits, and of aarch64.
READ, OPENAT, CLONE3, MKDIR, SOCKET = 0, 257, 435, 83, 41
READ_386, READ_ARM64, OPENAT_ARM64 = 3, 63, 56


def outcome(program: bytes, number: int, *arguments: int, machine: int = AMD64) -> int:
    return bpf.outcome(program, number, arguments, machine)


def compiled(default: str, *rules: dict[str, Any], on: str = "amd64", caps: int = 0, **fields: Any) -> bytes:
    document = {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules), **fields}
    return compile_profile(json.dumps(document), on, caps).program


def rule(action: str, *names: str, **fields: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **fields}


def test_an_allow_list() -> None:
    """What is newer than all that it names is answered as by an older kernel."""
    program = compiled("ERRNO", rule("ALLOW", "read", "openat"))
    assert outcome(program, READ) == outcome(program, OPENAT) == ALLOW
    assert outcome(program, MKDIR) == ERRNO | errno.EPERM
    assert outcome(program, CLONE3) == ERRNO | errno.ENOSYS
    assert outcome(program, READ_386, machine=I386) == KILL  # another architecture than those of the profile


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("KILL", KILL), ("KILL_THREAD", KILL), ("KILL_PROCESS", KILL_PROCESS), ("TRAP", TRAP), ("LOG", LOG),
        ("ERRNO", ERRNO | errno.EPERM), ("TRACE", TRACE | errno.EPERM),
    ],
)  # fmt: skip
def test_actions(name: str, found: int) -> None:
    program = compiled("ALLOW", rule(name, "mkdir"))
    assert (outcome(program, MKDIR), outcome(program, READ), outcome(program, 1000)) == (found, ALLOW, ALLOW)
    assert outcome(compiled(name, rule("ALLOW", "read")), READ) == ALLOW


def test_numbers_of_errors() -> None:
    program = compiled("ERRNO", rule("ALLOW", "openat"), rule("ERRNO", "mkdir", errnoRet=errno.EACCES),
                       defaultErrnoRet=errno.ENOSYS)  # fmt: skip
    assert outcome(program, MKDIR) == ERRNO | errno.EACCES
    assert outcome(program, READ) == outcome(program, CLONE3) == ERRNO | errno.ENOSYS


def test_a_default_that_lets_newer_calls_through() -> None:
    for action, found in (("ALLOW", ALLOW), ("LOG", LOG), ("TRACE", TRACE | errno.EPERM)):
        assert outcome(compiled(action, rule("ERRNO", "read")), CLONE3) == found


@pytest.mark.parametrize(
    ("op", "values", "met", "not_met"),
    [
        ("EQ", (5,), 5, 6), ("NE", (5,), 6, 5), ("LT", (5,), 4, 5), ("LE", (5,), 5, 6), ("GE", (5,), 5, 4),
        ("GT", (5,), 6, 5), ("MASKED_EQ", (0xF0, 0x20), 0x2F, 0x3F), ("EQ", (1 << 40,), 1 << 40, 0),
    ],
)  # fmt: skip
def test_conditions_on_arguments(op: str, values: tuple[int, ...], met: int, not_met: int) -> None:
    argument = {"index": 1, "op": f"SCMP_CMP_{op}", "value": values[0], "valueTwo": (*values, 0)[1]}
    program = compiled("ERRNO", rule("ALLOW", "read", args=[argument]), rule("ALLOW", "openat"))
    assert outcome(program, READ, 0, met) == ALLOW
    assert outcome(program, READ, 0, not_met) == ERRNO | errno.EPERM


def test_several_conditions() -> None:
    """All of those on several arguments, each of those on one."""

    def equal(index: int, value: int) -> dict[str, Any]:
        return {"index": index, "op": "SCMP_CMP_EQ", "value": value}

    both = compiled("ALLOW", rule("ERRNO", "socket", args=[equal(0, 1), equal(1, 2)]))
    assert [outcome(both, SOCKET, *a) == ALLOW for a in ((1, 2), (1, 3), (0, 2))] == [False, True, True]
    each = compiled("ALLOW", rule("ERRNO", "socket", args=[equal(0, 1), equal(0, 2)]))
    assert [outcome(each, SOCKET, a) == ALLOW for a in (1, 2, 3)] == [False, False, True]


def test_names_that_no_processor_has_are_passed_over() -> None:
    program = compiled("ERRNO", rule("ALLOW", "no_such_call", "read", "openat"))
    assert outcome(program, READ) == ALLOW


def test_programs_of_other_architectures() -> None:
    """Docker's map goes by the machine; OCI's list is as it is, with the machine's own."""
    maps = [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ]
    for fields in ({"archMap": maps}, {"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_MIPS"]}):
        program = compiled("ERRNO", rule("ALLOW", "read", "openat"), **fields)
        assert outcome(program, READ_386, machine=I386) == outcome(program, READ) == ALLOW
        assert outcome(program, X32 | READ) == ALLOW
        assert outcome(program, 39, machine=I386) == ERRNO | errno.EPERM
        assert outcome(program, 435, machine=I386) == ERRNO | errno.ENOSYS
    program = compiled("ERRNO", rule("ALLOW", "read", "openat"), on="arm64", archMap=maps)
    assert outcome(program, READ_ARM64, machine=ARM64) == outcome(program, OPENAT_ARM64, machine=ARM64) == ALLOW
    assert outcome(program, CLONE3, machine=ARM64) == ERRNO | errno.ENOSYS
    assert outcome(program, READ, machine=AMD64) == KILL


@pytest.mark.parametrize(
    ("fields", "caps", "counts"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, ALL_CAPABILITIES, True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, capability_mask([], []), False),
        ({"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}, capability_mask(["BPF"], []), False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}, capability_mask(["BPF"], []), False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, capability_mask([], []), True),
        ({"includes": {"arches": ["amd64", "x32"]}}, 0, True),
        ({"includes": {"arches": ["s390x"]}}, 0, False),
        ({"excludes": {"arches": ["amd64"]}}, 0, False),
        ({"includes": {"minKernel": "4.8"}}, 0, True),
        ({"includes": {"minKernel": "99.0"}}, 0, False),
        ({"excludes": {"minKernel": "4.8"}}, 0, False),
        ({"includes": {}, "excludes": None, "args": None}, 0, True),
    ],
)
def test_dockers_conditions(fields: dict[str, Any], caps: int, counts: bool) -> None:
    program = compiled("ERRNO", rule("ALLOW", "mkdir", **fields), rule("ALLOW", "openat"), caps=caps)
    assert (outcome(program, MKDIR) == ALLOW) is counts


def test_flags() -> None:
    def flags(*given: str) -> int:
        return compile_profile(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "flags": given}), "amd64", 0).flags

    assert compile_profile('{"defaultAction":"SCMP_ACT_ALLOW"}', "amd64", 0).flags == 4
    assert flags() == flags("SECCOMP_FILTER_FLAG_TSYNC") == 0
    assert flags("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW") == 6


def many(count: int, per_call: int) -> str:
    names = ["clock_gettime", "read", "write", "openat", "close", "mkdir", "rmdir", "rename", "unlink"]
    rules = [
        rule("ERRNO", name, args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 1000 * of + n} for n in range(per_call)])
        for of, name in enumerate(names[:count])
    ]
    machines = ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "architectures": machines, "syscalls": rules})


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", InvalidArgument, "is not understood"),
        ("[]", InvalidArgument, "is not understood"),
        ("[" * 100_000, InvalidArgument, "is not understood"),
        ("{}", InvalidArgument, "unknown action ''"),
        ('{"defaultAction":"SCMP_ACT_DENY"}', InvalidArgument, "unknown action 'SCMP_ACT_DENY': known are SCMP_ACT_K"),
        ('{"defaultAction":"SCMP_ACT_NOTIFY"}', Unsupported, "asks a program of this host"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}', Unsupported, "asks a program of this host"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}', InvalidArgument, "unknown flag 'X'"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":5000}', InvalidArgument, "is not understood"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{}],"architectures":["x"]}', InvalidArgument, "'archMap' are"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}', InvalidArgument, "unknown action ''"),
        (f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{json.dumps(rule("KILL"))}]}}', InvalidArgument, "names no"),
        (f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{json.dumps(rule("KILL", "read", name="x"))}]}}',
         InvalidArgument, "both 'name' and 'names'"),
        (f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{json.dumps(rule("KILL", "read", args=[{"op": "?"}]))}]}}',
         InvalidArgument, "unknown operator '\\?'"),
        (f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":'
         f'[{json.dumps(rule("KILL", "read", args=[{"value": 1 << 64, "op": "SCMP_CMP_EQ"}]))}]}}',
         InvalidArgument, "more than 64 bits"),
        (f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":'
         f'[{json.dumps(rule("KILL", "read", includes={"minKernel": "new"}))}]}}', InvalidArgument, "as a minKernel"),
        (" " * (TEXT_MAX + 1), InvalidArgument, "longer than 256 KiB"),
        (many(9, 120), InvalidArgument, "more than 1024 rules"),
        (many(1, 129), InvalidArgument, "more than 128 rules for clock_gettime"),
    ],
)  # fmt: skip
def test_what_is_no_profile(text: str, error: type[HyperError], said: str) -> None:
    with pytest.raises(error, match=said):
        compile_profile(text, "amd64", 0)


def test_a_profile_for_no_machine() -> None:
    with pytest.raises(InvalidArgument, match="no seccomp profiles for riscv64"):
        compile_profile('{"defaultAction":"SCMP_ACT_ALLOW"}', "riscv64", 0)


def test_a_process_of_its_own() -> None:
    text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("ERRNO", "mkdir")]})
    found = compiled_apart(text, "amd64", 0)
    assert found == compile_profile(text, "amd64", 0)
    with pytest.raises(InvalidArgument, match="unknown action 'X'"):
        compiled_apart('{"defaultAction":"X"}', "amd64", 0)
    command = [sys.executable, "-m", "hypercontainer.seccomp", "amd64", "0"]
    answer = json.loads(subprocess.run(command, input=b'{"defaultAction":"X"}', capture_output=True, check=True).stdout)
    assert answer["error"] == "InvalidArgument" and answer["hint"].startswith("known are")


def test_where_hyperd_was_started_is_no_place_for_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hypercontainer").mkdir()
    (tmp_path / "hypercontainer/__init__.py").write_text("raise SystemExit('somebody else')")
    monkeypatch.chdir(tmp_path)
    assert compiled_apart('{"defaultAction":"SCMP_ACT_TRAP"}', "amd64", 0).program


async def test_profiles_are_compiled_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever brings many that take long does not have all of hyperd's threads."""
    three = threading.Barrier(3)

    def slowly(*_: object) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            three.wait(0.2)

    monkeypatch.setattr(creation, "filter_of", slowly)
    spec, made = ContainerSpec(image="i", seccomp_profile="{}"), creation.Creation(*[mock.Mock()] * 6)
    await asyncio.gather(*(made._filter(spec, "") for _ in range(3)))
    assert three.broken, "three at a time"
    assert await made._filter(ContainerSpec(image="i"), "") is None


async def test_a_profile_that_waits_too_long_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "_COMPILERS", 0)
    monkeypatch.setattr(creation, "_COMPILER_WAIT", 0.01)
    with pytest.raises(Unavailable, match="of other containers are still being compiled"):
        await creation.Creation(*[mock.Mock()] * 6)._filter(ContainerSpec(image="i", seccomp_profile="{}"), "")


async def test_who_goes_away_ends_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does the end of hyperd, which waits for its threads."""
    began, processes = threading.Event(), []
    popen = subprocess.Popen

    def asleep(_command: list[str], **how: Any) -> subprocess.Popen[bytes]:
        processes.append(popen(["sleep", "1000"], **how))
        began.set()
        return processes[0]

    monkeypatch.setattr(apart.subprocess, "Popen", asleep)
    monkeypatch.setattr(apart, "_WALL", 900)
    made = creation.Creation(*[mock.Mock()] * 6)
    text = '{"defaultAction":"SCMP_ACT_KILL_PROCESS"}'
    asked = asyncio.create_task(made._filter(ContainerSpec(image="i", seccomp_profile=text), "amd64"))
    assert await asyncio.to_thread(began.wait, 60)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert processes[0].returncode == -9


def test_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """libseccomp goes on for minutes."""
    monkeypatch.setattr(apart, "_WALL", 0.001)
    with pytest.raises(InvalidArgument, match="in a reasonable time"):
        compiled_apart('{"defaultAction":"SCMP_ACT_LOG"}', "amd64", 0)
