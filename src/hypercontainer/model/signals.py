# SPDX-License-Identifier: Apache-2.0
"""Signals, capabilities and resource limits by the names that Docker takes."""

from __future__ import annotations

import signal

from ..errors import InvalidArgument

_RTMIN, _RTMAX = 34, 64

CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
# https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities
DEFAULT_CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
]
ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1

# Linux's numbers: the guest's, whatever the host is.
RLIMITS = {
    name: number
    for number, name in enumerate(
        [
            "cpu",
            "fsize",
            "data",
            "stack",
            "core",
            "rss",
            "nproc",
            "nofile",
            "memlock",
            "as",
            "locks",
            "sigpending",
            "msgqueue",
            "nice",
            "rtprio",
            "rttime",
        ]
    )
}
UNLIMITED = (1 << 64) - 1


def parse_signal(text: str) -> int:
    """A signal's number from `9`, `KILL`, `SIGKILL` or `SIGRTMIN+3`.

    :raise InvalidArgument: when there is no such signal.
    """
    if text.isdecimal():
        if 0 < int(text) <= _RTMAX:
            return int(text)
        raise InvalidArgument(f"invalid signal {text}", hint="use 1 to 64 or a name such as TERM")
    name = text.upper().removeprefix("SIG")
    for base, value in (("RTMIN", _RTMIN), ("RTMAX", _RTMAX)):
        offset = name.removeprefix(base)
        if name.startswith(base) and (not offset or offset[1:].isdecimal()):
            number = value + int(offset or 0)
            if _RTMIN <= number <= _RTMAX:
                return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidArgument(f"invalid signal {text!r}", hint="use 1 to 64 or a name such as TERM") from None


def capability_mask(add: list[str], drop: list[str]) -> int:
    """Docker's default set with `add` and `drop` applied, as a bit mask.

    :raise InvalidArgument: on an unknown name.
    """

    def names(given: list[str]) -> set[str]:
        found = set()
        for cap in given:
            name = cap.upper().removeprefix("CAP_")
            if name == "ALL":
                found.update(CAPABILITIES)
            elif name in CAPABILITIES:
                found.add(name)
            else:
                raise InvalidArgument(f"unknown capability {cap!r}", hint="see capabilities(7) for the names")
        return found

    dropped = names(drop)
    everything = {c.upper().removeprefix("CAP_") for c in drop} & {"ALL"}
    base = set() if everything else set(DEFAULT_CAPABILITIES) - dropped
    chosen = base | names(add)
    if not everything:
        chosen -= dropped
    return sum(1 << CAPABILITIES.index(name) for name in chosen)
