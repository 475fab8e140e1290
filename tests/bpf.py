# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls, run as the kernel would: the few instructions of classic BPF that ours and libseccomp's use.

https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html, linux/filter.h
"""

from __future__ import annotations

import struct


def outcome(program: bytes, number: int, arguments: tuple[int, ...], machine: int) -> int:
    """What a filter returns for a call; `machine` is its AUDIT_ARCH_*."""
    data = struct.pack("<iIQ6Q", number, machine, 0, *arguments, *(0,) * (6 - len(arguments)))
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return int(value)
        else:
            holds = {
                0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]  # fmt: skip
            at += yes if holds else no
