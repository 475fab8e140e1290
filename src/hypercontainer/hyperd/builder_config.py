# SPDX-License-Identifier: Apache-2.0
"""The table `builder` of the configuration: what builds images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from ..engine.builder.machine import BuilderSettings
from ..model.rates import parse_allow
from ..model.units import parse_duration, parse_size
from .values import value


class BuilderConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Sizes are written like 10m."""

    image: str = ""  # a name; "" is what `make builder-image` made
    memory: str = "1g"
    cpus: Annotated[float, Meta(gt=0)] = BuilderSettings.cpus
    keep: str = "5m"  # after its last use
    cache: str = "16g"  # what is kept of its cache
    network: str = ""  # "" is that of pods that name none
    allow: list[str] = []  # the only destinations that builds may reach, CIDR[:PORT]; none: all

    def settings(self, insecure: Iterable[str]) -> BuilderSettings:
        """:raise InvalidArgument: a value that is malformed, naming it."""
        return BuilderSettings(
            image=self.image, memory=value("builder.memory", self.memory, parse_size), cpus=self.cpus,
            keep=value("builder.keep", self.keep, parse_duration),
            cache=value("builder.cache", self.cache, parse_size), network=self.network,
            allow=tuple(parse_allow(a) for a in self.allow), insecure=frozenset(insecure),
        )  # fmt: skip
