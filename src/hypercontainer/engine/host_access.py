# SPDX-License-Identifier: Apache-2.0
"""What has the daemon use its host for a caller, beyond pods themselves: the scope `host`, which root's socket has.

hyperd reads files, joins networks and speaks to servers with its own rights and from its own place. So what
names such things is refused for whoever may not have that done, before anything is made.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from msgspec.structs import replace

from ..errors import PermissionDenied
from ..model.network import CNI, USER_MODE_OPEN
from ..model.pods import PodPlan, PodSpec, VolumeRequest
from ..model.reference import PLACES
from ..model.specs import ContainerSpec, LogOptions
from ..model.status import Container, Pod
from ..sys import tasks
from . import policies
from .principal import current

_LOGS_OF_HOST = ("journald", "syslog")
_LOOKED_UP = 5.0  # seconds for the addresses of a registry's name
_METADATA = ipaddress.ip_network("fd00:ec2::/32")  # where a cloud hands out credentials by IPv6


def require_host(what: str) -> None:
    """:raise PermissionDenied: who asks does not have the scope `host`."""
    if "host" not in current().scopes:
        raise PermissionDenied(f"{what} takes the scope `host`, which {current().name} does not have")


def _require_path(what: str) -> None:
    """:raise PermissionDenied: who asks may have no file of this host, or the project's policy has none."""
    require_host(what)
    policies.check_host_path(what)


def check_container(spec: ContainerSpec) -> None:
    """:raise PermissionDenied: it would have more of this host than who asks may, or a policy refuses it."""
    policies.check_container(spec)
    for mount in spec.mounts:
        if mount.type == "bind":
            _require_path(f"the path {mount.source} of this host")
    if spec.rootfs:
        _require_path(f"the directory {spec.rootfs} of this host")
    _check_devices(spec.devices)
    if spec.log.path:
        _require_path("a log file at a path of this host")
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


def check_saved(pod: Pod, containers: Iterable[Container]) -> None:
    """Of a pod that is to go on as another one; where its log goes the daemon may have said.

    :raise PermissionDenied: as `check_container`, of any part of it.
    """
    for container in containers:
        check_container(replace(container.spec, log=LogOptions()))
    _check_pod(pod.spec)
    policies.check_driver(pod.vm.driver if pod.vm else pod.spec.driver)  # which it keeps
    for volume in pod.volumes:
        if volume.kind == "disk" and not (volume.named or volume.anonymous):
            _require_path(f"volume {volume.name}: the path {volume.source} of this host")


def _check_volume(volume: VolumeRequest) -> None:
    if volume.source.startswith(("/", "file://")) and volume.format not in ("nas", "rbd", "volume", "tmpfs"):
        _require_path(f"volume {volume.name}: the path {volume.source} of this host")
    if volume.format == "rbd" or volume.monitors:
        require_host(f"volume {volume.name}: rbd, which this host connects to,")


def _check_pod(spec: PodSpec) -> None:
    policies.check_pod(spec)
    _check_devices(spec.devices)
    for interface in spec.interfaces:
        if interface.bridge or interface.ifname or interface.namespace:
            require_host("an interface on a bridge, or in a namespace, of this host")
    _check_networks([spec.network, *(n.name for n in spec.networks)])


def _check_devices(names: Iterable[str]) -> None:
    for name in names:
        require_host(f"the PCI device {name} of this host")


def _check_networks(names: Iterable[str]) -> None:
    for name in names:
        if name == USER_MODE_OPEN or name.startswith(CNI):
            require_host(f"the network {name}")


def check_files(uris: Iterable[str]) -> None:
    """A podfile's, which would be fetched before there is a plan.

    :raise PermissionDenied: who asks may not have this host read or fetch it.
    """
    for uri in uris:
        _require_path(f"{uri}, which this host reads or fetches,")


def check_source(transport: str) -> None:
    """:raise PermissionDenied: who asks may not have an image taken from there."""
    if transport in PLACES:
        _require_path(f"an image from {transport}:, which is on this host,")


async def check_registry(host: str) -> None:
    """`HOST[:PORT]`: hyperd speaks to it from its own place, where more answers than elsewhere.

    A name is looked up now, and again by who connects, and the registry may lead on to any address: what comes of
    that the firewall refuses (`Choice.wall`). This is for a sentence, and for hosts where that cannot be.

    :raise PermissionDenied: it is at an address of this host or of its link, and who asks may not have it asked.
    """
    if "host" in current().scopes:
        return
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        found = await tasks.within(asyncio.get_running_loop().getaddrinfo(bare, None), _LOOKED_UP)
    except (OSError, UnicodeError, TimeoutError):
        return  # who connects says so
    if any(_is_near(str(address[0])) for *_, address in found):
        require_host(f"a registry at an address of this host or of its link ({host})")


def _is_near(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified or address in _METADATA


def check_network(subnets: Iterable[str]) -> None:
    """:raise PermissionDenied: who asks may not say where this host's own traffic goes."""
    for subnet in subnets:
        require_host(f"a network with a subnet of its own choice ({subnet})")
