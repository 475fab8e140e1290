# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls: lists of those that are allowed, everything else kills the process; or of refused ones.

A list has a name in each line; `name 0=VALUE` allows a call only with that value of its first argument,
`name 0&MASK` only when one of these bits is set there, `name !MASK` only without these bits in its third argument,
`name -` answers it with ENOSYS, `name !MASK -` does that without these bits. What follows a # is a comment.
A call that is newer than the table of numbers gets ENOSYS too, as from an older kernel: libraries fall back then.
Instructions and the data that they look at: linux/filter.h, linux/seccomp.h and
Documentation/userspace-api/seccomp_filter.rst of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

from .calls import NUMBERS

# BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, JMP|JSET|K, RET|K
_LOAD, _EQUAL, _LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; an argument has its low half first
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_MISSING = _ERRNO | errno.ENOSYS
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2  # linux/prctl.h, linux/seccomp.h
_X32 = 0x40000000  # bit of the numbers of x86_64's second ABI
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h


@dataclass(frozen=True)
class Rule:
    """One call."""

    name: str
    argument: int = 0
    equal: int | None = None  # the argument's low half
    any_of: int = 0  # bits
    none_of: int = 0  # bits
    missing: bool = False  # it is answered as if the kernel did not have it


def read(path: Path) -> tuple[Rule, ...]:
    """The rules of a list; a line that is none raises ValueError."""
    lines = (line.partition("#")[0].split() for line in path.read_text().splitlines())
    return tuple(_rule(words) for words in lines if words)


def _rule(words: list[str]) -> Rule:
    name, *rest = words
    if name not in NUMBERS:
        raise ValueError(f"{name!r} is not in jail/calls.py")
    missing = rest[-1:] == ["-"]
    if len(rest) == missing:
        return Rule(name, missing=missing)
    condition = rest[0]
    if condition.startswith("!"):
        return Rule(name, argument=2, none_of=int(condition[1:], 0), missing=missing)
    if "&" in condition:
        argument, _, mask = condition.partition("&")
        return Rule(name, argument=int(argument), any_of=int(mask, 0))
    argument, _, value = condition.partition("=")
    return Rule(name, argument=int(argument), equal=int(value, 0))


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


def _decision(rule: Rule) -> bytes:
    """What is done with a call that the rule is about; its number is loaded anew by the next."""
    allow, kill = _instruction(_RETURN, _MISSING if rule.missing else _ALLOW), _instruction(_RETURN, _KILL)
    argument = _instruction(_LOAD, _ARGUMENTS + 8 * rule.argument)
    if rule.equal is not None:
        return argument + _instruction(_EQUAL, rule.equal, 0, 1) + allow + kill
    if rule.any_of:
        return argument + _instruction(_ANY_BIT, rule.any_of, 0, 1) + allow + kill
    if rule.none_of:
        return argument + _instruction(_ANY_BIT, rule.none_of, 1, 0) + allow + kill
    return allow


def program(rules: tuple[Rule, ...], machine: str = "") -> bytes:
    """An array of struct sock_filter for the host, or another machine (`uname -m`).

    A call that the machine does not have is left out, as `poll` of aarch64. Of two rules for one call the last counts.
    """
    machine = machine or platform.machine()
    column = list(_ARCHITECTURES).index(machine)
    newer = 1 + max(numbers[column] for numbers in NUMBERS.values())
    parts = [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NR),
        _instruction(_LEAST, _X32, 2, 0),
        _instruction(_LEAST, newer, 0, 1),
        _instruction(_RETURN, _MISSING),
    ]
    for rule in {rule.name: rule for rule in rules}.values():
        number = NUMBERS[rule.name][column]
        if number >= 0:
            decision = _decision(rule)
            parts += [_instruction(_EQUAL, number, 0, len(decision) // 8), decision]
    return b"".join([*parts, _instruction(_RETURN, _KILL)])


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def apply(filter_: bytes) -> None:
    """Have this process, which has refused new privileges, filtered; before its first thread begins.

    :raise OSError: the kernel does not take it.
    """
    handed = _Program(len(filter_) // 8, filter_)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(handed), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter of system calls cannot be applied")


# What no helper needs, and what has opened kernels before: rights over other processes, mounts and namespaces,
# modules, the host's clock and keys, and interfaces whose holes were many.
_REFUSED = """
mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr unshare setns
ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp bpf perf_event_open userfaultfd
io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl open_by_handle_at fanotify_init
init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd
syslog settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm modify_ldt
vhangup uselib nfsservctl lookup_dcookie migrate_pages move_pages mknod mknodat memfd_secret
"""
REFUSED = frozenset(_REFUSED.split())
_NEW_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEW*, linux/sched.h


def refusals(names: frozenset[str] = REFUSED, machine: str = "") -> bytes:
    """Answers these calls with EPERM and allows the others; with `unshare` among them no namespace is made."""
    machine = machine or platform.machine()
    column = list(_ARCHITECTURES).index(machine)
    kill, allow = _instruction(_RETURN, _KILL), _instruction(_RETURN, _ALLOW)
    refuse = _instruction(_RETURN, _ERRNO | errno.EPERM)
    parts = [_instruction(_LOAD, _ARCH), _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0), kill]
    parts += [_instruction(_LOAD, _NR), _instruction(_ANY_BIT, _X32, 0, 1), kill]
    for name in sorted(names):
        if (number := NUMBERS[name][column]) >= 0 and name != "unshare":
            parts += [_instruction(_EQUAL, number, 0, 1), refuse]
    if "unshare" in names:
        parts += [_instruction(_EQUAL, NUMBERS["clone3"][column], 0, 1), _instruction(_RETURN, _MISSING)]
        for name in ("clone", "unshare"):  # threads part from each other by the second, too
            parts += [_instruction(_EQUAL, NUMBERS[name][column], 0, 4), _instruction(_LOAD, _ARGUMENTS)]
            parts += [_instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1), refuse, allow]
    return b"".join([*parts, allow])
