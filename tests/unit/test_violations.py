# SPDX-License-Identifier: Apache-2.0
"""Which call ended a process: lines of the kernel's log, as Linux writes them."""

from __future__ import annotations

from hypercontainer.jail.violations import named, search

LINE = (
    b"5,2123,66291015055,-;audit: type=1326 audit(1795918485.241:775): auid=4294967295 uid=1912602677 gid=1912602677 "
    b'ses=4294967295 pid=16929 comm="hyper-x" exe="/usr/bin/qemu-system-x86_64" sig=31 arch=c000003e syscall=257 '
    b"compat=0 ip=0x7f4aeb449011 code=0x80000000\n"
)
OTHERS = [
    b"6,1,1,-;Linux version 6.1\n",
    LINE.replace(b"pid=16929", b"pid=1692"),
    LINE.replace(b"sig=31", b"sig=0"),  # allowed, and only told
    b"12,7,9,-;a program says: audit: type=1326 audit(1795918485.1:1): pid=16929 sig=31 syscall=2 \n",
]


def test_the_line_of_a_process() -> None:
    assert search([*OTHERS, LINE, *OTHERS], 16929, 1795918485.9) == 257
    assert search(OTHERS, 16929, 0) is None


def test_an_earlier_process_of_the_same_number() -> None:
    assert search([LINE], 16929, 1795918486.0) is None
    assert search([LINE, LINE.replace(b"=257", b"=2")], 16929, 0) == 2


def test_a_name_for_a_number() -> None:
    assert [named(2, "x86_64"), named(56, "aarch64"), named(999, "x86_64")] == [
        "open (2)", "openat (56)", "unknown (999)"]  # fmt: skip
