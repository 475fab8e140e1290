# SPDX-License-Identifier: Apache-2.0
"""What a saved machine can go on with."""

from __future__ import annotations

from pathlib import Path

from ...hypervisor.driver import MachineConfig
from ...hypervisor.drivers import Drivers
from ...hypervisor.facets import Snapshots, require
from ...model.status import Pod
from ..paths import FindBootFiles


class Fingerprints:
    """Of the hypervisor, the guest's kernel and the processor that a pod would be started with."""

    def __init__(self, drivers: Drivers, boot: FindBootFiles) -> None:
        self._drivers = drivers
        self._boot_files = boot

    async def of(self, pod: Pod) -> str:
        """Another one is that of a host on which a machine that was saved would not go on."""
        driver, files = self._drivers.get(pod.spec.driver), self._boot_files(pod.architecture)
        config = MachineConfig(
            "", Path(), pod.vcpus, pod.memory, files.kernel, files.initramfs, architecture=pod.architecture
        )
        return await require(driver, Snapshots).fingerprint(config)
