# SPDX-License-Identifier: Apache-2.0
"""What a guest has used: the reply to STATS, and the kernel's own files in it.

Their formats are Linux's, Documentation/admin-guide/cgroup-v2.rst and Documentation/filesystems/proc.rst. A guest may
write anything there: what is no number of 64 bits is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .constants import Tag
from .wire import decode_attrs, number, required, text

_NUMBER_MAX = 2**64 - 1
_LINES_MAX = 256  # of a file; the kernel's have fewer
_NUMBERS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")
_COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11)  # of these in /proc/net/dev


def _number(word: str) -> int | None:
    """None: it is none."""
    if not (word.isascii() and word.isdigit() and len(word) <= len(str(_NUMBER_MAX))):
        return None
    value = int(word)
    return value if value <= _NUMBER_MAX else None


def _pairs(lines: Iterable[str], separator: str) -> dict[str, int]:
    """Of a key and a number each."""
    split = (line.partition(separator) for line in lines)
    return {key: value for key, _, word in split if key and (value := _number(word)) is not None}


@dataclass(frozen=True)
class BlockUsage:
    """What a container has asked of one block device, in bytes and requests."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


def decode_io_stat(content: str) -> tuple[BlockUsage, ...]:
    """Of a control group's io.stat: a line is `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...`."""
    found = []
    for line in content.splitlines()[:_LINES_MAX]:
        device, *counters = line.split()[:16] or [""]
        major, minor = (_number(word) for word in (device.partition(":")[0], device.partition(":")[2]))
        if major is None or minor is None:
            continue
        has = _pairs(counters, "=")
        values = (has.get(key, 0) for key in ("rbytes", "wbytes", "rios", "wios"))
        found.append(BlockUsage(major, minor, *values))
    return tuple(found)


@dataclass(frozen=True)
class InterfaceUsage:
    """What has passed a network interface of the guest since it was there, in bytes and packets."""

    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0

    @classmethod
    def decode(cls, body: bytes) -> InterfaceUsage:
        attrs = dict(decode_attrs(body))
        values = [_number(word) or 0 for word in text(required(attrs, Tag.VALUE)).split()[:16]]
        values += [0] * (16 - len(values))
        counted = {name: values[column] for name, column in zip(_NUMBERS, _COLUMNS, strict=True)}
        return cls(text(required(attrs, Tag.NAME)), **counted)


@dataclass(frozen=True)
class ContainerUsage:
    """What a container has used: bytes, microseconds of CPU time, and how many processes it has.

    `cpu` and `memory_details` have the kernel's keys; an older hyperstart tells neither them nor `blocks`.
    """

    memory: int = 0
    cpu_usec: int = 0
    pids: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    oom_kills: int = 0
    cpu: dict[str, int] = field(default_factory=dict)
    memory_details: dict[str, int] = field(default_factory=dict)
    blocks: tuple[BlockUsage, ...] = ()

    @classmethod
    def decode(cls, attrs: dict[int, bytes]) -> ContainerUsage:
        """What the guest does not say is 0."""

        def told(tag: Tag) -> int:
            return number(attrs.get(tag, bytes(8)))

        cpu, memory, blocks = (text(attrs.get(tag, b"")) for tag in (Tag.CPU_STAT, Tag.MEMORY_STAT, Tag.IO_STAT))
        return cls(
            memory=told(Tag.MEMORY),
            cpu_usec=told(Tag.CPU_USEC),
            pids=told(Tag.PIDS),
            read_bytes=told(Tag.READ_BYTES),
            write_bytes=told(Tag.WRITE_BYTES),
            oom_kills=told(Tag.OOM),
            cpu=_pairs(cpu.splitlines()[:_LINES_MAX], " "),
            memory_details=_pairs(memory.splitlines()[:_LINES_MAX], " "),
            blocks=decode_io_stat(blocks),
        )


@dataclass(frozen=True)
class GuestStats:
    """STATS: of the guest, and by container name."""

    memory_total: int
    memory_available: int
    rx_bytes: int
    tx_bytes: int
    interfaces: tuple[InterfaceUsage, ...] = ()
    containers: dict[str, ContainerUsage] = field(default_factory=dict)

    @classmethod
    def decode(cls, body: bytes) -> GuestStats:
        attrs: dict[int, bytes] = {}
        containers = {}
        interfaces = []
        for tag, value in decode_attrs(body):
            if tag == Tag.STATS:
                inner = dict(decode_attrs(value))
                containers[text(required(inner, Tag.CONTAINER))] = ContainerUsage.decode(inner)
            elif tag == Tag.INTERFACE:
                interfaces.append(InterfaceUsage.decode(value))
            attrs[tag] = value
        zero = bytes(8)
        return cls(
            memory_total=number(attrs.get(Tag.MEM_TOTAL, zero)),
            memory_available=number(attrs.get(Tag.MEM_FREE, zero)),
            rx_bytes=number(attrs.get(Tag.RX_BYTES, zero)),
            tx_bytes=number(attrs.get(Tag.TX_BYTES, zero)),
            interfaces=tuple(interfaces),
            containers=containers,
        )
