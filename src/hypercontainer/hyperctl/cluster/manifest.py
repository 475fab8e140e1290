# SPDX-License-Identifier: Apache-2.0
"""A container as `run` asks for it, as a Pod. What a Pod has not is refused by name."""

from __future__ import annotations

import re
import secrets
from typing import Any

import msgspec

from ...errors import InvalidArgument, Unsupported
from ...model.specs import ContainerSpec, Mount, Resources

MANAGED = "app.kubernetes.io/managed-by"
OURS = "hyperctl"
CONTAINER = "main"
_NAME_MAX = 63
_PULL = {"always": "Always", "missing": "IfNotPresent", "never": "Never"}
_TAKEN = {
    "image", "name", "command", "entrypoint", "env", "workdir", "user", "groups", "hostname", "tty", "stdin",
    "read_only", "resources", "labels", "sysctls", "cap_add", "cap_drop", "no_new_privileges", "seccomp", "expose",
    "dns", "dns_search", "dns_options", "hosts", "mounts", "privileged", "stop_timeout", "auto_remove", "pull",
    "annotations",
}  # fmt: skip
_HINTS = {
    "ports": "make a Service of it, or use `kubectl port-forward`",
    "publish_all": "make a Service of it, or use `kubectl port-forward`",
    "network": "the cluster's network is every Pod's",
    "networks": "the cluster's network is every Pod's",
    "restart": "make a Deployment of it",
    "driver": "name a runtime class by `hyperctl context update --runtime-class`",
    "isolation": "name a runtime class by `hyperctl context update --runtime-class`",
    "pod": "give all containers in a Pod's file, to kubectl",
}
_PLAIN = (0o1777, 0, 0)  # mode and owner, of a directory in memory
_FLAGS = {"publish_all": "-P", "ports": "-p", "network": "--network", "networks": "--network", "health": "--health-cmd",
          "run_init": "--init", "ulimits": "--ulimit", "log": "--log-driver", "no_health": "--no-healthcheck",
          "links": "--link", "aliases": "--network-alias"}  # fmt: skip


def name_for(image: str) -> str:
    """A name that says the image, and is nobody's yet."""
    last = re.sub(r"[^a-z0-9]+", "-", image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower())
    return f"{last.strip('-')[:40] or 'pod'}-{secrets.token_hex(3)}"


def pod_of(spec: ContainerSpec, runtime_class: str) -> dict[str, Any]:
    """:raise Unsupported: naming what a Pod has not. :raise InvalidArgument: a name or user that Kubernetes has not."""
    _check(spec)
    name = spec.name or name_for(spec.image)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) or len(name) > _NAME_MAX:
        raise InvalidArgument(
            f"{name!r} is no name of a Pod", hint=f"use up to {_NAME_MAX} small letters, digits and '-' between them"
        )
    mounts, volumes = _mounts(spec.mounts)
    whole = {
        "restartPolicy": "Never", "enableServiceLinks": False, "runtimeClassName": runtime_class,
        "hostname": spec.hostname, "terminationGracePeriodSeconds": spec.stop_timeout, "volumes": volumes,
        "containers": [_container(spec, mounts)], "securityContext": _of_pod(spec),
        "hostAliases": [{"ip": h.ip, "hostnames": h.names} for h in spec.hosts], "dnsConfig": _dns(spec),
    }  # fmt: skip
    metadata = {"name": name, "labels": {MANAGED: OURS, **spec.labels}, "annotations": spec.annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _said(metadata), "spec": _said(whole)}


