# SPDX-License-Identifier: Apache-2.0
"""Several changes of one pod, or of a container and its pod, that are made together."""

from __future__ import annotations

from .base import Model
from .egress import EgressChange
from .lifetimes import Lifetime
from .specs import ContainerUpdate


class PodUpdate(Model, frozen=True, kw_only=True):
    """All of it, or nothing; what is None stays as it is."""

    limits: ContainerUpdate | None = None  # of a container, by its name or id
    egress: EgressChange | None = None
    lifetime: Lifetime | None = None
