# SPDX-License-Identifier: Apache-2.0
"""By what directories of the host come to guests."""

from __future__ import annotations

from dataclasses import dataclass

from ..hypervisor.driver import Driver, VirtioFs


@dataclass
class Shares:
    """As the daemon's configuration says."""

    virtiofs: bool  # may be used; else there are none

    def by_virtiofs(self, driver: Driver) -> bool:
        """Whether they may come by virtiofs to machines of this driver."""
        return self.virtiofs and VirtioFs in driver.takes
