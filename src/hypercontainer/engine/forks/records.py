# SPDX-License-Identifier: Apache-2.0
"""The records of a pod that goes on from a saved one: what is its own, and what it has of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from ...model import ids
from ...model.network import Attachment, NetworkRequest
from ...model.pods import PodSpec
from ...model.specs import PortMapping
from ...model.status import Container, ContainerStatus, Pod, PodStatus, PodVolume
from ...protocol.messages import Interface
from ...sys import clock
from .. import naming
from ..booted import Inherited
from ..machine_disks import image_serial, scratch_serial, volume_serial
from ..paths import Paths
from ..principal import owned
from .saved import SavedPod

RAN = (ContainerStatus.RUNNING, ContainerStatus.PAUSED)  # as it was saved: its program goes on


@dataclass(frozen=True)
class Identity:
    """Who it is."""

    pod_id: str
    name: str
    containers: Mapping[str, tuple[str, str]]  # old ids -> new ids and names
    volumes: Mapping[str, PodVolume]  # old names of the pod's volumes -> the copies

    @property
    def ids(self) -> list[str]:
        """Of the pod and of its containers, once each."""
        return list(dict.fromkeys([self.pod_id, *(id_ for id_, _ in self.containers.values())]))


def names_for(document: SavedPod, name: str) -> dict[str, str]:
    """Old ids of containers -> their names in a pod of this name: what began with the old pod's name begins with it."""
    if document.pod.implicit:
        return {document.containers[0].id: name}
    old = f"{document.pod.name}-"
    return {c.id: f"{name}-{c.name.removeprefix(old)}" for c in document.containers}


def hostname_for(document: SavedPod, pod_id: str, name: str) -> str:
    """One that was chosen stays; else it follows from the new id or name, as it followed from the old one."""
    pod = document.pod
    if pod.implicit:
        return ids.short(pod_id) if pod.hostname == ids.short(pod.id) else pod.hostname
    return naming.hostname_of(name) if pod.hostname == naming.hostname_of(pod.name) else pod.hostname


def spec_for(document: SavedPod) -> PodSpec:
    """In the networks that the saved pod was in, with addresses and ports of the host that are chosen anew, and without
    aliases: who asks for one there means the saved pod.

    What a front end was given for the saved one, a kubelet's sandbox above all, it was not for this one.
    """
    pod, spec = document.pod, document.pod.spec
    if pod.attachments:
        first, *others = pod.attachments
        further = [NetworkRequest(name=a.network) for a in others]
        spec = replace(spec, network=first.network, networks=further)
    return replace(spec, ports=[free_port(p) for p in spec.ports], given={})


def free_port(port: PortMapping) -> PortMapping:
    """The same with another port of the host: the saved pod's may be taken, by itself."""
    return replace(port, host_port=0)


def pod_record(document: SavedPod, who: Identity, hostname: str, spec: PodSpec, attachments: list[Attachment]) -> Pod:
    """Not running yet."""
    pod = replace(document.pod, snapshot=document.id if document.digests else document.pod.snapshot)
    volumes = [who.volumes.get(v.name, v) for v in pod.volumes]
    return replace(
        pod, id=who.pod_id, name=who.name, created_at=clock.stamp(), hostname=hostname, vm=None, spec=spec,
        attachments=attachments, volumes=volumes, ports=[], cni=None, status=PodStatus.CREATED, error="",
        started_at="", finished_at="", ttl_from="", **owned(),
    )  # fmt: skip


def container_record(document: SavedPod, container: Container, who: Identity, pod: Pod, paths: Paths) -> Container:
    """It runs where the saved one ran; in a pod of several under its old name, too, by which the others know it."""
    id_, name = who.containers[container.id]
    before = [] if pod.implicit else [container.name]
    hostnames = {f"HOSTNAME={container.hostname}": f"HOSTNAME={pod.hostname}"}
    spec = replace(
        container.spec, name=name, hostname=container.spec.hostname and pod.hostname,
        pod=container.spec.pod and pod.name, ports=[free_port(p) for p in container.spec.ports],
        networks=pod.spec.networks if pod.implicit else container.spec.networks,
        network=pod.spec.network if pod.implicit else container.spec.network,
        log=replace(container.spec.log, path=""), given={},
        aliases=list(dict.fromkeys([*container.spec.aliases, *before])),
        labels={label: text for label, text in container.spec.labels.items() if label not in naming.PLACE_LABELS},
    )  # fmt: skip
    mounts = []
    for point in container.mounts:
        if made := who.volumes.get(point.volume):
            mount = replace(point.mount, source=made.name) if point.mount.source == point.volume else point.mount
            point = replace(point, mount=mount, volume=made.name, anonymous=bool(made.named))
        mounts.append(point)
    env = [hostnames.get(e, e) for e in container.process.env]
    state = container.state
    if state.status in RAN:
        state = replace(state, started_at=clock.stamp())
    return replace(
        container, id=id_, name=name, pod=pod.id, created_at=clock.stamp(), hostname=pod.hostname, spec=spec,
        process=replace(container.process, env=env), ports=[], mounts=mounts, log_path=str(paths.log(id_)), state=state,
        **owned(),
    )  # fmt: skip


def disk_names(document: SavedPod, who: Identity, pod: Pod, members: list[Container]) -> dict[str, str]:
    """Serial numbers of the new pod's disks -> what its guest finds them by."""
    olds: list[str] = []
    news: list[str] = []
    new_of = {old: next(c for c in members if c.id == new) for old, (new, _) in who.containers.items()}
    for container in document.containers:
        made = new_of[container.id]
        olds += [image_serial(container), scratch_serial(container)]
        news += [image_serial(made), scratch_serial(made)]
    for volume in document.pod.volumes:
        olds.append(volume_serial(volume))
        news.append(volume_serial(who.volumes.get(volume.name, volume)))
    return {new: document.names.get(old, old) for old, new in zip(olds, news, strict=True)}


def inherited(document: SavedPod, who: Identity) -> Inherited:
    """What the guest has, by new names."""

    def new(old: str) -> str:
        return who.containers[old][0]

    def volume(old: str) -> str:
        return who.volumes[old].name if old in who.volumes else old

    return Inherited(
        processes={new(c): number for c, number in document.processes.items() if c in who.containers},
        built={new(c) for c in document.built if c in who.containers},
        volumes={volume(name): found for name, found in document.volumes.items()},
    )


def interfaces_before(document: SavedPod) -> list[Interface]:
    """The network interfaces that its guest has when it wakes."""
    return [Interface(i.name, tuple(i.addresses)) for i in document.interfaces]
