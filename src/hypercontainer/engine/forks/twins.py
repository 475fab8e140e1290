# SPDX-License-Identifier: Apache-2.0
"""Machines of the same shape as one that is saved, with nothing behind their devices, for as long as that takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...hypervisor.driver import Disk, MachineConfig, Snapshot
from ...hypervisor.drivers import Drivers
from ...hypervisor.facets import Checkpoints, Instant, Snapshots, require
from ...model import ids
from ...model.status import Pod
from ...sys.files import make_sparse, remove_tree
from ..allotments import Allotments
from ..paths import FindBootFiles, Paths
from ..runtime import Runtime
from . import idle


class Twins:
    """Saves machines, by drivers that can."""

    def __init__(
        self, drivers: Drivers, paths: Paths, allotments: Allotments, boot: FindBootFiles, blank_size: int
    ) -> None:
        """`blank_size` are the bytes of a disk that nothing lies behind."""
        self.drivers = drivers
        self._paths = paths
        self._allotments = allotments
        self._boot_files = boot
        self._blank_size = blank_size

    async def fingerprint(self, pod: Pod) -> str:
        """What a saved machine of such a pod can go on with."""
        driver, files = self.drivers.get(pod.spec.driver), self._boot_files(pod.architecture)
        config = MachineConfig(
            "", Path(), pod.vcpus, pod.memory, files.kernel, files.initramfs, architecture=pod.architecture
        )
        return await require(driver, Snapshots).fingerprint(config)

    async def checkpoint(
        self, pod: Pod, runtime: Runtime, disks: Mapping[str, Disk], files: Snapshot, instant: Instant
    ) -> Snapshot:
        """Save a pod's machine. Its disks are known by what the guest finds them by; its twin's are as long, and empty.

        :raise Unavailable: the hypervisor fails.
        """
        boot, directory = self._boot_files(pod.architecture), self._paths.machine(f"make-{ids.new_id()[:8]}")
        driver, layout = self.drivers.get(runtime.machine.driver), runtime.layout
        assert layout  # it was checked
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(remove_tree, directory)
            directory.mkdir(mode=0o700, parents=True)
            allotment = await self._allotments.take(
                driver, directory.name, pod.vcpus, pod.memory, architecture=pod.architecture
            )
            undo.callback(allotment.give_back)
            nics = undo.enter_context(idle.idle_nics(layout))
            for nic in nics:
                undo.callback(nic.close)
            twin = idle.machine_like(
                pod, layout, boot, allotment, directory, idle.networks(layout, nics),
                idle.disks(layout, _empty_like(disks, directory), directory, self._blank_size),
            )  # fmt: skip
            return await require(driver, Checkpoints).checkpoint(runtime.machine, twin, files, instant)


def _empty_like(disks: Mapping[str, Disk], directory: Path) -> dict[str, Disk]:
    made = {}
    for number, (serial, disk) in enumerate(disks.items()):
        path = directory / f"twin-{number}.img"
        make_sparse(path, os.stat(disk.path).st_size)
        made[serial] = replace(disk, serial=serial, path=path, format="raw")
    return made
