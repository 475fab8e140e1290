# SPDX-License-Identifier: Apache-2.0
"""The table `fips` of the configuration: floating addresses that projects may have."""

from __future__ import annotations

import msgspec

from ..network.addresses import parse_subnet
from ..network.floating import FipSettings
from .values import value


class FipConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Where they are of, and how they come to this host."""

    pools: list[str] = []  # CIDR: every address of these, none of which anything else has
    interface: str = ""  # of this host, which answers for them; "": a router sends them here

    def settings(self) -> FipSettings:
        """:raise InvalidArgument: naming the key."""
        pools = tuple(value("fips.pools", text, parse_subnet) for text in self.pools)
        made = FipSettings(pools, self.interface)
        made.check()
        return made
