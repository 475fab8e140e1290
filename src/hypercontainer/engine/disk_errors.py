# SPDX-License-Identifier: Apache-2.0
"""Disks of machines whose requests fail: the guest's kernel tells the program, an event tells whoever runs it."""

from __future__ import annotations

import logging

from ..errors import HyperError
from ..hypervisor.facets import DiskErrors
from .events import Events
from .machine_disks import image_serial, scratch_serial
from .registry import Registry
from .runtime import Runtime

log = logging.getLogger(__name__)


class DiskHealth:
    """Of one machine. A disk is told of when its requests begin to fail; again when they had not for a while."""

    def __init__(self, pod_id: str, runtime: Runtime, registry: Registry, events: Events) -> None:
        self._pod_id, self._runtime, self._registry, self._events = pod_id, runtime, registry, events
        self._failed: dict[str, int] = {}
        self._failing: set[str] = set()

    async def look(self) -> None:
        """Once; a hypervisor that does not answer has told nothing."""
        if not isinstance(self._runtime.machine, DiskErrors):
            return
        try:
            now = dict(await self._runtime.machine.disk_errors())
        except HyperError:
            return
        growing = {serial for serial, number in now.items() if number > self._failed.get(serial, 0)}
        for serial in sorted(growing - self._failing):
            self._tell(serial, now[serial])
        self._failing, self._failed = growing, now

    def _tell(self, serial: str, number: int) -> None:
        pod, disk = self._registry.pod(self._pod_id), self._what(serial)
        log.warning("pod %s: %d requests to the disk of %s have failed", pod.name, number, disk)
        self._events.publish("pod", "disk_error", pod.id, name=pod.name, disk=disk, failed=str(number))

    def _what(self, serial: str) -> str:
        """For people: whose disk it is. A clone's has the serial number of the slot that it lies in."""
        own = next((ours for ours, slot in self._runtime.names.items() if slot == serial), serial)
        for c in self._registry.members(self._pod_id):
            if own in (image_serial(c), scratch_serial(c)):
                return f"container {c.name}" if own == scratch_serial(c) else f"the image of {c.name}"
        return next((f"volume {name}" for name, disk in self._runtime.volumes.items() if disk in (serial, own)), own)
