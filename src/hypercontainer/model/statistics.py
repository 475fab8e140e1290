# SPDX-License-Identifier: Apache-2.0
"""What a container uses: `stats`."""

from __future__ import annotations

from msgspec import field

from .base import Model


class BlockStats(Model, frozen=True, kw_only=True):
    """What a container has asked of one block device of its machine, in bytes and requests."""

    major: int
    minor: int
    read_bytes: int
    write_bytes: int
    reads: int
    writes: int


class InterfaceStats(Model, frozen=True, kw_only=True):
    """What has passed a network interface of the machine, which has that name there, in bytes and packets."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class EgressStats(Model, frozen=True, kw_only=True):
    """What a pod with an egress policy has reached by name, and tried, since its machine, or hyperd, was started."""

    connections: int  # to hosts that it may reach
    refused: int  # connections, requests, and questions for names
    refused_packets: int  # of IPv4 that the host's rules have dropped: UDP, ICMP, what goes to this host
    rx_bytes: int  # of connections by the proxy, to the pod
    tx_bytes: int


class ContainerStats(Model, frozen=True, kw_only=True):
    """A moment's use of resources; network counts are the pod's.

    `memory` is without what is cached and could be dropped, which `memory_details` has as `inactive_file`. Its keys and
    those of `cpu` are of memory.stat (bytes, pages, events) and cpu.stat (microseconds, periods) of a control group.
    """

    id: str
    name: str
    read_at: str
    cpu_usec: int
    vcpus: int
    memory: int
    memory_limit: int
    pids: int
    read_bytes: int
    write_bytes: int
    rx_bytes: int
    tx_bytes: int
    oom_kills: int = 0
    cpu: dict[str, int] = field(default_factory=dict)
    memory_details: dict[str, int] = field(default_factory=dict)
    blocks: list[BlockStats] = field(default_factory=list)
    interfaces: list[InterfaceStats] = field(default_factory=list)
    egress: EgressStats | None = None  # the pod's; None without a policy
