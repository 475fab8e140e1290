# SPDX-License-Identifier: Apache-2.0
"""What has the daemon use its host for a caller, beyond pods themselves: the scope `host`, which root's socket has.

hyperd reads files, joins networks and speaks to servers with its own rights and from its own place. So what
names such things is refused for whoever may not have that done, before anything is made.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import PermissionDenied
from ..model.network import CNI, USER_MODE_OPEN
from ..model.pods import PodPlan, PodSpec, VolumeRequest
from ..model.reference import PLACES
from ..model.specs import ContainerSpec
from .principal import current

_LOGS_OF_HOST = ("journald", "syslog")


def require_host(what: str) -> None:
    """:raise PermissionDenied: who asks does not have the scope `host`."""
    if "host" not in current().scopes:
        raise PermissionDenied(f"{what} takes the scope `host`, which {current().name} does not have")


def check_container(spec: ContainerSpec) -> None:
    """:raise PermissionDenied: it would have more of this host than who asks may."""
    for mount in spec.mounts:
        if mount.type == "bind":
            require_host(f"the path {mount.source} of this host")
    if spec.log.path:
        require_host("a log file at a path of this host")
    if spec.log.driver in _LOGS_OF_HOST:
        require_host(f"the log driver {spec.log.driver}")
    _check_networks([spec.network, *(n.name for n in spec.networks)])


def check_plan(plan: PodPlan) -> None:
    """:raise PermissionDenied: as `check_container`, of any part of it."""
    for volume in plan.volumes:
        _check_volume(volume)
    for container in plan.containers:
        check_container(container)
    _check_pod(plan.spec)


def _check_volume(volume: VolumeRequest) -> None:
    if volume.source.startswith(("/", "file://")) and volume.format not in ("nas", "rbd", "volume", "tmpfs"):
        require_host(f"volume {volume.name}: the path {volume.source} of this host")
    if volume.format == "rbd" or volume.monitors:
        require_host(f"volume {volume.name}: rbd, which this host connects to,")


def _check_pod(spec: PodSpec) -> None:
    for interface in spec.interfaces:
        if interface.bridge or interface.ifname or interface.namespace:
            require_host("an interface on a bridge, or in a namespace, of this host")
    _check_networks([spec.network, *(n.name for n in spec.networks)])


def _check_networks(names: Iterable[str]) -> None:
    for name in names:
        if name == USER_MODE_OPEN or name.startswith(CNI):
            require_host(f"the network {name}")


def check_files(uris: Iterable[str]) -> None:
    """A podfile's, which would be fetched before there is a plan.

    :raise PermissionDenied: who asks may not have this host read or fetch it.
    """
    for uri in uris:
        require_host(f"{uri}, which this host reads or fetches,")


def check_source(transport: str) -> None:
    """:raise PermissionDenied: who asks may not have an image taken from there."""
    if transport in PLACES:
        require_host(f"an image from {transport}:, which is on this host,")


def check_network(subnets: Iterable[str]) -> None:
    """:raise PermissionDenied: who asks may not say where this host's own traffic goes."""
    for subnet in subnets:
        require_host(f"a network with a subnet of its own choice ({subnet})")