def _said(document: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing; what is False may say something."""
    return {key: value for key, value in document.items() if value not in ("", [], {}, None)}


def _check(spec: ContainerSpec) -> None:
    usual = ContainerSpec(image=spec.image)
    for each in msgspec.structs.fields(ContainerSpec):
        if each.name not in _TAKEN and getattr(spec, each.name) != getattr(usual, each.name):
            flag = _FLAGS.get(each.name, f"--{each.name.replace('_', '-')}")
            hint = _HINTS.get(each.name, "leave it out, or use another context")
            raise Unsupported(f"{flag} is not possible in a cluster of Kubernetes", hint=hint)
    if spec.resources != Resources(cpus=spec.resources.cpus, memory=spec.resources.memory):
        raise Unsupported("--pids-limit is not possible in a cluster of Kubernetes", hint="its nodes have a limit")


def _container(spec: ContainerSpec, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    env = [dict(zip(("name", "value"), entry.partition("=")[::2], strict=True)) for entry in spec.env]
    return _said(
        {
            "name": CONTAINER, "image": spec.image, "command": spec.entrypoint, "args": spec.command, "env": env,
            "workingDir": spec.workdir, "tty": spec.tty, "stdin": spec.stdin, "stdinOnce": spec.stdin,
            "imagePullPolicy": _PULL[spec.pull], "resources": _said({"limits": _limits(spec.resources)}),
            "securityContext": _security(spec), "volumeMounts": mounts,
            "ports": [_port(port) for port in spec.expose],
        }
    )  # fmt: skip


def _port(text: str) -> dict[str, Any]:
    number, _, protocol = text.partition("/")
    return {"containerPort": int(number), "protocol": (protocol or "tcp").upper()}


def _limits(resources: Resources) -> dict[str, str]:
    """Bytes, and thousandths of a processor."""
    memory = str(resources.memory) if resources.memory else ""
    return _said({"memory": memory, "cpu": f"{round(resources.cpus * 1000)}m" if resources.cpus else ""})


def _security(spec: ContainerSpec) -> dict[str, Any]:
    user, _, group = spec.user.partition(":")
    for word in filter(None, (user, group)):
        if not word.isdecimal():
            raise InvalidArgument(f"the user {spec.user!r} is no number", hint="write UID[:GID]: a Pod has no names")
    capabilities = {
        "add": [_capability(c) for c in spec.cap_add], "drop": [_capability(c) for c in spec.cap_drop]
    }  # fmt: skip
    return _said(
        {
            "privileged": spec.privileged or None, "readOnlyRootFilesystem": spec.read_only or None,
            "runAsUser": int(user) if user else None, "runAsGroup": int(group) if group else None,
            "allowPrivilegeEscalation": False if spec.no_new_privileges else None,
            "capabilities": _said(capabilities),
            "seccompProfile": {"type": "RuntimeDefault" if spec.seccomp == "default" else "Unconfined"},
        }
    )  # fmt: skip


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


def _of_pod(spec: ContainerSpec) -> dict[str, Any]:
    if wrong := [g for g in spec.groups if not g.isdecimal()]:
        raise InvalidArgument(f"the group {wrong[0]!r} is no number", hint="a Pod has no names of groups")
    sysctls = [{"name": name, "value": value} for name, value in spec.sysctls.items()]
    return _said({"supplementalGroups": [int(g) for g in spec.groups], "sysctls": sysctls})


def _dns(spec: ContainerSpec) -> dict[str, Any]:
    options = [_said(dict(zip(("name", "value"), o.partition(":")[::2], strict=True))) for o in spec.dns_options]
    return _said({"nameservers": spec.dns, "searches": spec.dns_search, "options": options})


def _mounts(wanted: list[Mount]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mounts of the container, and volumes of the Pod: a named volume is a PersistentVolumeClaim of that name."""
    mounts, volumes = [], []
    for number, m in enumerate(wanted):
        name = f"volume-{number}"
        if m.type == "bind":
            raise Unsupported(
                f"{m.source} of this host cannot be mounted in a cluster",
                hint="use `-v NAME:PATH` with the name of a PersistentVolumeClaim",
            )
        if (m.mode, m.uid, m.gid) != _PLAIN:
            raise Unsupported(
                "mode, uid and gid of a --tmpfs are not possible in a cluster of Kubernetes",
                hint="leave them out, or set them in the command",
            )
        if m.type == "tmpfs":
            kind: dict[str, Any] = {"emptyDir": _said({"medium": "Memory", "sizeLimit": str(m.size) if m.size else ""})}
        elif m.type == "image":
            kind = {"image": {"reference": m.source}}
        elif m.source:
            kind = {"persistentVolumeClaim": {"claimName": m.source}}
        else:
            kind = {"emptyDir": {}}
        volumes.append({"name": name, **kind})
        mounts.append(_said({"name": name, "mountPath": m.target, "subPath": m.sub_path,
                             "readOnly": m.read_only or None}))  # fmt: skip
    return mounts, volumes
