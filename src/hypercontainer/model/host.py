# SPDX-License-Identifier: Apache-2.0
"""What the daemon says of itself and of its host."""

from __future__ import annotations

from msgspec import field

from .base import Model
from .specs import LogOptions


class Version(Model, frozen=True, kw_only=True):
    """The daemon's side of `version`."""

    version: str
    api_version: str
    kernel: str
    hyperstart: str
    qemu: str
    python: str
    os: str
    arch: str


class DriverStatus(Model, frozen=True, kw_only=True):
    """A hypervisor of this hyperd, as `info` shows it."""

    name: str
    version: str = ""  # "": it is not installed
    usable: bool
    reason: str  # how its processors run and why, or why it is not usable
    hint: str = ""
    default: bool = False
    can: list[str]  # docs/hypervisors.md


class ForeignStatus(Model, frozen=True, kw_only=True):
    """Another architecture than this host's, whose images run emulated."""

    name: str  # OCI's
    usable: bool
    reason: str  # what emulates it and the kernel that is booted, or why it is not usable
    hint: str = ""


class Info(Model, frozen=True, kw_only=True):
    """`info`."""

    version: str
    root: str
    rootless: bool
    pods: int
    containers: int
    running: int
    images: int
    driver: str
    accelerator: str
    accelerator_reason: str
    kernel_version: str
    kernel_config_hash: str
    kernel_path: str
    cpus: int
    memory: int
    network: str
    log: LogOptions = field(default_factory=LogOptions)  # of containers that say nothing of theirs
    audit: str = ""  # where the audit log is, and what is wrong with it
    docker_host: str = ""  # where Docker's clients reach hyperd, for DOCKER_HOST; "": nowhere
    drivers: list[DriverStatus] = field(default_factory=list)
    architectures: list[ForeignStatus] = field(default_factory=list)  # beside this host's


class Check(Model, frozen=True, kw_only=True):
    """One line of `doctor`."""

    name: str
    status: str  # ok, warn, fail
    found: str
    hint: str = ""
