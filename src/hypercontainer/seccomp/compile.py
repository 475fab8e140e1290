# SPDX-License-Identifier: Apache-2.0
"""From a profile to a program, for a process with some capabilities on a guest's processor.

Rules of moby's (https://github.com/moby/profiles/blob/main/seccomp/seccomp_linux.go) say which of a profile count,
and those of runc's (https://github.com/opencontainers/runc/blob/main/libcontainer/seccomp/seccomp_linux.go) what
they are for libseccomp.
"""

from __future__ import annotations

import errno
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import InvalidArgument
from ..model.signals import CAPABILITIES
from .library import Rule, Rules, number_of
from .profile import (
    OPERATORS,
    PROGRAM_MAX,
    RULES_MAX,
    RULES_OF_CALL_MAX,
    Argument,
    Calls,
    Condition,
    Profile,
    action_of,
    flags_of,
    kernel_of,
    read,
)

_KERNEL = (6, 1)  # of guests, at least (hyperkernel/pin.json)
_X86_64, _X86, _X32 = 0xC000003E, 0x40000003, 0x4000003E
_AARCH64, _ARM = 0xC00000B7, 0x40000028
# By OCI's name of a machine's processor: what programs on it may be for, by seccomp's names; its own comes first.
_ARCHITECTURES = {
    "amd64": {"SCMP_ARCH_X86_64": _X86_64, "SCMP_ARCH_X86": _X86, "SCMP_ARCH_X32": _X32},
    "arm64": {"SCMP_ARCH_AARCH64": _AARCH64, "SCMP_ARCH_ARM": _ARM},
}
_LETTING = {action_of(name, 0) >> 16 for name in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")}
_MISSING = action_of("SCMP_ACT_ERRNO", errno.ENOSYS)
# Instructions (linux/filter.h), and what they look at (struct seccomp_data of linux/seccomp.h).
_LOAD, _JUMP, _EQUAL, _MORE, _LEAST, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
_NR, _ARCH = 0, 4
_X32_BIT = 0x40000000


@dataclass(frozen=True)
class Filter:
    """What a guest's kernel loads: an array of struct sock_filter, and flags of seccomp(2)."""

    program: bytes
    flags: int


def compile_profile(text: str, architecture: str, capabilities: int) -> Filter:
    """For a machine's `architecture`, by OCI's name, and what may have these CAP_* bits. That may take minutes.

    :raise InvalidArgument: it is no profile. :raise Unsupported: it asks for what no virtual machine has.
    :raise Unavailable: this host has no libseccomp.
    """
    profile, wanted = check_profile(text, architecture, capabilities)
    default = action_of(profile.default_action, profile.default_errno_ret)
    machines = _architectures(profile, architecture)
    counted = [c for c in profile.syscalls or () if _counts(c, architecture, capabilities)]
    with Rules(default, machines) as rules:
        for rule in wanted:
            rules.add(rule)
        program = _for_newer_calls(default, machines, counted) + rules.program()
    if len(program) // 8 > PROGRAM_MAX:
        raise InvalidArgument("the seccomp profile makes a longer program than a kernel takes",
                              hint="give it fewer rules")  # fmt: skip
    return Filter(program, flags_of(profile))


def check_profile(text: str, architecture: str, capabilities: int) -> tuple[Profile, list[Rule]]:
    """What can be said of it without libseccomp; the rules that count.

    :raise InvalidArgument, Unsupported: as `compile_profile`.
    """
    profile = read(text)
    flags_of(profile)
    _architectures(profile, architecture)
    default = action_of(profile.default_action, profile.default_errno_ret)
    counted = [c for c in profile.syscalls or () if _counts(c, architecture, capabilities)]
    return profile, list(_rules(counted, default))


def _architectures(profile: Profile, architecture: str) -> list[int]:
    """Those of the profile that programs in the machine may be for; the machine's own is always one."""
    known = _ARCHITECTURES.get(architecture)
    if known is None:
        raise InvalidArgument(f"there are no seccomp profiles for {architecture}")
    own = next(iter(known))
    named = set(profile.architectures or ())
    for entry in profile.arch_map or ():
        if entry.architecture == own:
            named |= set(entry.sub_architectures or ())
    return [token for name, token in known.items() if name == own or name in named]


def _counts(calls: Calls, architecture: str, capabilities: int) -> bool:
    without, only = calls.excludes or Condition(), calls.includes or Condition()
    if architecture in (without.arches or ()) or any(_has(capabilities, c) for c in without.caps or ()):
        return False
    if without.min_kernel and kernel_of(without.min_kernel) <= _KERNEL:
        return False
    if only.arches and architecture not in only.arches:
        return False
    if not all(_has(capabilities, c) for c in only.caps or ()):
        return False
    return not only.min_kernel or kernel_of(only.min_kernel) <= _KERNEL


def _has(capabilities: int, name: str) -> bool:
    short = name.removeprefix("CAP_")
    return short in CAPABILITIES and bool(capabilities >> CAPABILITIES.index(short) & 1)


def _names(calls: Calls) -> list[str]:
    return calls.names or ([calls.name] if calls.name else [])


def _rules(counted: Iterable[Calls], default: int) -> Iterator[Rule]:
    """:raise InvalidArgument: there are too many, or one cannot be."""
    count: Counter[str] = Counter()
    for calls in counted:
        action = action_of(calls.action, calls.errno_ret)
        if not _names(calls):
            raise InvalidArgument("a rule of the seccomp profile names no system call", hint="give it 'names'")
        conditions = _conditions(calls.args or [])
        if action == default:
            continue
        for name in _names(calls):
            count[name] += len(conditions)
            if count[name] > RULES_OF_CALL_MAX:
                raise InvalidArgument(f"the seccomp profile has more than {RULES_OF_CALL_MAX} rules for {name}")
            if count.total() > RULES_MAX:
                raise InvalidArgument(f"the seccomp profile has more than {RULES_MAX} rules")
            yield from (Rule(name, action, comparisons) for comparisons in conditions)


def _conditions(arguments: list[Argument]) -> list[tuple[tuple[int, int, int, int], ...]]:
    """All must be met together; but several on one argument are each enough, as with runc."""
    if wrong := [a.op for a in arguments if a.op not in OPERATORS]:
        raise InvalidArgument(f"the seccomp profile has the unknown operator {wrong[0]!r}",
                              hint=f"known are {', '.join(OPERATORS)}")  # fmt: skip
    found = [(a.index, OPERATORS[a.op], a.value, a.value_two) for a in arguments]
    if any(n > 1 for n in Counter(a.index for a in arguments).values()):
        return [(each,) for each in found]
    return [tuple(found)]


def _for_newer_calls(default: int, machines: list[int], counted: list[Calls]) -> bytes:
    """What comes before a program that refuses what it does not name: calls that are newer than each that the profile
    knows are answered with ENOSYS, as by an older kernel, for libraries fall back then. runc does the same.
    """
    if default >> 16 in _LETTING or default == _MISSING:
        return b""
    parts = []
    for token in machines:
        last = max((number_of(token, n) for c in counted for n in _names(c)), default=0)
        if token != _X32 and last > 0:
            parts.append((token, last))
    code = b""
    for token, last in reversed(parts):
        newer = _instruction(_LOAD, _NR) + _instruction(_LEAST, _X32_BIT, 2, 0) + _instruction(_MORE, last, 0, 1)
        answer = newer + _instruction(_RETURN, _MISSING)
        answer += _instruction(_JUMP, len(code) // 8) if code else b""
        code = _instruction(_EQUAL, token, 0, len(answer) // 8) + answer + code
    return _instruction(_LOAD, _ARCH) + code if code else b""


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)
