# SPDX-License-Identifier: Apache-2.0
"""Groups of a container's states."""

from __future__ import annotations

from .status import ContainerStatus

STILL = (ContainerStatus.PAUSED, ContainerStatus.SUSPENDED)  # its programs do not run, and go on later
UP = (ContainerStatus.RUNNING, *STILL)  # it has its addresses
ALIVE = (*UP, ContainerStatus.RESTARTING)  # it has begun, and not come to its end
