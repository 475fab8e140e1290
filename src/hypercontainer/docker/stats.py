# SPDX-License-Identifier: Apache-2.0
"""What a container uses, once a second, as clients compute shares of it.

CPU time of "the system" is that of the virtual machine's CPUs, running or not: so a container that keeps one of them
busy is told as 100 %, as on a host.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from aiohttp import web

from ..errors import HyperError
from ..model.statistics import ContainerStats
from ..model.status import Container
from ..sys import clock
from .router import Call, Routes

routes = Routes()
_INTERVAL = 1.0  # seconds between two samples
_NEVER = "0001-01-01T00:00:00Z"
_UNLIMITED = 2**64 - 1
_CPU_UNREAD: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_NOT_COUNTED = [
    f"{what}_recursive" for what in ["io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors"]
]
_NETWORK = [f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "dropped")]


class Sampler:
    """Samples of one container, each with the CPU time of the one before."""

    def __init__(self, call: Call, container: Container) -> None:
        self._call = call
        self._container = container
        self._read, self._cpu = _NEVER, _CPU_UNREAD

    async def sample(self) -> dict[str, Any]:
        """Of a container that does not run, or does not answer, nothing but its name."""
        before, before_cpu = self._read, self._cpu
        try:
            used = await self._call.engine.monitor.stats(self._container.id)
        except HyperError:
            self._read, self._cpu = _NEVER, _CPU_UNREAD
            return _named(self._container) | _EMPTY
        self._read, self._cpu = used.read_at, _cpu(used)
        return _named(self._container) | {
            "read": used.read_at, "preread": before, "num_procs": 0, "storage_stats": {},
            "pids_stats": {"current": used.pids, "limit": self._container.spec.resources.pids or _UNLIMITED},
            "blkio_stats": _blocks(used), "cpu_stats": self._cpu, "precpu_stats": before_cpu,
            "memory_stats": _memory(used),
            **({} if self._container.spec.network == "none" else {"networks": _networks(used)}),
        }  # fmt: skip


_EMPTY: dict[str, Any] = {
    "read": _NEVER, "preread": _NEVER, "num_procs": 0, "storage_stats": {}, "pids_stats": {}, "blkio_stats": {},
    "cpu_stats": _CPU_UNREAD, "precpu_stats": _CPU_UNREAD, "memory_stats": {},
}  # fmt: skip


def _named(container: Container) -> dict[str, Any]:
    return {"name": f"/{container.name}", "id": container.id}


def _cpu(used: ContainerStats) -> dict[str, Any]:
    """In nanoseconds. A guest that does not tell the kernel's part from the program's has it all as the program's."""
    of = {key: used.cpu.get(f"{key}_usec", 0) * 1000 for key in ("user", "system", "throttled")}
    total = used.cpu_usec * 1000
    return {
        "cpu_usage": {
            "total_usage": total, "usage_in_kernelmode": of["system"],
            "usage_in_usermode": of["user"] or total - of["system"],
        },
        "system_cpu_usage": clock.now_ns() * used.vcpus,
        "online_cpus": used.vcpus,
        "throttling_data": {
            "periods": used.cpu.get("nr_periods", 0), "throttled_periods": used.cpu.get("nr_throttled", 0),
            "throttled_time": of["throttled"],
        },
    }  # fmt: skip


def _memory(used: ContainerStats) -> dict[str, Any]:
    """`usage` is with what is cached, of which clients take `inactive_file` away. `failcnt` is there if it is not 0."""
    stats = used.memory_details or {"inactive_file": 0}
    failures = {"failcnt": used.oom_kills} if used.oom_kills else {}
    usage = used.memory + stats.get("inactive_file", 0)
    return {"usage": usage, "stats": stats, **failures, "limit": used.memory_limit}


def _blocks(used: ContainerStats) -> dict[str, Any]:
    """Bytes and requests of each device; null where there are none."""

    def counted(ways: dict[str, str]) -> list[dict[str, Any]] | None:
        return [
            {"major": b.major, "minor": b.minor, "op": op, "value": getattr(b, name)}
            for b in used.blocks
            for op, name in ways.items()
        ] or None

    return {
        "io_service_bytes_recursive": counted({"read": "read_bytes", "write": "write_bytes"}),
        "io_serviced_recursive": counted({"read": "reads", "write": "writes"}),
        **dict.fromkeys(_NOT_COUNTED),
    }


def _networks(used: ContainerStats) -> dict[str, dict[str, int]]:
    """By the interface's name in the machine. An older guest has only the bytes of all together."""
    if not used.interfaces:
        counted = {"rx_bytes": used.rx_bytes, "tx_bytes": used.tx_bytes}
        return {"eth0": dict.fromkeys(_NETWORK, 0) | counted}
    return {i.name: {key: getattr(i, key) for key in _NETWORK} for i in used.interfaces}


@routes.get("/containers/{name}/stats")
async def stats(c: Call) -> web.StreamResponse | dict[str, Any]:
    """A document each second; without `stream` one, which has two samples unless `one-shot` is set."""
    container = c.container
    sampler = Sampler(c, container)
    if not c.flag("stream", True):
        first = await sampler.sample()
        if c.flag("one-shot") or first["read"] == _NEVER:
            return first
        await asyncio.sleep(_INTERVAL)
        return await sampler.sample()
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(c.request)
    with contextlib.suppress(ConnectionError):
        while c.engine.registry.exists(container.id):
            await response.write(msgspec.json.encode(await sampler.sample()) + b"\n")
            await asyncio.sleep(_INTERVAL)
        await response.write_eof()
    return response
