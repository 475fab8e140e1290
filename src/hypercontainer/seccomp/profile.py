# SPDX-License-Identifier: Apache-2.0
"""A profile of system calls, as Docker and OCI write it. What is neither's is passed over, as both do.

Sources: https://github.com/moby/profiles/blob/main/seccomp/seccomp.go and
https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
"""

from __future__ import annotations

import errno
import re
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import InvalidArgument, Unsupported
from ..sys.documents import UNREADABLE

TEXT_MAX = 256 << 10  # characters; Docker's default profile has 14,000
PROGRAM_MAX = 4096  # instructions (BPF_MAXINSNS)
RULES_MAX, RULES_OF_CALL_MAX = 1024, 128
_ERRNO_MAX = 4095  # MAX_ERRNO of Linux
_Errno = Annotated[int, Meta(ge=0, le=_ERRNO_MAX)]
_Word = Annotated[int, Meta(ge=0)]
_WORD_MAX = 2**64 - 1

# seccomp.h of libseccomp; the lower half of ERRNO and TRACE is the number that goes with it.
_ERRNO, _TRACE = 0x00050000, 0x7FF00000
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
# linux/seccomp.h; 0: of no effect where a process with one thread loads a filter that notifies nobody.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Argument(_Part, frozen=True):
    """A condition on an argument of a call; with MASKED_EQ `value` is the mask."""

    index: Annotated[int, Meta(ge=0, le=5)] = 0
    value: _Word = 0
    value_two: _Word = 0
    op: str = ""


class Condition(_Part, frozen=True):
    """When Docker has a rule, or has it not."""

    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class Calls(_Part, frozen=True):
    """What is done with some calls; all conditions on arguments must be met."""

    action: str = ""
    names: list[str] | None = None
    name: str | None = None
    errno_ret: _Errno | None = None
    args: list[Argument] | None = None
    includes: Condition | None = None
    excludes: Condition | None = None


class Architecture(_Part, frozen=True):
    """Docker's: what goes with a processor."""

    architecture: str = ""
    sub_architectures: list[str] | None = None


class Profile(_Part, frozen=True):
    """The document."""

    default_action: str = ""
    default_errno_ret: _Errno | None = None
    architectures: list[str] | None = None
    arch_map: list[Architecture] | None = None
    flags: list[str] | None = None
    syscalls: list[Calls] | None = None
    listener_path: str | None = None


def read(text: str) -> Profile:
    """:raise InvalidArgument: it is none. :raise Unsupported: it hands calls to a program of the host's."""
    if len(text) > TEXT_MAX:
        raise InvalidArgument(f"the seccomp profile is longer than {TEXT_MAX >> 10} KiB")
    try:
        profile = msgspec.json.decode(text, type=Profile)
    except UNREADABLE as error:
        raise InvalidArgument(f"the seccomp profile is not understood: {error}") from None
    if profile.listener_path:
        raise _notified()
    if profile.architectures and profile.arch_map:
        raise InvalidArgument("both 'architectures' and 'archMap' are specified in the seccomp profile",
                              hint="leave one of them out")  # fmt: skip
    for calls in profile.syscalls or ():
        if calls.name and calls.names:
            raise InvalidArgument("both 'name' and 'names' are specified in a rule of the seccomp profile",
                                  hint="leave one of them out")  # fmt: skip
        _check(calls)
    return profile


def _notified() -> Unsupported:
    return Unsupported("a seccomp profile that asks a program of this host (SCMP_ACT_NOTIFY, listenerPath) "
                       "is not supported: it does not see into the virtual machine")  # fmt: skip


def action_of(name: str, number: int | None) -> int:
    """As libseccomp has it. :raise InvalidArgument: there is none. :raise Unsupported: SCMP_ACT_NOTIFY."""
    if name == "SCMP_ACT_NOTIFY":
        raise _notified()
    if name not in _ACTIONS:
        raise InvalidArgument(f"the seccomp profile has the unknown action {name!r}",
                              hint=f"known are {', '.join(_ACTIONS)}")  # fmt: skip
    action = _ACTIONS[name]
    if action not in (_ERRNO, _TRACE):
        return action
    return action | (errno.EPERM if number is None else number)


def flags_of(profile: Profile) -> int:
    """Of seccomp(2); where none are said a filter is no reason to run without speculation, as with runc.

    :raise InvalidArgument: there is no such flag.
    """
    if profile.flags is None:
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    if wrong := [f for f in profile.flags if f not in FLAGS]:
        raise InvalidArgument(f"the seccomp profile has the unknown flag {wrong[0]!r}",
                              hint=f"known are {', '.join(FLAGS)}")  # fmt: skip
    found = 0
    for flag in profile.flags:
        found |= FLAGS[flag]
    return found


def _check(calls: Calls) -> None:
    for condition in (calls.includes, calls.excludes):
        if condition and condition.min_kernel:
            kernel_of(condition.min_kernel)
    for argument in calls.args or ():
        if max(argument.value, argument.value_two) > _WORD_MAX:
            raise InvalidArgument("a value in the seccomp profile has more than 64 bits")


def kernel_of(text: str) -> tuple[int, int]:
    """:raise InvalidArgument: it is no version."""
    match = re.match(r"^(\d{1,4})\.(\d{1,4})\Z", text)
    if not match:
        raise InvalidArgument(f"the seccomp profile has {text!r} as a minKernel", hint="write it as 4.8")
    return int(match[1]), int(match[2])
