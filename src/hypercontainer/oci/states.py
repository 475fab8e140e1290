# SPDX-License-Identifier: Apache-2.0
"""A container's state, as the runtime specification has it."""

from __future__ import annotations

from typing import Any

from ..client.base import container_route
from ..errors import HyperError
from .arguments import SPEC_VERSION
from .daemon import Daemon
from .records import Record, stands


def status_of(record: Record, daemon: Daemon) -> str:
    """created, running, paused or stopped: it has stopped when the process that stands for it has ended."""
    if not stands(record):
        return "stopped"
    if not record.started:
        return "created"
    try:
        found = daemon.call("GET", container_route(record.container))
    except HyperError:  # what stands for it tells
        return "running"
    return "paused" if found["state"]["status"] in ("paused", "suspended") else "running"


def state_of(record: Record, status: str) -> dict[str, Any]:
    """The specification's state, and what runc adds."""
    return {
        "ociVersion": SPEC_VERSION, "id": record.id, "pid": record.pid if status != "stopped" else 0,
        "status": status, "bundle": record.bundle, "rootfs": record.rootfs, "created": record.created,
        "annotations": record.annotations, "owner": record.owner,
    }  # fmt: skip
