# SPDX-License-Identifier: Apache-2.0
"""What the engine is told when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..cluster.port import Ports
from ..images.limits import Limits
from ..images.trust import Trust
from ..model.quotas import Quota
from ..model.sizes import DEFAULTS as SIZES
from ..model.sizes import Size
from ..model.specs import LogOptions
from ..network.addresses import AnyNetwork
from ..network.floating import FipSettings
from ..state.journal import EventLimits
from .audit import AuditSettings
from .builder.machine import BuilderSettings
from .factory.factory import FactorySettings
from .networks import NetworkSettings
from .paths import Paths


@dataclass(frozen=True)
class Settings:
    """What the engine takes from the daemon's configuration."""

    paths: Paths
    scratch_size: int  # bytes
    log_size: int  # bytes of one log file
    log_files: int
    boot_timeout: float  # seconds
    insecure_registries: frozenset[str]
    log: LogOptions = field(default_factory=lambda: LogOptions(driver="json-file"))  # where a request says nothing
    images: Limits = field(default_factory=Limits)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    kill_silent: bool = False  # machines whose guests do not answer any more
    volume_type: Literal["block", "directory"] = "block"  # of named volumes that are made without a word about it
    virtiofs: bool = True  # off: no directories of the host
    fips: FipSettings = field(default_factory=FipSettings)
    factory: FactorySettings = field(default_factory=FactorySettings)
    events: EventLimits = field(default_factory=EventLimits)
    audit: AuditSettings | None = None
    trust: Trust = field(default_factory=Trust)  # whose images are taken
    trusts: Mapping[str, Trust] = field(default_factory=dict)  # of projects whose policy names one
    builder: BuilderSettings = field(default_factory=BuilderSettings)  # what builds images
    egress_networks: tuple[AnyNetwork, ...] = ()  # not public ones, in which hosts of egress policies may lie
    sizes: Mapping[str, Size] = field(default_factory=lambda: SIZES)
    quotas: Mapping[str, Quota] = field(default_factory=dict)  # principals, as patterns -> what they may have
    metering: bool = False  # of what belongs to no project
    cluster: Ports | None = None  # of whose nodes' use, and whose namespaces, this daemon has the account
    docker_host: str = ""  # where Docker's clients are served
