# SPDX-License-Identifier: Apache-2.0
"""By what a pod will run: its driver and its networks, chosen when it is made."""

from __future__ import annotations

import msgspec

from ..hypervisor.drivers import Drivers
from ..model.network import Attachment
from ..model.pods import PodSpec
from .networks import Networks
from .pod_network import PodNetwork


class Placement:
    """Chooses what a specification leaves open; takes nothing."""

    def __init__(self, drivers: Drivers, networks: Networks, network: PodNetwork) -> None:
        self.network = network
        self._networks = networks
        self._drivers = drivers

    def plan(self, id_: str, spec: PodSpec, aliases: list[str]) -> tuple[PodSpec, list[Attachment]]:
        """The specification with its driver and networks, and the pod's places in these.

        :raise InvalidArgument: no such driver. :raise NotFound: no such network. :raise Conflict: an address is taken.
        """
        driver = self._drivers.get(spec.driver)
        return self._networks.plan(id_, msgspec.structs.replace(spec, driver=driver.name), aliases)
