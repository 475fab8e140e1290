# SPDX-License-Identifier: Apache-2.0
"""Where private memory lies, of a text as proc(5) has it."""

from __future__ import annotations

from bench.mappings import private_by_mapping

SMAPS = """\
55d0b71ca000-55d0b7319000 r--p 00e00000 fe:00 1234 /usr/bin/qemu-system-x86_64
Private_Clean:         4 kB
Private_Dirty:      1000 kB
Shared_Clean:         40 kB
VmFlags: rd mr mw me ac
55d0b7319000-55d0b76c2000 rw-p 00f4f000 fe:00 1234 /usr/bin/qemu-system-x86_64
Private_Clean:         0 kB
Private_Dirty:      1212 kB
7fd6e8e00000-7fd6f8e00000 rw-p 00000000 00:00 0
Private_Dirty:         8 kB
7fd6f9a00000-7fd6fba00000 rwxp 00000000 00:00 0
Private_Dirty:        16 kB
7ff3a9fff000-7ff3b9fff000 rw-p 00000000 00:01 2050 /memfd:hyper-template (deleted)
Private_Dirty:        32 kB
"""


def test_it_is_counted_by_what_is_mapped() -> None:
    assert private_by_mapping(SMAPS.splitlines(keepends=True)) == {
        "qemu-system-x86_64": 2216,
        "anonymous": 8,
        "anonymous, executable": 16,
        "memfd:hyper-template": 32,
    }
