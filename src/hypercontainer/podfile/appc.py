# SPDX-License-Identifier: Apache-2.0
"""App Container pods (rkt's): a pod manifest becomes a podfile. Source: https://github.com/appc/spec, 0.8.11, pods."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from ..errors import InvalidArgument
from ..model.appc import App, Isolator, Pair, Port, reference, rights_of
from ..model.reference import parse_reference
from . import strict
from .load import Loaded

Raw = dict[str, Any]
KIND = "PodManifest"


class _Image(msgspec.Struct, frozen=True):
    name: str = ""
    id: str = ""
    labels: list[Pair] = []


class _Mount(msgspec.Struct, frozen=True):
    volume: str
    path: str


class _App(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    image: _Image
    app: App | None = None
    read_only_rootfs: bool = field(default=False, name="readOnlyRootFS")
    mounts: list[_Mount] = []


class _Volume(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    kind: str
    source: str = ""
    read_only: bool = False
    mode: str = ""
    gid: int = 0


class _PodPort(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    host_port: int
    host_ip: str = field(default="", name="hostIP")
    pod_port: Port | None = None


class _PodManifest(msgspec.Struct, frozen=True, rename="camel"):
    ac_version: str
    apps: list[_App]
    volumes: list[_Volume] = []
    isolators: list[Isolator] = []
    annotations: list[Pair] = []
    ports: list[_PodPort] = []


def from_manifest(document: Raw) -> Loaded:
    """:raise InvalidArgument: with what is wrong, and where."""
    try:
        pod = msgspec.convert(document, _PodManifest)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"pod manifest: {error}", hint="see github.com/appc/spec") from error
    ignored: list[str] = []
    limits = rights_of(App(isolators=pod.isolators))
    ignored += limits.ignored
    containers = [_container(app, {v.name: v for v in pod.volumes}, ignored) for app in pod.apps]
    # A container's limit is its own; the pod's is what its machine has.
    resource: Raw = {"memory": f"{limits.memory}b"} if limits.memory else {}
    if limits.cpus:
        resource["vcpu"] = -int(-limits.cpus // 1)
    podfile: Raw = {
        "pid": "container", "containers": containers, "resource": resource,
        "volumes": [_volume(v) for v in pod.volumes], "portmappings": [_mapping(p, pod.apps) for p in pod.ports],
        "labels": {x.name: x.value for x in pod.annotations},
    }  # fmt: skip
    return Loaded(strict.decode(podfile, what="pod manifest"), ignored)


def _container(given: _App, volumes: dict[str, _Volume], ignored: list[str]) -> Raw:
    out: Raw = {"name": given.name, "image": _image(given.image), "readOnly": given.read_only_rootfs}
    mounted = [(m.volume, m.path, False) for m in given.mounts]
    if app := given.app:
        rights = rights_of(app)
        ignored += [f"{what} of the app {given.name}" for what in rights.ignored]
        named = {m[0] for m in mounted}
        mounted += [
            (p.name, p.path, p.read_only) for p in app.mount_points if p.name in volumes and p.name not in named
        ]
        out |= {
            "workdir": app.working_directory,
            "envs": [{"env": e.name, "value": e.value} for e in app.environment],
            "user": {"name": app.user, "group": app.group, "additionalGroups": rights.groups},
            "limits": {"cpus": rights.cpus, "memory": f"{rights.memory}b" if rights.memory else 0},
            "capabilities": {"add": rights.cap_add, "drop": rights.cap_drop},
            "noNewPrivileges": rights.no_new_privileges,
        }
        out |= {"entrypoint": app.exec, "command": []} if app.exec else {}
    for volume, _, _ in mounted:
        if volume not in volumes:
            raise InvalidArgument(
                f"pod manifest: the app {given.name} mounts {volume!r}, which is no volume of the pod",
                hint=f"there are {', '.join(volumes)}" if volumes else "name it in volumes",
            )
    out["volumes"] = [
        {"volume": name, "path": path, "readOnly": only or volumes[name].read_only} for name, path, only in mounted
    ]
    return out


def _image(image: _Image) -> str:
    """By its id where the manifest has that, which the store knows from when it was loaded."""
    if image.id:
        return image.id
    name = reference(image.name, image.labels)
    if not name:
        raise InvalidArgument(f"pod manifest: an image has the name {image.name!r}, which none can have here")
    return parse_reference(name).familiar


def _volume(v: _Volume) -> Raw:
    if v.kind == "host":
        return {"name": v.name, "source": v.source, "format": "vfs", "readOnly": v.read_only}
    if v.kind != "empty":
        raise InvalidArgument(f"pod manifest: volume {v.name} is of the kind {v.kind!r}", hint="use host or empty")
    own = {"perm": v.mode or "0755", "group": v.gid} if v.mode or v.gid else {}  # a new one is root's, and 0755
    return {"name": v.name, **own}


def _mapping(port: _PodPort, apps: list[_App]) -> Raw:
    found = port.pod_port or next((p for a in apps if a.app for p in a.app.ports if p.name == port.name), None)
    if found is None:
        raise InvalidArgument(
            f"pod manifest: no app of the pod has a port {port.name!r}", hint="name it in its app's ports"
        )
    return {
        "containerPort": found.port, "hostPort": port.host_port, "hostIP": port.host_ip, "protocol": found.protocol
    }  # fmt: skip
