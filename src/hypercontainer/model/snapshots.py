# SPDX-License-Identifier: Apache-2.0
"""Pods that were saved while they ran, and what is asked of them. Sizes are in bytes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from .base import Model

FORKS_MAX = 100  # of one request


class SnapshotRequest(Model, frozen=True, kw_only=True):
    """Save a pod: its memory, its disks, all that runs in it, at one instant."""

    pod: str  # name or id
    name: str = ""  # "" is made up


class SnapshotInfo(Model, frozen=True, kw_only=True):
    """A pod that was saved."""

    id: str
    name: str
    created_at: str
    pod: str  # name of the pod that it is of
    pod_id: str
    containers: list[str]  # names
    images: list[str]
    driver: str
    accelerator: str
    architecture: str
    vcpus: int
    memory: int  # that the guest has
    size: int  # on this host's disk; of what it shares with others its part
    paused_ms: int  # for how long the pod stood still
    labels: dict[str, str] = field(default_factory=dict)  # of the pod
    parent: str = ""  # id of the snapshot beside which only what is another is stored, while there is one


class RestoreRequest(Model, frozen=True, kw_only=True):
    """A new pod that goes on where the saved one was."""

    name: str = ""  # "" is the saved one's, with a part of the new id


class ForkRequest(Model, frozen=True, kw_only=True):
    """New pods that go on where one that runs is now, which runs on."""

    count: Annotated[int, Meta(ge=1, le=FORKS_MAX)] = 1
    name: str = ""  # of several, each has a number after it
