# SPDX-License-Identifier: Apache-2.0
"""Groups of a container's states, and of a pod's; and when a pod's time is over."""

from __future__ import annotations

from datetime import datetime, timedelta

from .status import ContainerStatus, Pod, PodStatus

STILL = (ContainerStatus.PAUSED, ContainerStatus.SUSPENDED)  # its programs do not run, and go on later
UP = (ContainerStatus.RUNNING, *STILL)  # it has its addresses
ALIVE = (*UP, ContainerStatus.RESTARTING)  # it has begun, and not come to its end
POD_STILL = (PodStatus.PAUSED, PodStatus.SUSPENDED)
POD_UP = (PodStatus.RUNNING, *POD_STILL)


def end_of(pod: Pod) -> datetime | None:
    """When its ttl is over; None of one that has none, or does not run."""
    if not (pod.spec.ttl and pod.started_at and pod.status in POD_UP):
        return None
    began = max(datetime.fromisoformat(t) for t in (pod.started_at, pod.ttl_from) if t)
    return began + timedelta(seconds=pod.spec.ttl)
