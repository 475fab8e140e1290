# SPDX-License-Identifier: Apache-2.0
"""Deployments: replicas of one container behind one address, replaced one after the other when they change."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from .base import Model
from .principal import Scope, Tenant
from .specs import ContainerSpec

LABEL, VERSION_LABEL = "hypercontainer.deployment", "hypercontainer.deployment.version"  # of containers: id, version
Replicas = Annotated[int, Meta(ge=0, le=200)]
Number = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class BalancedPort(Model, frozen=True, kw_only=True):
    """A port of a deployment's address, and the containers' that it leads to."""

    port: Number
    target: Number
    protocol: Literal["tcp", "udp"] = "tcp"
    host_port: Annotated[int, Meta(ge=0, le=65535)] = 0  # of all addresses of the host; 0: none


class UpdatePolicy(Model, frozen=True, kw_only=True):
    """How replicas are replaced."""

    parallelism: Annotated[int, Meta(ge=1, le=200)] = 1  # at a time
    delay: Seconds = 0.0  # between two batches
    order: Literal["start-first", "stop-first"] = "start-first"
    on_failure: Literal["pause", "rollback"] = "pause"
    monitor: Seconds = 5.0  # for which a new one must be ready before the next batch
    limit: Seconds = 120.0  # in which a new one must be ready
    drain: Seconds = 2.0  # between the last new connection to an old one and its stop


class DeploymentRequest(Model, frozen=True, kw_only=True):
    """A deployment to make."""

    name: str
    container: ContainerSpec
    replicas: Replicas = 1
    network: str = ""  # name or id; "": `default`
    ports: list[BalancedPort] = field(default_factory=list)
    sticky: bool = False  # one client's connections go to one replica, as long as these are the same
    update: UpdatePolicy = field(default_factory=UpdatePolicy)


class DeploymentUpdate(Model, frozen=True, kw_only=True):
    """What is to be another; another container replaces the replicas."""

    container: ContainerSpec | UnsetType = UNSET
    replicas: Replicas | UnsetType = UNSET
    sticky: bool | UnsetType = UNSET
    update: UpdatePolicy | UnsetType = UNSET


class Replica(Model, frozen=True, kw_only=True):
    """One of a deployment's containers."""

    container: str
    name: str
    version: int
    state: Literal["starting", "ready", "unhealthy", "draining", "ended"]
    ip: str = ""
    message: str = ""  # why it is not ready


class _Deployed(Model, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: str
    container: ContainerSpec
    replicas: int
    address: str  # in the network; "": it has no ports
    ports: list[BalancedPort]
    sticky: bool
    update: UpdatePolicy
    version: int = 1  # of the container's specification
    message: str = ""  # what went wrong last
    owner: str = ""


class Deployment(_Deployed, frozen=True, kw_only=True):
    """A deployment, as it is kept."""

    network: str  # id
    latest: int = 1  # the highest version that there was
    previous: ContainerSpec | None = None
    previous_version: int = 0
    paused: bool = False  # its update has failed
    removing: bool = False  # it goes as soon as its replicas have ended
    tenant: Tenant = UNSET
    scopes: list[Scope] = field(default_factory=list)  # of who made or changed it, by which its containers are made


class DeploymentInfo(_Deployed, frozen=True, kw_only=True):
    """What is told of a deployment."""

    network: str  # name
    ready: int
    state: Literal["complete", "progressing", "paused"]
    members: list[Replica] = field(default_factory=list)
