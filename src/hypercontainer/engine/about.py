# SPDX-License-Identifier: Apache-2.0
"""The daemon, its host and how much there is: `info`, `version`."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from .. import API_VERSION, __version__
from ..guest.initramfs import hyperstart_path, hyperstart_version
from ..hypervisor.drivers import Drivers
from ..images.store import ImageStore
from ..kernel.locate import Kernel
from ..model.host import Info, Version
from ..model.status import ContainerStatus
from . import doctor
from .audit import AuditLog
from .paths import FindBootFiles
from .principal import current
from .registry import Registry
from .settings import Settings


@dataclass(frozen=True)
class About:
    """Counts are of the tenant that asks; paths of this host are not for projects."""

    settings: Settings
    drivers: Drivers
    kernel: Kernel | None
    boot: FindBootFiles
    registry: Registry
    images: ImageStore
    audit: AuditLog | None

    def version(self) -> Version:
        """Of all parts."""
        return Version(
            version=__version__,
            api_version=API_VERSION,
            kernel=self.kernel.version if self.kernel else "",
            hyperstart=hyperstart_version(hyperstart_path()),
            qemu=self.drivers.default.version,
            python=platform.python_version(),
            os=platform.system().lower(),
            arch=platform.machine(),
        )

    async def info(self) -> Info:
        """What `hyperctl info` shows."""
        driver = self.drivers.default
        probe = await driver.probe()
        containers, of_host = self.registry.containers(seen=True), not current().tenant
        return Info(
            version=__version__,
            root=str(self.settings.paths.root) if of_host else "",
            rootless=os.geteuid() != 0,
            pods=len(self.registry.pods(seen=True)),
            containers=len(containers),
            running=sum(c.state.status is ContainerStatus.RUNNING for c in containers),
            images=self.images.count(),
            driver=f"{driver.name} {driver.version}",
            accelerator=probe.accelerator,
            accelerator_reason=probe.reason,
            kernel_version=self.kernel.version if self.kernel else "",
            kernel_config_hash=self.kernel.config_hash if self.kernel else "",
            kernel_path=str(self.kernel.path) if self.kernel and of_host else "",
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            network=self.settings.network.default,
            log=self.settings.log,
            audit=self.audit.state() if self.audit and of_host else "",
            docker_host=self.settings.docker_host,
            drivers=[await doctor.driver_status(d, default=d is driver) for d in self.drivers],
            architectures=await doctor.foreign_status(self.drivers, self.boot),
        )
